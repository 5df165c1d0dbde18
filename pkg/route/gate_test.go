package route

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// byValue answers by a record's value.
type byValue struct{}

func (byValue) Match(_ string, r *kgo.Record) (bool, error) {
	switch string(r.Value) {
	case "broken":
		return false, &event.FormatError{Format: "an envelope", Problem: "it isn't"}
	case "odd":
		return false, errors.New("the filter can't be evaluated: no such key")
	}
	return string(r.Value) != "other", nil
}

func TestAGateDecides(t *testing.T) {
	filtered := spec.Routing{Filter: "x"}
	typed := func(on string) spec.Routing { return spec.Routing{Accepts: []string{"order.*"}, OnIncompatible: on} }
	const reason = "the task's type is x, and the agent accepts only order.*"
	for _, c := range []struct {
		name    string
		routing spec.Routing
		r       *kgo.Record
		want    Passage
	}{
		{"the filter is true", filtered, record("k", "mine"), Passage{}},
		{"the filter is false", filtered, record("k", "other"), Passage{Over: true, Reason: notTrue}},
		{"the filter can't be evaluated", filtered, record("k", "odd"), Passage{Class: task.ClassInvalidInput, Reason: "the filter can't be evaluated: no such key"}},
		{"the filter meets a broken format", filtered, record("k", "broken"), Passage{}},
		{"a type that is accepted", typed(""), record("k", "1", "reeve-type", "order.made"), Passage{}},
		{"one that isn't", typed(""), record("k", "1", "reeve-type", "x"), Passage{Class: task.ClassIncompatibleTask, Reason: reason}},
		{"one that isn't, of the content", typed("dlq"), record("k", `{"type":"x"}`), Passage{Class: task.ClassIncompatibleTask, Reason: reason}},
		{"one that isn't, rejected", typed("reject"), record("k", "1", "reeve-type", "x"), Passage{Class: task.ClassIncompatibleTask, Reason: reason, Reject: true}},
		{"one that isn't, skipped", typed("skip"), record("k", "1", "reeve-type", "x"), Passage{Over: true, Reason: reason}},
		{"no type", typed(""), record("k", "1"), Passage{Class: task.ClassIncompatibleTask, Reason: "the task has no type, and the agent accepts only order.*"}},
		{"a broken format is found by the router", typed(""), record("k", "{", "content-type", event.ContentType), Passage{}},
		{"the filter comes first", spec.Routing{Filter: "x", Accepts: []string{"y"}}, record("k", "other", "reeve-type", "x"), Passage{Over: true, Reason: notTrue}},
		{"capabilities", spec.Routing{Capabilities: []string{"triage"}}, record("k", "1", "reeve-type", "x"),
			Passage{Class: task.ClassIncompatibleTask, Reason: "the task's type is x, and the agent's capabilities are only triage"}},
	} {
		a := agent()
		a.Routing = c.routing
		g, err := NewGate(a, func(string) (Filter, error) { return byValue{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Decide(c.r); got != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if g, err := NewGate(agent(), nil); g != nil || err != nil {
		t.Errorf("an agent that takes everything has a gate: %v, %v", g, err)
	}
	a := agent()
	a.Filter = "x"
	if _, err := NewGate(a, func(string) (Filter, error) { return nil, errors.New("bad") }); err == nil || !strings.Contains(err.Error(), "orders/bill_1") {
		t.Errorf("%v", err)
	}
}

func TestAnEventThatWasATaskIsNeverPassedOver(t *testing.T) {
	for in, want := range map[Passage]Passage{
		{}:                          {},
		{Over: true, Reason: "why"}: {Reject: true, Class: task.ClassIncompatibleTask, Reason: "why"},
		{Class: task.ClassInvalidInput, Reason: "why"}:                   {Class: task.ClassInvalidInput, Reason: "why"},
		{Class: task.ClassIncompatibleTask, Reject: true, Reason: "why"}: {Class: task.ClassIncompatibleTask, Reject: true, Reason: "why"},
	} {
		if got := in.Again(); got != want {
			t.Errorf("%+v: %+v", in, got)
		}
	}
}

func TestATaskThatIsUnfitSaysWhy(t *testing.T) {
	made := func() *kgo.Record {
		return New(topics.Names{}, agent(), "u").Tasks([]*kgo.Record{record("k", "v", "mine", "1")}, []int32{3}, now)[0]
	}
	names := topics.Names{}
	if got := (Passage{}).Settle(names, made(), "n1", now); got.Topic != names.Tasks("orders", "bill_1") || Header(got, task.HeaderErrorClass) != "" {
		t.Errorf("a fit one: %+v", got)
	}
	long := strings.Repeat("ä", maxMessage)
	got := Passage{Class: task.ClassIncompatibleTask, Reason: long}.Settle(names, made(), "n1", now)
	if got.Topic != names.Tasks("orders", "bill_1") || string(got.Value) != "v" || Header(got, "mine") != "1" || Header(got, task.HeaderErrorClass) != "incompatible_task" ||
		len(Header(got, task.HeaderErrorMessage)) > maxMessage || got.Partition != 3 {
		t.Errorf("%+v", got)
	}
	got = Passage{Class: task.ClassIncompatibleTask, Reason: "why", Reject: true}.Settle(names, made(), "n1", now)
	for key, want := range map[string]string{task.HeaderOutcome: "rejected", task.HeaderSettled: "dropped", task.HeaderFinal: "true", task.HeaderAttempt: "0",
		task.HeaderErrorClass: "incompatible_task", task.HeaderErrorMessage: "why", task.HeaderOrigin: "orders/2/9/u"} {
		if h := Header(got, key); h != want || got.Topic != names.Outcomes() {
			t.Errorf("%s on %s is %q, want %q", key, got.Topic, h, want)
		}
	}
}
