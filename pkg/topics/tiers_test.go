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
