package worker

import (
	"context"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

// trial is the suspects that run now, with nothing beside them.
type trial struct {
	members map[*slot]bool // true once the metadata names it, so that it may start
	until   time.Time      // end of the probation; zero before the first has started
}

// trialSize is how many suspects of a dead host run at once. A host's death is seldom a task's doing, so that the first
// time they are tried in small groups; who was in a group that died is tried alone.
const trialSize = 16

// scheduleLoop starts what became startable without a poll.
func (e *Engine) scheduleLoop(ctx context.Context) {
	t := time.NewTimer(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wakeSchedule:
		case <-t.C: // the lease may be back, a probation may be over
		}
		e.schedule()
		if e.hasReady() {
			t.Reset(tick)
		} else if due, ok := e.nextDue(); ok {
			t.Reset(time.Until(due))
		}
	}
}

func (e *Engine) hasReady() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.suspects) > 0 || len(e.trial.members) > 0 || e.outage.stage != calm {
		return true
	}
	for _, p := range e.order {
		if p.ready.len() > 0 {
			return true
		}
	}
	return false
}

// schedule hands startable tasks to the Runner until it has no slots or nothing is startable.
func (e *Engine) schedule() {
	e.scheduling.Lock()
	defer e.scheduling.Unlock()
	for {
		slots := e.cfg.Runner.Slots()
		if slots <= 0 || !e.member.HasLease() {
			return
		}
		batch := e.pick(slots)
		if len(batch) == 0 {
			return
		}
		e.cfg.Runner.Run(batch)
	}
}

// pick takes up to n tasks that may start, in turn from the partitions.
func (e *Engine) pick(n int) []*Attempt {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining {
		return nil
	}
	now := time.Now()
	e.cancels.prune(now)
	e.hastens.prune(now)
	e.lookOutage(now)
	if n = e.outage.allow(n, now); n == 0 || e.outage.stage != calm && e.seek(n) {
		return nil
	}
	if e.underTrial(now) {
		return e.pickSuspects(n, now)
	}
	if e.holders > 0 {
		e.callDue(n, now)
	}
	n = min(n, n+e.running-e.unsettled)
	if e.full = n <= 0; e.full {
		signal(e.wakeCommit)
	}
	var batch []*Attempt
	if e.outage.stage != calm {
		e.pickSought(n, now, &batch)
	}
	blocked := false
	for turns := len(e.order); turns > 0 && len(batch) < n; {
		p := e.order[0]
		e.order = append(e.order[1:], p)
		took := e.pickFrom(p, (n-len(batch)+len(e.order)-1)/len(e.order), now, &batch)
		blocked = blocked || p.wanted >= 0
		if took > 0 {
			turns = len(e.order)
		} else {
			turns--
		}
	}
	if blocked {
		signal(e.wakeCommit)
	}
	return batch
}

// pickFrom takes up to n ready tasks of one partition that are reserved, and notes what should be reserved next.
func (e *Engine) pickFrom(p *partition, n int, now time.Time, batch *[]*Attempt) (took int) {
	if !p.open() || e.zombies[p.id] > 0 {
		return 0
	}
	for took < n {
		s := p.holds.called.peek()
		if s == nil {
			break
		}
		p.holds.called.pop()
		*batch = append(*batch, e.start(s, now))
		took++
	}
	for took < n {
		s := p.ready.peek()
		if s == nil || p.crammed() {
			return took
		}
		if s.offset() >= p.reserved && !s.named() {
			for i := p.ready.head; i < min(p.ready.head+n-took, len(p.ready.slots)); i++ {
				p.wanted = max(p.wanted, p.ready.slots[i].offset())
			}
			return took
		}
		p.ready.pop()
		*batch = append(*batch, e.start(s, now))
		took++
	}
	return took
}

// start makes a task's next attempt.
func (e *Engine) start(s *slot, now time.Time) *Attempt {
	p := s.part
	s.state = running
	s.begun = s.number()
	s.attempt.Number, s.attempt.started, s.attempt.Alone = s.begun, now, s.suspect() && s.solo || s.crashed
	s.attempt.Timeout, s.attempt.Idle = AttemptTimeout(e.spec, s.header.before().timeouts), e.spec.Process.RequestTimeout.Infinite()
	s.signs = nil
	p.inFlight[s] = struct{}{}
	if !s.sought { // which the entries tell: nothing before it has to have begun
		p.highest = max(p.highest, s.offset())
	}
	p.started++
	e.running++
	if e.outage.stage != calm {
		s.probe = true
		e.outage.started(now)
	}
	return &s.attempt
}

