package topics

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTiersAreReadSortedAndOnce(t *testing.T) {
	got, err := ParseTiers(" 5m, 1s,30s,,1s ")
	if err != nil || !slices.Equal(got, []time.Duration{time.Second, 30 * time.Second, 5 * time.Minute}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParseTiers(""); err != nil || !slices.Equal(got, DefaultTiers()) {
		t.Errorf("%v, %v", got, err)
	}
	for text, says := range map[string]string{"soon": "is no duration", "50ms": "at least 100ms", "1s,1500us": "at least 100ms", " , ": "names no tier"} {
		if _, err := ParseTiers(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestATiersTopicsAreKnownByTheirNames(t *testing.T) {
	n := Names{Prefix: "acme"}
	for _, tier := range append(DefaultTiers(), 300*time.Millisecond, 90*time.Second) {
		for _, topic := range []string{n.Retry(tier), n.WebhookRetry(tier)} {
			if got, ok := n.TierOf(topic); !ok || got != tier {
				t.Errorf("%s: %s, %v", topic, got, ok)
			}
		}
	}
	for _, topic := range []string{"", "acme.retry.", "acme.retry.soon", "acme.retry.60s", "acme.retry.-5s", "acme.webhooks", "reeve.retry.5s", "acme.tasks.retry.5s"} {
		if got, ok := n.TierOf(topic); ok {
			t.Errorf("%s is taken for a topic of the tier %s", topic, got)
		}
	}
}
