package route

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// A Filter says whether a record of a user's topic is for an agent. Its error says that it can't be told of this record.
// Package filter compiles one.
type Filter interface {
	Match(topic string, r *kgo.Record) (bool, error)
}

// Gate decides which records become tasks, by an agent's filter and the types that it takes. nil lets everything pass. It
// may be used by several goroutines if its Filter may.
type Gate struct {
	routing spec.Routing
	topic   string
	filter  Filter
}

// NewGate is an agent's gate, nil where it takes everything. compile makes the filter.
func NewGate(a *spec.Agent, compile func(expression string) (Filter, error)) (*Gate, error) {
	g := &Gate{routing: a.Routing, topic: a.Topic}
	if a.Filter != "" {
		f, err := compile(a.Filter)
		if err != nil {
			return nil, fmt.Errorf("filter of %s: %w", a.Ref(), err)
		}
		g.filter = f
	}
	if g.filter == nil && !g.typed() {
		return nil, nil
	}
	return g, nil
}

func (g *Gate) typed() bool { return len(g.routing.Accepts) > 0 || len(g.routing.Capabilities) > 0 }

// Passage is what a Gate decides of a record. The zero value is a task that runs.
type Passage struct {
	Over   bool       // nothing becomes of it
	Reject bool       // a task that ends at once, without a dead letter
	Class  task.Class // if any, it is a task that never runs: its error class
	Reason string     // why it doesn't run, or nothing becomes of it
}

// notTrue is the reason of what a filter passes over.
const notTrue = "the agent's filter isn't true of the event"

// Decide decides of one record. One that claims a format and isn't in it passes: Router finds the same.
func (g *Gate) Decide(r *kgo.Record) Passage {
	var format *event.FormatError
	if g.filter != nil {
		is, err := g.filter.Match(g.topic, r)
		switch {
		case errors.As(err, &format):
			return Passage{}
		case err != nil:
			return Passage{Class: task.ClassInvalidInput, Reason: err.Error()}
		case !is:
			return Passage{Over: true, Reason: notTrue}
		}
	}
	if !g.typed() {
		return Passage{}
	}
	taskType, err := event.Type(g.topic, r)
	if err != nil {
		return Passage{}
	}
	takes, reason := g.routing.Takes(taskType)
	switch {
	case takes:
		return Passage{}
	case g.routing.OnIncompatible == spec.OnIncompatibleSkip:
		return Passage{Over: true, Reason: reason}
	}
	return Passage{Class: task.ClassIncompatibleTask, Reason: reason, Reject: g.routing.OnIncompatible == spec.OnIncompatibleReject}
}

// Again is the decision about an event that has become a task before, of which something has to become therefore: where
// it would be passed over it is rejected.
func (p Passage) Again() Passage {
	if p.Over {
		return Passage{Reject: true, Class: task.ClassIncompatibleTask, Reason: p.Reason}
	}
	return p
}

// Settle gives what a task record becomes whose event was decided upon so: itself, itself with its error class, which a
// worker dead-letters unrun, or the outcome of a task that is rejected. node is who settles that.
func (p Passage) Settle(names topics.Names, rec *kgo.Record, node string, now time.Time) *kgo.Record {
	if p.Class == "" {
		return rec
	}
	reason := clip(p.Reason)
	if p.Reject {
		end := Ending{Outcome: task.Rejected, Settled: task.SettledDropped, Class: p.Class, Message: reason, Node: node}
		if out, err := Outcome(names, rec, end, now); err == nil { // every task record has an origin
			return out
		}
	}
	rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: task.HeaderErrorClass, Value: []byte(p.Class)}, kgo.RecordHeader{Key: task.HeaderErrorMessage, Value: []byte(reason)})
	return rec
}
