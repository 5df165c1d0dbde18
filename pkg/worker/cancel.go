package worker

import (
	"slices"
	"time"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// A task that is to end is looked for where it may be by now: among what is read, and from then on among what comes. Its
// final outcome is cancelled, unless it completes first. Nothing of this costs anything while no cancellation is live: the
// set is empty then.

// Cancellation is a task that is to end.
type Cancellation struct {
	// Origin names the task, as task.Origin.Means has it.
	Origin task.Origin
	// Round is the last of the task's rounds that is meant: what was redriven more often is another wish.
	Round int
	// Message is what the outcome says, such as who cancelled the task and why.
	Message string
	// Expires is when it counts no longer.
	Expires time.Time
	// Tell is told what becomes of it, in the states of status.CommandResult: accepted where the task runs, done once its
	// outcome is committed, refused where it completed before. It must not block. Nobody is told of a task that isn't here.
	Tell func(state, message string)
}

// CancellationOf makes a cancellation of a command.
func CancellationOf(c command.Command, tell func(state, message string)) (Cancellation, error) {
	o, err := task.ParseOrigin(c.Task)
	if err != nil {
		return Cancellation{}, err
	}
	return Cancellation{Origin: o, Round: c.Round, Message: c.Cancelled(), Expires: c.Expires, Tell: tell}, nil
}

func (c *Cancellation) task() string     { return c.Origin.ID() }
func (c *Cancellation) until() time.Time { return c.Expires }

// An Interrupter is a Runner that can ask an attempt to end by itself because its task was cancelled, and ends it by force
// where it doesn't. Finish has to be called as ever, with whatever the attempt makes of it. Where a Runner is none, Cancel
// is called instead.
type Interrupter interface {
	Interrupt(a *Attempt)
}

// CancelTask ends a task: at once where it is here and hasn't started, by asking for its end where it runs, and whenever it
// comes here until the cancellation expires.
func (e *Engine) CancelTask(c Cancellation) {
	now := time.Now()
	if now.After(c.Expires) {
		return
	}
	e.mu.Lock()
	e.cancels.put(&c, now)
	var victims []*Attempt
	for _, ps := range []map[int32]*partition{e.parts, e.lost} { // what was lost may come back untouched
		for _, p := range ps {
			victims = append(victims, e.cancelIn(p)...)
		}
	}
	e.recall()
	e.mu.Unlock()
	signal(e.wakeCommit)
	signal(e.wakeSchedule)
	if len(victims) > 0 {
		c.Tell(status.CommandAccepted, "it runs on "+e.cfg.Node+", and is asked to end")
	}
	e.interrupt(victims)
}

func (e *Engine) interrupt(as []*Attempt) {
	if len(as) == 0 {
		return
	}
	asker, ok := e.cfg.Runner.(Interrupter)
	if !ok {
		e.cancelAttempts(as)
		return
	}
	e.scheduling.Lock()
	defer e.scheduling.Unlock()
	for _, a := range as {
		asker.Interrupt(a)
	}
}

// meant reports whether a wish for a task, and its rounds up to one, is for this task.
func (s *slot) meant(by task.Origin, round int) bool {
	if s.header.round() > round {
		return false
	}
	origin, err := task.ParseOrigin(string(s.origin()))
	return err == nil && by.Means(origin)
}

// cancelOf is the live cancellation of a task, or nil.
func (e *Engine) cancelOf(s *slot) *Cancellation {
	c, ok := e.cancels.of(s)
	if !ok || !s.meant(c.Origin, c.Round) || time.Now().After(c.Expires) {
		return nil
	}
	return c
}

// cancelIn looks through a partition's tasks. It returns the attempts that run.
func (e *Engine) cancelIn(p *partition) (victims []*Attempt) {
	for s := range p.inFlight {
		if s.cancel == nil {
			if s.cancel = e.cancelOf(s); s.cancel != nil {
				victims = append(victims, &s.attempt)
			}
		}
		e.cancelBehind(s)
	}
	var drop []*slot
	take := func(s *slot) bool {
		e.cancelBehind(s)
		if c := e.cancelOf(s); c != nil {
			s.cancel = c
			drop = append(drop, s)
			return true
		}
		return false
	}
	p.ready.remove(take)
	p.holds.called.remove(take)
	p.holds.waiting = slices.DeleteFunc(p.holds.waiting, take)
	e.suspects = slices.DeleteFunc(e.suspects, func(s *slot) bool { return s.part == p && take(s) })
	for s, named := range e.trial.members {
		if named && s.part == p && s.state != running {
			take(s)
		}
	}
	for _, s := range drop {
		e.withdraw(s)
	}
	for _, s := range slices.Concat(p.wants, p.tried, p.holds.due) { // a transaction may be about to name them; then they are withdrawn
		if s.cancel == nil {
			s.cancel = e.cancelOf(s)
		}
		e.cancelBehind(s)
	}
	return victims
}

// cancelBehind drops the tasks that wait behind one of the same key.
func (e *Engine) cancelBehind(head *slot) {
	at := head
	for at.next != nil {
		s := at.next
		c := e.cancelOf(s)
		if c == nil {
			at = s
			continue
		}
		at.next, s.next = s.next, nil
		if s.part.tails[s.key] == s {
			s.part.tails[s.key] = at
		}
		s.keyed, s.cancel = false, c
		e.withdraw(s)
	}
}

// withdraw settles a cancelled task that doesn't run. Its outcome has the number of the last attempt that began.
func (e *Engine) withdraw(s *slot) {
	s.attempt.Number = max(s.begun, s.header.attempt-1)
	e.endTrial(s)
	e.settleUnrun(s, Result{Outcome: task.Cancelled, Message: s.cancel.Message})
	if !e.waits(s.part) {
		e.release(s)
	}
	signal(e.wakeCommit)
}

// withdrawn settles a task that is about to wait for its start, if it is cancelled.
func (e *Engine) withdrawn(s *slot) bool {
	if s.cancel == nil {
		s.cancel = e.cancelOf(s)
	}
	if s.cancel != nil {
		e.withdraw(s)
	}
	return s.cancel != nil
}

// recall makes cancellations count for what has failed and isn't settled yet.
func (e *Engine) recall() {
	cancelled := func(s *slot) bool {
		c := e.cancelOf(s)
		if c == nil || s.cancel != nil {
			return false
		}
		s.cancel = c
		if s.result.Outcome != task.Completed {
			s.result, s.verdict = Result{Outcome: task.Cancelled, Message: c.Message, Instance: s.result.Instance}, Verdict{}
		}
		return true
	}
	for _, s := range e.finished {
		cancelled(s)
	}
	e.setHeld(slices.DeleteFunc(e.held, func(s *slot) bool {
		if !cancelled(s) {
			return false
		}
		e.finished = append(e.finished, s) // the outage rule is nothing to it any more
		return true
	}))
}

// cancelled is what an attempt's result means for its task, which may be cancelled: completed it stays, and any other end
// is what was asked for.
func (e *Engine) cancelled(s *slot, r Result) Result {
	if s.cancel == nil {
		s.cancel = e.cancelOf(s)
	}
	if s.cancel == nil || r.Outcome == task.Completed && !r.CutShort {
		return r
	}
	return Result{Outcome: task.Cancelled, Message: s.cancel.Message, Instance: r.Instance}
}

// endedCancel is a cancellation that has come to its end.
type endedCancel struct {
	cancel    *Cancellation
	completed bool
}

// endCancel notes that a settled task's cancellation has come to its end. The lock is held.
func (e *Engine) endCancel(t *transaction, s *slot) {
	if s.cancel == nil || s.verdict.Settled == task.SettledRetry {
		return
	}
	e.cancels.drop(s.cancel)
	t.ended = append(t.ended, endedCancel{s.cancel, s.verdict.Outcome == task.Completed})
}

// tellCancels tells what became of cancellations.
func (t *transaction) tellCancels() {
	for _, x := range t.ended {
		if x.completed {
			x.cancel.Tell(status.CommandRefused, "it had completed before it could be cancelled")
		} else {
			x.cancel.Tell(status.CommandDone, "it is cancelled")
		}
	}
}

// remove takes the slots out that f wants.
func (q *queue) remove(f func(*slot) bool) {
	q.slots = append(q.slots[:q.head], slices.DeleteFunc(q.slots[q.head:], f)...)
	if q.head == len(q.slots) {
		q.slots, q.head = q.slots[:0], 0
	}
}
