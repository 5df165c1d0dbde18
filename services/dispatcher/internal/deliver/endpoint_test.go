package deliver

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

func TestAnEndpointThatFailsIsTriedByOneWebhookAtATime(t *testing.T) {
	now := time.Now()
	failed := Verdict{State: Retrying, Class: task.ClassNetwork, Message: "refused"}
	e := &endpoint{}
	for n := range downAfter {
		if e.places() != perEndpoint || e.full() {
			t.Fatalf("after %d failures: %d places", n, e.places())
		}
		e.judged(failed, 0, now.Add(time.Duration(n)*time.Minute))
	}
	if !e.down() || e.places() != 1 || e.full() || !e.since.Equal(now) {
		t.Errorf("%+v", e)
	}
	e.running = 1
	if e.places() != 0 || !e.full() {
		t.Errorf("a second one is let through: %+v", e)
	}
	e.judged(Verdict{State: Retrying}, 404, now) // it answers, if not as one would like
	if e.down() || e.places() != perEndpoint-1 {
		t.Errorf("%+v", e)
	}
	for range downAfter {
		e.judged(Verdict{State: Retrying}, 503, now)
	}
	e.running = 0
	if !e.down() || e.idle(now) || !e.idle(now.Add(remember+time.Second)) {
		t.Errorf("%+v", e)
	}
	e.judged(Verdict{State: Delivered}, 200, now)
	if e.down() || !e.idle(now) {
		t.Errorf("%+v", e)
	}
}

// Events may name any number of endpoints that fail. Beyond the bound those are forgotten of which least is known; nothing
// that is under way is.
func TestOnlySoManyFailingEndpointsAreRemembered(t *testing.T) {
	now := time.Now()
	all := map[string]*endpoint{}
	add := func(name string, failures int, age time.Duration) *endpoint {
		e := &endpoint{name: name, failures: failures, heard: now.Add(-age)}
		all[name] = e
		return e
	}
	add("busy", 1, time.Hour).running = 1
	add("waited for", 1, time.Hour).queue = []*item{{}}
	add("down, long ago", downAfter, 2*time.Hour)
	add("down, lately", downAfter, time.Minute)
	for n := range 10 {
		add(fmt.Sprintf("failed once, %d", n), 1, time.Duration(n)*time.Second)
	}
	names := func(es []*endpoint) string {
		var out []string
		for _, e := range es {
			out = append(out, e.name)
		}
		return strings.Join(out, "; ")
	}
	for most, want := range map[int]string{
		12: "",
		10: "failed once, 9; failed once, 8",
		1:  "failed once, 9; failed once, 8; failed once, 7; failed once, 6; failed once, 5; failed once, 4; failed once, 3; failed once, 2; failed once, 1; failed once, 0; down, long ago",
	} {
		if got := names(surplus(all, most)); got != want {
			t.Errorf("of %d: %s", most, got)
		}
	}
}

// Whoever names new endpoints all the time, which all fail, fills no memory; and who is forgotten is sent to as if it were
// well.
func TestAFloodOfFailingEndpointsIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := &Deliverer{endpoints: map[string]*endpoint{}, cfg: Config{Metrics: NewMetrics(nil), Alert: func(string, string, bool) {}}}
		var looking sync.WaitGroup
		looking.Go(func() { d.looks(ctx) })
		for n := range 5 * remembered {
			d.mu.Lock()
			e := &endpoint{name: fmt.Sprint(n)}
			e.judged(Verdict{State: Retrying, Message: "refused"}, 0, time.Now())
			d.endpoints[e.name] = e
			d.mu.Unlock()
			<-time.After(time.Millisecond)
		}
		<-time.After(lookEvery)
		d.mu.Lock()
		kept, first, last := len(d.endpoints), d.endpoints["0"], d.endpoints[fmt.Sprint(5*remembered-1)]
		d.mu.Unlock()
		if kept != remembered || first != nil || last == nil {
			t.Errorf("%d endpoints are remembered, the first %v, the last %v", kept, first, last)
		}
		cancel()
		looking.Wait()
	})
}

func TestAPersonIsToldOfEndpointsThatAreDownForLong(t *testing.T) {
	type told struct {
		message  string
		resolved bool
	}
	var alerts []told
	now := time.Now()
	d := &Deliverer{endpoints: map[string]*endpoint{}, cfg: Config{Metrics: NewMetrics(nil),
		Alert: func(kind, message string, resolved bool) {
			if kind != alertFailing {
				t.Errorf("an alert of kind %s", kind)
			}
			alerts = append(alerts, told{message, resolved})
		}}}
	for n := range 7 {
		name := fmt.Sprintf("https://h%d:443", n)
		d.endpoints[name] = &endpoint{name: name, failures: downAfter, since: now, message: "connection refused"}
	}
	d.tellDown(now.Add(longDown - time.Second))
	if len(alerts) != 0 {
		t.Errorf("it is told too soon: %v", alerts)
	}
	d.tellDown(now.Add(longDown))
	if len(alerts) != 1 || alerts[0].resolved || !strings.Contains(alerts[0].message, "https://h0:443") || !strings.Contains(alerts[0].message, "and 2 more") {
		t.Errorf("%v", alerts)
	}
	clear(d.endpoints)
	d.tellDown(now.Add(longDown))
	d.tellDown(now.Add(longDown))
	if len(alerts) != 2 || !alerts[1].resolved {
		t.Errorf("%v", alerts)
	}
}
