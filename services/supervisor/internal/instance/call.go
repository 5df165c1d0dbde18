package instance

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/stdio"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// call is an attempt in a process. Its session's lock guards what changes.
type call struct {
	session  *session
	attempt  *worker.Attempt
	id       uint64
	began    time.Time
	deadline time.Time // zero: none

	sent        bool // begun, as far as anybody can know
	withdrawn   bool // not to be sent
	timedOut    bool // its time is over; whatever it answers, that is its outcome
	forced      bool // it timed out and won't end by itself
	published   []*kgo.Record
	size        int          // of published, in bytes
	refused     error        // why something can't be published
	event       *event.Event // read where something is published
	cancelled   bool         // it is to be ended by force
	interrupted bool         // it was asked to end by itself
}

var _ stdio.Message = (*call)(nil)

// Append writes the task's message, in the writer's goroutine. From here on the task may have begun.
func (c *call) Append(dst []byte) []byte {
	s := c.session
	s.mu.Lock()
	withdrawn := c.withdrawn
	c.sent = !withdrawn
	s.mu.Unlock()
	if withdrawn {
		return dst
	}
	params := s.params
	params.Attempt = c.attempt.Number
	dst, err := stdio.AppendTask(dst, c.id, c.attempt.Record, params)
	if err != nil && s.take(c.id) != nil {
		s.end(c, worker.Result{Outcome: task.Failed, Class: task.ClassInvalidInput, Message: err.Error(), Instance: s.instance.id})
	}
	return dst
}

// params are what every payload of an instance says.
func (i *Instance) params() event.Params {
	a := i.cfg.Agent
	return event.Params{Topic: a.Topic, Agent: a.Name, Consumer: i.id}
}

// over reports whether a call's deadline has passed.
func (c *call) over(now time.Time) bool { return !c.deadline.IsZero() && !now.Before(c.deadline) }

// expire decides what follows when a call that was sent is over: where its program can be asked to end it, ask says to do
// so, and the call has the grace for it. stuck says why its process is stuck, once; "" that it isn't, or was before. The
// session's lock is held.
func (c *call) expire(now time.Time, able bool, grace time.Duration) (ask bool, stuck string) {
	switch {
	case c.interrupted:
		if !c.cancelled {
			stuck = wontBeEnded
		}
		c.cancelled = true
	case !c.timedOut && able:
		c.timedOut, ask = true, true
		c.deadline = now.Add(min(grace, forever))
	default:
		if !c.forced {
			stuck = tookTooLong
		}
		c.timedOut, c.forced = true, true
	}
	return ask, stuck
}

// answered is the result of an attempt whose answer has come.
func (c *call) answered(a stdio.Answer, tooLong bool, limit int) worker.Result {
	r := worker.Result{Instance: c.session.instance.id}
	switch {
	case c.timedOut:
		return c.late()
	case tooLong:
		r.Outcome, r.Class = task.Failed, task.ClassResultTooLarge
		r.Message = fmt.Sprintf("the agent's answer is longer than %d bytes: store large results elsewhere and return where", limit)
	case a.OK && c.refused != nil:
		r.Outcome, r.Class, r.Message = task.Failed, task.ClassPermanent, c.refused.Error()
	case a.OK:
		r.Outcome, r.Value, r.Publish = task.Completed, append([]byte(nil), a.Result...), c.published
	default:
		r.Outcome, r.Class, r.Message, r.Type, r.Traceback, r.RetryAfter = task.Failed, a.Class, a.Message, a.Type, a.Traceback, a.RetryAfter
	}
	return r
}

// late is the result of an attempt that timed out and has ended since.
func (c *call) late() worker.Result {
	what := "the attempt took longer than its timeout of %s"
	if c.attempt.Idle {
		what = "the attempt gave neither an answer nor a sign of progress for %s"
	}
	return worker.Result{Outcome: task.TimedOut, Class: task.ClassTimeout, Instance: c.session.instance.id, Message: fmt.Sprintf(what, c.attempt.Timeout)}
}

// ending is how a process that had attempts in flight came to its end.
type ending struct {
	ours   bool // the supervisor ended it
	what   string
	output string // the last lines of its log
	shared bool   // several attempts were in flight
}

// buried is the result of an attempt whose process has ended without an answer.
func (c *call) buried(e ending) worker.Result {
	switch {
	case c.timedOut:
		return c.late()
	case c.cancelled, e.ours:
		return worker.Result{CutShort: true, Instance: c.session.instance.id}
	}
	return worker.Result{Outcome: task.Crashed, Class: task.ClassCrash, Type: "AgentCrashError", Message: "the agent's process " + e.what,
		Traceback: e.output, Shared: e.shared, Instance: c.session.instance.id}
}
