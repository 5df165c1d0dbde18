package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/egress"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestOnlyASuccessIsDelivered(t *testing.T) {
	retries := []time.Duration{time.Second, time.Minute}
	for _, tt := range []struct {
		attempt int
		answer  Answer
		state   State
		class   task.Class
		wait    time.Duration
	}{
		{1, Answer{Status: 200}, Delivered, "", 0},
		{3, Answer{Status: 204}, Delivered, "", 0},
		{1, Answer{Status: 299}, Delivered, "", 0},
		{1, Answer{Status: 301}, Retrying, task.ClassInvalidInput, time.Second},
		{1, Answer{Status: 304}, Retrying, task.ClassInvalidInput, time.Second},
		{1, Answer{Status: 404}, Retrying, task.ClassInvalidInput, time.Second},
		{2, Answer{Status: 500}, Retrying, task.ClassDependency, time.Minute},
		{3, Answer{Status: 500}, Failed, task.ClassDependency, 0},
		{9, Answer{Status: 500}, Failed, task.ClassDependency, 0},
		{1, Answer{Status: 410}, Failed, task.ClassPermanent, 0},
		{1, Answer{Status: 429, RetryAfter: 10 * time.Second}, Retrying, task.ClassRateLimited, 10 * time.Second},
		{2, Answer{Status: 429, RetryAfter: 10 * time.Second}, Retrying, task.ClassRateLimited, time.Minute},
		{1, Answer{Status: 503, RetryAfter: 1000 * time.Hour}, Retrying, task.ClassDependency, maxRetryAfter},
		{3, Answer{Status: 429, RetryAfter: time.Second}, Failed, task.ClassRateLimited, 0},
		{1, Answer{Err: context.DeadlineExceeded}, Retrying, task.ClassTimeout, time.Second},
		{1, Answer{Err: errors.New("connection refused")}, Retrying, task.ClassNetwork, time.Second},
		{1, Answer{Err: fmt.Errorf("dial: %w", egress.ErrRefused)}, Failed, task.ClassPermanent, 0},
	} {
		v := Judge(retries, tt.attempt, tt.answer)
		if v.State != tt.state || v.Class != tt.class || v.Wait != tt.wait || v.Deferred || v.State != Delivered && v.Message == "" {
			t.Errorf("attempt %d, %+v: %+v", tt.attempt, tt.answer, v)
		}
	}
	if v := Judge(nil, 1, Answer{Status: 500}); v.State != Failed {
		t.Errorf("without retries: %+v", v)
	}
}

func TestWhatCantBeTriedWaitsButNotForEver(t *testing.T) {
	retries := []time.Duration{time.Hour}
	for n := range 30 {
		if v := Defer(retries, n, false, time.Hour); v.State != Retrying || !v.Deferred || v.Wait != busyWait {
			t.Errorf("busy: %+v", v)
		}
		if v := Defer(retries, n, true, time.Hour); !v.Deferred || v.Wait < busyWait || v.Wait > downWaits {
			t.Errorf("down: %+v", v)
		}
	}
	if v := Defer(retries, 3, true, deferredFor+61*time.Minute); v.State != Failed || v.Deferred {
		t.Errorf("too old: %+v", v)
	}
}

func TestAnyWaitIsMadeOfTiers(t *testing.T) {
	tiers := []time.Duration{time.Second, 5 * time.Second, time.Minute}
	for left, want := range map[time.Duration]time.Duration{0: tiers[0], 200 * time.Millisecond: tiers[0], 4 * time.Second: tiers[0], 5 * time.Second: tiers[1], 59 * time.Second: tiers[1], 10 * time.Hour: tiers[2]} {
		if got := NextTier(tiers, left); got != want {
			t.Errorf("%s left: %s, want %s", left, got, want)
		}
	}
	for _, wait := range []time.Duration{time.Second, 17 * time.Second, 3*time.Minute + 400*time.Millisecond, 90 * time.Minute} {
		now := time.UnixMilli(1_700_000_000_000)
		start, topic := now, topics.Names{}.WebhookRetry(NextTier(tiers, wait))
		r := &kgo.Record{Headers: []kgo.RecordHeader{{Key: task.HeaderNotBefore, Value: fmt.Append(nil, now.Add(wait).UnixMilli())}}}
		for hops := 0; topic != (topics.Names{}).Webhooks(); hops++ {
			i := slices.IndexFunc(tiers, func(d time.Duration) bool { return topic == topics.Names{}.WebhookRetry(d) })
			if i < 0 || hops > 200 {
				t.Fatalf("%s: lost on %s after %d hops", wait, topic, hops)
			}
			now = now.Add(tiers[i])
			topic = Onward(topics.Names{}, tiers, r, now).Topic
		}
		if off := now.Sub(start) - wait; off < -tiers[0]/2 || off > tiers[0] {
			t.Errorf("a wait of %s took %s", wait, now.Sub(start))
		}
	}
}

func record(url string, headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: "reeve.webhooks", Value: []byte(`{"type":"task.completed"}`), Timestamp: time.Now()}
	for i, kv := 0, append([]string{task.HeaderWebhook, url, task.HeaderAgent, "orders/bill", task.HeaderOrigin, "orders/0/7/uuid"}, headers...); i < len(kv); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: kv[i], Value: []byte(kv[i+1])})
	}
	return r
}