// underTrial reports whether suspects keep everything else from starting.
func (e *Engine) underTrial(now time.Time) bool {
	if !e.trial.until.IsZero() && now.After(e.trial.until) {
		for s := range e.trial.members {
			if s.state == running { // it lived; whether it ends or not, others may start
				delete(e.trial.members, s)
			}
		}
	}
	return len(e.suspects) > 0 || len(e.trial.members) > 0
}

// pickSuspects starts up to n of those on trial, as the metadata names them; without a trial it opens the next.
func (e *Engine) pickSuspects(n int, now time.Time) []*Attempt {
	if len(e.trial.members) == 0 {
		e.openTrial()
		return nil
	}
	var batch []*Attempt
	for s, named := range e.trial.members {
		if named && s.state != running && s.part.open() && e.zombies[s.part.id] == 0 && len(batch) < n {
			batch = append(batch, e.start(s, now))
			if end := now.Add(probation(s.begun, s.header.attempt)); end.After(e.trial.until) {
				e.trial.until = end
			}
		}
	}
	return batch
}

// openTrial takes the next suspects and asks for their names in the metadata.
func (e *Engine) openTrial() {
	e.trial = trial{members: map[*slot]bool{}}
	solo := e.suspects[0].solo
	for len(e.suspects) > 0 && e.suspects[0].solo == solo && len(e.trial.members) < trialSize && (!solo || len(e.trial.members) == 0) {
		s := e.suspects[0]
		e.suspects = e.suspects[1:]
		e.trial.members[s] = false
		s.part.tried = append(s.part.tried, s)
	}
	signal(e.wakeCommit)
}

// clearSuspects lets the suspects run like others: the culprit is found.
func (e *Engine) clearSuspects() {
	e.suspicion++
	waiting := e.suspects
	e.suspects = nil
	for _, s := range waiting {
		e.enqueue(s)
	}
}

// finish takes an attempt's result. It is called by the Runner, from any goroutine.
func (e *Engine) finish(s *slot, r Result) {
	e.mu.Lock()
	e.running--
	p := s.part
	delete(p.inFlight, s)
	s.ended = time.Now()
	if s.cancel != nil || e.cancels.any() {
		r = e.cancelled(s, r)
	}
	switch {
	case s.state == abandoned:
		e.endProbe(s)
		e.buried(p.id)
	case r.CutShort, r.Outcome == task.Crashed && r.Shared && !s.attempt.Alone:
		s.state = waiting
		e.endProbe(s)
		if !r.CutShort {
			s.suspicion, s.solo = e.suspicion, true
		}
		e.endTrial(s)
		e.enqueue(s)
	default:
		s.result, s.state = r, finished
		if r.Outcome != task.Completed || len(r.Publish) == 0 {
			e.weigh(s, r)
		}
		if s.ended.Sub(s.attempt.started) >= worthwhile {
			s.counted = true
			e.unsettled++
		}
		e.endTrial(s)
		if r.Outcome == task.Crashed && s.suspect() {
			e.clearSuspects()
		}
		e.finished = append(e.finished, s)
		if !e.waits(p) {
			e.release(s)
		}
		signal(e.wakeCommit)
	}
	if e.running == 0 || e.draining || p.leaving {
		e.changed.Broadcast()
	}
	e.mu.Unlock()
	signal(e.wakeSchedule)
}

// worthwhile is how long an attempt takes that should not be repeated for nothing. Of those, no more start than there
// are attempts in flight while as many have finished and aren't settled, so that a kill repeats at most about twice the
// concurrency. Shorter ones may run ahead of the transactions, which is what makes them fast.
const worthwhile = 5 * time.Millisecond

// uncount takes a finished task off the count: it is settled, or waits for something else than the next transaction.
func (e *Engine) uncount(s *slot) {
	if s.counted {
		s.counted = false
		e.unsettled--
	}
}

func (e *Engine) endTrial(s *slot) { delete(e.trial.members, s) }

// buried counts down the attempts of an earlier ownership.
func (e *Engine) buried(id int32) {
	if e.zombies[id]--; e.zombies[id] <= 0 {
		delete(e.zombies, id)
	}
}
