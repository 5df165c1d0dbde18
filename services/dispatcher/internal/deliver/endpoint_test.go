package deliver

import (
	"fmt"
	"strings"
	"testing"
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
