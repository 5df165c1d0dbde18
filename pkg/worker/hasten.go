package worker

import (
	"slices"
	"time"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// Hastening is a task that is to run its next attempt at once, while it keeps its key here: with ordering strict no retry
// topic has it.
type Hastening struct {
	Origin  task.Origin
	Round   int
	Attempt int // the number of the attempt that is waited for; another one isn't meant
	Expires time.Time
	// Tell is told that it is done. It must not block. Nobody is told of a task that isn't here.
	Tell func(state, message string)
}

// HasteningOf makes a hastening of a command.
func HasteningOf(c command.Command, tell func(state, message string)) (Hastening, error) {
	o, err := task.ParseOrigin(c.Task)
	if err != nil {
		return Hastening{}, err
	}
	return Hastening{Origin: o, Round: c.Round, Attempt: c.Attempt, Expires: c.Expires, Tell: tell}, nil
}

func (h *Hastening) task() string     { return h.Origin.ID() }
func (h *Hastening) until() time.Time { return h.Expires }

// HastenTask lets a task's next attempt start at once that waits here for its time, or comes to wait here until the
// hastening expires.
func (e *Engine) HastenTask(h Hastening) {
	now := time.Now()
	if now.After(h.Expires) {
		return
	}
	var found bool
	e.mu.Lock()
	e.hastens.put(&h, now)
	for _, ps := range []map[int32]*partition{e.parts, e.lost} {
		for _, p := range ps {
			i := slices.IndexFunc(p.holds.waiting, func(s *slot) bool { return e.hastenOf(s) != nil })
			if i < 0 {
				continue
			}
			s := p.holds.waiting[i]
			p.holds.waiting = slices.Delete(p.holds.waiting, i, i+1)
			e.park(s) // which hastens it
			found = true
		}
	}
	e.mu.Unlock()
	if found {
		h.Tell(status.CommandDone, "its next attempt may start")
	}
}

// hastenOf is the live hastening of a task that keeps its key, or nil.
func (e *Engine) hastenOf(s *slot) *Hastening {
	h, ok := e.hastens.of(s)
	if !ok || s.hold == nil || h.Attempt != s.hold.attempt+1 || !s.meant(h.Origin, h.Round) || time.Now().After(h.Expires) {
		return nil
	}
	return h
}

// hasten makes a task due that is about to wait for its time, if somebody wants that. The next commit says so too.
func (e *Engine) hasten(s *slot) {
	h := e.hastenOf(s)
	if h == nil {
		return
	}
	if now := time.Now(); s.hold.due.After(now) {
		s.hold.due = now
		s.part.changed = true
		signal(e.wakeCommit)
	}
}
