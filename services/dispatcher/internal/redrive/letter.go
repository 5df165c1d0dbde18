package redrive

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// letter is an open dead letter.
type letter struct {
	record *kgo.Record
	// from is where what it settles begins: no open dead letter stands in [from, its offset).
	from  int64
	cause string // tells like failures from unlike ones, also over the agent's versions
	id    string // the task's or the webhook's
	round int    // that it gets when it is redriven

	place    int32 // its partition, once it has one
	refusals int   // how often that refused it
	gate     *route.Gate
	judged   bool // by that gate
	taken    bool // it lets the letter pass
	unrun    bool // its task ends without being run, as its agent doesn't take it
}

// causeOf is the fingerprint of a record's failure without the agent's version: a mended version that fails as before has
// mended nothing.
func causeOf(r *kgo.Record) string {
	return worker.Fingerprint(task.Class(route.Header(r, task.HeaderErrorClass)), route.Header(r, task.HeaderErrorMessage), "")
}

func (l *letter) size() int { return len(l.record.Key) + len(l.record.Value) + 500 }

// endOf reads how a redriven task ended from its outcome: cause is that of its dead letter. ok is false for what doesn't
// finish it.
func endOf(r *kgo.Record, cause string) (how end, ok bool) {
	if route.Header(r, task.HeaderFinal) != "true" {
		return 0, false
	}
	switch task.Settled(route.Header(r, task.HeaderSettled)) {
	case task.SettledDone:
		return completed, true
	case task.SettledDropped:
		return gone, true
	}
	if causeOf(r) == cause {
		return same, true
	}
	return other, true
}

// endOfTry reads how a redriven webhook ended from what is told of it, given how often it was tried before. Its first try
// decides: the others may take most of a day.
func endOfTry(told status.Webhook, before int) (how end, ok bool) {
	switch {
	case told.Attempts < before:
		return 0, false
	case told.State == status.WebhookDelivered:
		return completed, true
	}
	return same, true
}

var errFull = errors.New("what is redriven or purged of the dead letters is scattered over so many places that Kafka's commit can't hold more: redrive or purge the older ones first")
