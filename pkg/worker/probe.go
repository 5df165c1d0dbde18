package worker

import (
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
	// heldLimit is how many final failures wait at most until it is known whether they were an outage's.
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
	before := e.outage.believed
	e.outage.observe(time.Now(), maphash.Bytes(seed, s.origin()), f, probe)
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
		a.Message = fmt.Sprintf("nearly all of its last tasks failed alike (%s: %s): the agent is paused here and tries one task at a time; its events wait, none is dead-lettered for it and no retry is used up; it goes on by itself once a task succeeds",
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
	for turns := len(e.order); turns > 0 && len(e.sought) < min(n/2, maxSought); turns-- {
		p := e.order[0]
		e.order = append(e.order[1:], p)
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

// pickSought starts those that were sought: they are the first of their partitions.
func (e *Engine) pickSought(n int, now time.Time, batch *[]*Attempt) {
	for _, s := range e.sought {
		if len(*batch) < n {
			e.pickFrom(s.part, 1, now, batch)
		}
	}
}

// holdBack keeps a final failure aside that waits until it is known whether it was an outage's; it reports whether it does.
// At a hand-over such a task is unfinished, and so the next owner's: to it the attempt has begun, and nothing more.
func (e *Engine) holdBack(s *slot, now time.Time) bool {
	if v := s.verdict; v.Settled != task.SettledDLQ && v.Settled != task.SettledFailed || len(e.held) >= heldLimit {
		return false
	}
	look, f := e.outage.outlook(), failureOf(s.result)
	if f.kind == 0 || !look.forming(f, s.ended, now) {
		return false
	}
	s.verdict, s.keeps = Verdict{}, nil
	e.uncount(s)
	e.heldBy = look
	e.setHeld(append(e.held, s))
	return true
}

// reconsider lets final failures go on that waited for the outage rule: all of them when its outlook is another one, else
// those whose time is over. They are judged anew then, and only then, however often one commits meanwhile.
func (e *Engine) reconsider(now time.Time) {
	if len(e.held) == 0 {
		return
	}
	look, n := e.outage.outlook(), 0
	if look != e.heldBy {
		n = len(e.held)
	}
	for n < len(e.held) && !look.forming(failureOf(e.held[n].result), e.held[n].ended, now) {
		n++
	}
	if n > 0 {
		e.finished = slices.Concat(e.held[:n], e.finished)
		e.setHeld(slices.Delete(e.held, 0, n))
	}
}

func (e *Engine) setHeld(held []*slot) { e.held, e.outage.held = held, len(held) }