func TestTheIDIsOneForATaskAndItsRound(t *testing.T) {
	first := Read(record("https://h/x"))
	if again := Read(record("https://h/x", task.HeaderAttempt, "4", task.HeaderDeferred, "2")); again.ID != first.ID || again.Attempt != 4 || again.Deferred != 2 {
		t.Errorf("%+v", again)
	}
	seen := map[string]bool{first.ID: true}
	for _, other := range []*kgo.Record{record("https://h/x", task.HeaderRedrives, "1"), record("https://h/x", task.HeaderOrigin, "orders/0/8/uuid"), record("https://h/x", task.HeaderAgent, "orders/other")} {
		other.Headers = lastOf(other.Headers)
		w := Read(other)
		if seen[w.ID] {
			t.Errorf("%v has the id of another", other.Headers)
		}
		seen[w.ID] = true
	}
}

// lastOf keeps the last header of each key.
func lastOf(hs []kgo.RecordHeader) []kgo.RecordHeader {
	return slices.DeleteFunc(slices.Clone(hs), func(h kgo.RecordHeader) bool {
		last := hs[len(hs)-1]
		for _, o := range hs {
			if o.Key == h.Key {
				last = o
			}
		}
		return last.Key == h.Key && string(last.Value) != string(h.Value)
	})
}

func TestAnEndpointIsShownWithoutWhatMayBeSecret(t *testing.T) {
	for text, want := range map[string]string{
		"https://Hooks.Example/services/T0/B0/secret?token=abc": "https://hooks.example:443", "http://h": "http://h:80", "http://h:8080/x": "http://h:8080",
		"https://[::1]/x": "https://[::1]:443", "https://[2001:db8::1]:8443": "https://[2001:db8::1]:8443", "https://user:pw@h/": "an illegal URL", "ftp://h": "an illegal URL",
	} {
		if w := Read(record(text)); w.Endpoint != want || (w.Problem != nil) != (want == "an illegal URL") {
			t.Errorf("%s: %q, %v", text, w.Endpoint, w.Problem)
		}
	}
}

func TestAFailedWebhookSaysWhatWentWrong(t *testing.T) {
	i := &item{Webhook: Read(record("https://h/x?token=secret", "mine", "kept", task.HeaderAttempt, "2", task.HeaderFirstFailedAt, "2026-01-01T00:00:00.000Z")),
		verdict: Verdict{State: Retrying, Class: task.ClassTimeout, Message: "late", Wait: time.Minute}, cancel: func() {}, ended: time.Now()}
	tiers := []time.Duration{time.Second, time.Minute}
	rs := i.records(topics.Names{}, tiers, time.Now())
	if len(rs) != 2 || rs[0].Topic != "reeve.webhooks.1m" || rs[1].Topic != "reeve.status" {
		t.Fatalf("%v", rs)
	}
	for key, want := range map[string]string{task.HeaderAttempt: "3", task.HeaderErrorClass: "timeout", task.HeaderFirstFailedAt: "2026-01-01T00:00:00.000Z", "mine": "kept", task.HeaderDeferred: ""} {
		if got := route.Header(rs[0], key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	i.verdict = Verdict{State: Retrying, Deferred: true, Wait: time.Second}
	i.cancel = nil
	if rs = i.records(topics.Names{}, tiers, time.Now()); len(rs) != 1 || route.Header(rs[0], task.HeaderAttempt) != "2" || route.Header(rs[0], task.HeaderDeferred) != "1" ||
		route.Header(rs[0], task.HeaderFirstFailedAt) == "" {
		t.Errorf("%v", rs)
	}
	i.verdict = Verdict{State: Failed, Class: task.ClassPermanent, Message: "gone"}
	i.cancel = func() {}
	if again := Read(&kgo.Record{Headers: i.deadLetter("dlq").Headers}); again.Attempt != 1 || again.Before != 2 || again.ID != i.ID {
		t.Errorf("redriven it is %+v", again)
	}
	if rs = i.records(topics.Names{}, tiers, time.Now()); len(rs) != 2 || rs[0].Topic != "reeve.dlq.webhooks" || route.Header(rs[0], task.HeaderAttempts) != "2" ||
		route.Header(rs[0], task.HeaderErrorFingerprint) == "" || route.Header(rs[0], task.HeaderAttempt) != "" {
		t.Errorf("%v", rs)
	}
}

// A webhook may be redriven weeks after its task has ended: where its endpoint has no place for it, it waits as a new one
// does. The flawed way gives it up at once, since it is so old.
func TestARedrivenWebhookIsAsYoungAsItsRedrive(t *testing.T) {
	now := time.Now()
	old := now.Add(-30 * 24 * time.Hour)
	dead := &kgo.Record{Headers: []kgo.RecordHeader{{Key: task.HeaderTimes, Value: fmt.Appendf(nil, "0 0 0 %d", old.UnixMilli())}}}
	retries := []time.Duration{time.Second}
	if v := Defer(retries, 0, true, now.Sub(since(dead))); v.State != Failed {
		t.Errorf("%+v", v)
	}
	again := route.RedriveWebhook(topics.Names{}, dead, "1", now)
	if v := Defer(retries, 0, true, now.Sub(since(again))); v.State != Retrying || !v.Deferred {
		t.Errorf("%+v", v)
	}
}
