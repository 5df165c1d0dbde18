package worker

import (
	"context"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

// trial is the suspect that is to run alone, or runs alone.
type trial struct {
	slot  *slot
	named bool      // the metadata names it: it may start
	until time.Time // end of its probation, once it runs
}

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
		}
	}
}

func (e *Engine) hasReady() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.suspects) > 0 || e.trial.slot != nil {
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
	if e.underTrial(now) {
		return e.pickSuspect(now)
	}
	var batch []*Attempt
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
	if p.leaving || p.closing || e.zombies[p.id] > 0 {
		return 0
	}
	for took < n {
		s := p.ready.peek()
		if s == nil {
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
	s.attempt.Number, s.attempt.started, s.attempt.Alone = s.begun, now, s.suspect()
	s.attempt.Timeout = AttemptTimeout(e.spec, s.header.timeouts)
	p.inFlight[s] = struct{}{}
	p.highest = max(p.highest, s.offset())
	p.started++
	e.running++
	return &s.attempt
}

// underTrial reports whether suspects keep everything else from starting.
func (e *Engine) underTrial(now time.Time) bool {
	if e.trial.slot != nil && e.trial.slot.state == running && now.After(e.trial.until) {
		e.trial = trial{} // it lived; whether it ends or not, the next may start
	}
	return len(e.suspects) > 0 || e.trial.slot != nil
}

// pickSuspect starts the next suspect once the metadata names it.
func (e *Engine) pickSuspect(now time.Time) []*Attempt {
	if e.trial.slot == nil {
		if e.suspects[0].part.leaving || e.zombies[e.suspects[0].part.id] > 0 {
			e.suspects = append(e.suspects[1:], e.suspects[0])
			return nil
		}
		e.trial = trial{slot: e.suspects[0]}
		e.suspects = e.suspects[1:]
		p := e.trial.slot.part
		p.wants = append(p.wants, e.trial.slot)
		signal(e.wakeCommit)
		return nil
	}
	if s := e.trial.slot; e.trial.named && s.state != running && !s.part.leaving && !s.part.closing {
		e.trial.until = now.Add(probation(s.begun, s.header.attempt))
		return []*Attempt{e.start(s, now)}
	}
	return nil
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
	switch {
	case s.state == abandoned:
		e.buried(p.id)
	case r.CutShort, r.Outcome == task.Crashed && r.Shared && !s.attempt.Alone:
		s.state = waiting
		if !r.CutShort {
			s.suspicion = e.suspicion
		}
		e.endTrial(s)
		e.enqueue(s)
	default:
		s.result, s.state = r, finished
		e.endTrial(s)
		if r.Outcome == task.Crashed && s.suspect() {
			e.clearSuspects()
		}
		e.finished = append(e.finished, s)
		e.release(s)
		signal(e.wakeCommit)
	}
	if e.running == 0 || e.draining || p.leaving {
		e.changed.Broadcast()
	}
	e.mu.Unlock()
	signal(e.wakeSchedule)
}

func (e *Engine) endTrial(s *slot) {
	if e.trial.slot == s {
		e.trial = trial{}
	}
}

// buried counts down the attempts of an earlier ownership.
func (e *Engine) buried(id int32) {
	if e.zombies[id]--; e.zombies[id] <= 0 {
		delete(e.zombies, id)
	}
}
