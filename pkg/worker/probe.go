package worker

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

// Outage says that an agent is paused at its worker, because nothing of it succeeds.
type Outage struct {
	Since time.Time
	// Class and Message are those of the failures that showed it.
	Class   task.Class
	Message string
}

// outage is what Figures say.
func (o *outage) figures() *Outage {
	if !o.believed {
		return nil
	}
	return &Outage{Since: time.UnixMilli(o.spells[len(o.spells)-1].Since), Class: o.cause.class, Message: clip(o.cause.message, alertLimit)}
}

const (
	// alertLimit bounds an error's message in an alert and in reports, in bytes.
	alertLimit = 500
	// heldLimit is how many final failures wait until it is checked, at once, whether they were an outage's: but for what runs
	// by then no more come.
	heldLimit = 1000
)

// weigh lets the outage rule take an attempt's result into account. A result that publishes is only one once it is
// published. The lock is held.
func (e *Engine) weigh(s *slot, r Result) {
	probe := e.endProbe(s)
	e.outage.informed = true
	if r.Outcome == task.Cancelled || r.Outcome == task.Discarded {
		return
	}
	f := failureOf(r)
	if f.kind == 0 && e.outage.stage == calm && len(e.outage.samples) == 0 {
		return // as nearly always
	}
	now, before := time.Now(), e.outage.believed
	o := result{failure: f, task: maphash.Bytes(seed, s.origin()), began: s.attempt.started, probe: probe}
	if f.kind != 0 {
		a := s.header.account()
		a.giveBack(&e.outage)
		o.first = a.first(now)
	}
	e.outage.observe(now, o)
	e.outageChanged(before)
}

// endProbe notes that an attempt isn't in flight any more. It reports whether it was a probe.
func (e *Engine) endProbe(s *slot) bool {
	if !s.probe {
		return false
	}
	s.probe = false
	e.outage.probing--
	return true
}

// outageChanged tells people that an outage has begun or is over. The lock is held.
func (e *Engine) outageChanged(before bool) {
	if before == e.outage.believed {
		return
	}
	for _, p := range e.order {
		p.changed = true // the next owner has to know
	}
	signal(e.wakeCommit)
	e.tellOutage()
}

// tellOutage raises the alert, or takes it back.
func (e *Engine) tellOutage() {
	a := Alert{Kind: "outage", Severity: "critical", Resolved: true, Message: "the agent does its work again"}
	if o := e.outage.figures(); o != nil {
		a.Resolved, a.Since = false, o.Since
		a.Message = fmt.Sprintf("its last tasks failed alike and none succeeded (%s: %s): the agent is paused here and tries one task at a time; its events wait, none is dead-lettered for it, and what is tried meanwhile counts as retried but uses up none of max_retries; it goes on by itself once most of what it tries succeeds",
			o.Class, o.Message)
	}
	e.cfg.Alert(a)
}

// lookOutage ends an outage that nothing is left to try of. The lock is held.
func (e *Engine) lookOutage(now time.Time) {
	if e.outage.stage == calm {
		return
	}
	before := e.outage.believed
	e.outage.look(now)
	e.outageChanged(before)
}

// maxSought is how many tasks are sought at once.
const maxSought = 8

// seek picks half of the probes out of their turn: the newest tasks that may start, of each partition in turn. If they
// succeed where older ones fail, it is those. They have to be named in the metadata first, since they lie beyond what is
// reserved; where there is no room for their names nobody waits for them. seek reports whether there are some to wait for.
func (e *Engine) seek(n int) (wait bool) {
	e.sought = slices.DeleteFunc(e.sought, func(s *slot) bool { return s.part.gone || s.state != waiting && s.state != ready })
	if len(e.sought) > 0 {
		return slices.ContainsFunc(e.sought, func(s *slot) bool {
			return s.state == waiting && s.part.open() && slices.Index(s.part.wants, s) < s.part.room()
		})
	}
	if n == 1 {
		n = 2 * (e.outage.probes % 2)
	}
	for turns := len(e.order); turns > 0 && len(e.sought) < min((n+1)/2, maxSought); turns-- {
		p := e.soughtNext()
		e.soughtIn = p.id
		if p.open() && p.ready.len() > 1 && len(p.wants) < p.room() {
			s := p.ready.popNewest()
			s.state, s.sought = waiting, true
			p.wants = append(p.wants, s)
			e.sought = append(e.sought, s)
			turns = len(e.order) + 1
			signal(e.wakeCommit)
		}
	}
	return len(e.sought) > 0
}

// soughtNext is the partition behind the one that was sought in last, by their numbers. The turns that order tells are those of
// the probes that begin with the oldest: where both took them, with two partitions each would see only one.
func (e *Engine) soughtNext() *partition {
	var first, next *partition
	for _, p := range e.order {
		if first == nil || p.id < first.id {
			first = p
		}
		if p.id > e.soughtIn && (next == nil || p.id < next.id) {
			next = p
		}
	}
	return cmp.Or(next, first)
}

// pickSought starts those that were sought: they are the first of their partitions.
func (e *Engine) pickSought(n int, now time.Time, batch *[]*Attempt) {
	for _, s := range e.sought {
		if len(*batch) < n {
			e.pickFrom(s.part, 1, now, batch)
		}
	}
}

// final is the failure of a task that was judged, as the outage rule sees it.
func (s *slot) final() final {
	return final{failure: failureOf(s.result), first: s.account.first(s.ended), at: s.ended}
}

// holdBack keeps a final failure aside that waits until it is known whether it was an outage's; it reports whether it does.
// At a hand-over such a task is unfinished, and so the next owner's: to it the attempt has begun, and nothing more.
func (e *Engine) holdBack(s *slot, now time.Time) bool {
	if !s.verdict.final() {
		return false
	}
	look := e.outage.outlook()
	waits, until := look.waits(s.final(), now)
	if !waits {
		return false
	}
	s.verdict, s.keeps = Verdict{}, nil
	e.uncount(s)
	e.heldBy, e.heldUntil = look, earlier(e.heldUntil, until)
	e.setHeld(append(e.held, s))
	if len(e.held) >= heldLimit && e.outage.stage == calm {
		e.outage.check(now)
	}
	return true
}

// reconsider lets final failures go on that waited for the outage rule, if its outlook is another one, or the time of some
// is over. They are judged anew then, and only then, however often one commits meanwhile.
func (e *Engine) reconsider(now time.Time) {
	if len(e.held) == 0 {
		return
	}
	e.outage.lapse(now, e.held[0].ended, e.running)
	look := e.outage.outlook()
	if look == e.heldBy && (e.heldUntil.IsZero() || now.Before(e.heldUntil)) {
		return
	}
	e.heldBy, e.heldUntil = look, time.Time{}
	var on []*slot
	held := e.held[:0]
	for _, s := range e.held {
		waits, until := look.waits(s.final(), now)
		if !waits {
			on = append(on, s)
			continue
		}
		e.heldUntil = earlier(e.heldUntil, until)
		held = append(held, s)
	}
	clear(e.held[len(held):])
	e.finished = slices.Concat(on, e.finished)
	e.setHeld(held)
}

// earlier is the earlier one of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (e *Engine) setHeld(held []*slot) { e.held, e.outage.held = held, len(held) }
