package route

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestARedrivenTaskIsItselfInANewRound(t *testing.T) {
	dead := record("k", "\x00v1", "traceparent", "00", task.HeaderAgent, "orders/bill_1", task.HeaderOrigin, "orders/2/9/u", task.HeaderEvent, "17 id 1",
		task.HeaderCorrelationID, "c", task.HeaderErrorClass, "network", task.HeaderErrorMessage, "m", task.HeaderErrorFingerprint, "f",
		task.HeaderFirstFailedAt, "x", task.HeaderLastFailedAt, "y", task.HeaderAttempts, "4", task.HeaderBurnt, "3", task.HeaderTimeouts, "1", task.HeaderRedrives, "2", task.HeaderOrder, "order 1")
	_, got := Redrive(topics.Names{}, agent(), nil, dead, 5, "order 2", "n1", now)
	var hs []string
	for _, h := range got.Headers {
		hs = append(hs, h.Key+"="+string(h.Value))
	}
	want := "traceparent=00 reeve-agent=orders/bill_1 reeve-origin=orders/2/9/u reeve-event=17 id 1 reeve-correlation-id=c reeve-attempt=1 reeve-redrives=3 reeve-order=order 2"
	if s := strings.Join(hs, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if got.Topic != "reeve.tasks.orders.bill--1" || got.Partition != 5 || string(got.Key) != "k" || string(got.Value) != "\x00v1" || !got.Timestamp.Equal(now) {
		t.Errorf("%+v", got)
	}
	if len(dead.Headers) != 15 || Redrives(dead) != 2 {
		t.Error("the dead letter was changed")
	}
}

// It was never fit to run, and would stop being so by losing the header that says it.
func TestARedrivenEventThatIsNotWhatItClaimsIsRejectedAgain(t *testing.T) {
	dead := record("k", "{", "content-type", "application/cloudevents+json", task.HeaderErrorClass, "invalid_input", task.HeaderErrorMessage, "old", task.HeaderFirstFailedAt, "x")
	_, got := Redrive(topics.Names{}, agent(), nil, dead, 0, "o", "n1", now)
	if Header(got, task.HeaderErrorClass) != "invalid_input" || Header(got, task.HeaderErrorMessage) == "old" || Header(got, task.HeaderFirstFailedAt) != "" {
		t.Error(fmt.Sprint(got.Headers))
	}
}

// It goes by the spec as it is now: what the agent takes by now runs, and what it doesn't take must never be given to it.
func TestARedrivenTaskGoesByTheAgentAsItIsNow(t *testing.T) {
	dead := record("k", "v", task.HeaderType, "small", "mine", "1", task.HeaderOrigin, "orders/2/9/u", task.HeaderErrorClass, "incompatible_task", task.HeaderErrorMessage, "old", task.HeaderRedrives, "1")
	for name, c := range map[string]struct {
		routing        spec.Routing
		class, outcome string
	}{
		"everything":                    {spec.Routing{}, "", ""},
		"its type":                      {spec.Routing{Accepts: []string{"s*"}}, "", ""},
		"another type":                  {spec.Routing{Accepts: []string{"big"}}, "incompatible_task", ""},
		"another type, others rejected": {spec.Routing{Accepts: []string{"big"}, OnIncompatible: spec.OnIncompatibleReject}, "incompatible_task", "rejected"},
		"another type, others skipped":  {spec.Routing{Accepts: []string{"big"}, OnIncompatible: spec.OnIncompatibleSkip}, "incompatible_task", "rejected"},
		"its value":                     {spec.Routing{Filter: "v"}, "", ""},
		"another value":                 {spec.Routing{Filter: "w"}, "incompatible_task", "rejected"},
		"what can't be told":            {spec.Routing{Filter: "odd"}, "invalid_input", ""},
	} {
		a := agent()
		a.Routing = c.routing
		gate, err := NewGate(a, func(expression string) (Filter, error) { return value(expression), nil })
		if err != nil {
			t.Fatal(err)
		}
		again, got := Redrive(topics.Names{}, a, gate, dead, 0, "o", "n1", now)
		if Header(got, task.HeaderErrorClass) != c.class || Header(got, task.HeaderErrorMessage) == "old" || Header(got, task.HeaderOutcome) != c.outcome || (got != again) != (c.outcome != "") {
			t.Errorf("an agent that takes %s: %v", name, got.Headers)
		}
		if Header(got, task.HeaderRedrives) != "2" || Header(got, task.HeaderOrder) != "o" || Header(got, task.HeaderOrigin) != "orders/2/9/u" || c.outcome != "" && Header(got, task.HeaderAttempt) != "0" {
			t.Errorf("an agent that takes %s: %v", name, got.Headers)
		}
	}
}

// value is a filter that is true of a value.
type value string

func (v value) Match(_ string, r *kgo.Record) (bool, error) {
	if v == "odd" {
		return false, errors.New("the filter can't be evaluated")
	}
	return string(r.Value) == string(v), nil
}

// A filter looks at the event, not at its dead letter.
func TestAGateSeesADeadLetterAsItsEvent(t *testing.T) {
	event := record("k", "v", "traceparent", "00", task.HeaderTenantID, "acme", "mine", "1")
	dead := New(topics.Names{}, agent(), "u").Tasks([]*kgo.Record{event}, []int32{0}, now)[0]
	dead.Partition, dead.Offset, dead.Timestamp = 0, 3, now.Add(time.Hour)
	dead.Headers = append(dead.Headers, kgo.RecordHeader{Key: task.HeaderErrorClass, Value: []byte("network")})
	got := eventOf(dead)
	hs := map[string]string{}
	for _, h := range got.Headers {
		hs[h.Key] = string(h.Value)
	}
	want := map[string]string{"traceparent": "00", task.HeaderTenantID: "acme", "mine": "1"}
	if got.Topic != "orders" || got.Partition != event.Partition || got.Offset != event.Offset || !got.Timestamp.Equal(event.Timestamp) || !maps.Equal(hs, want) {
		t.Errorf("%+v", got)
	}
}
