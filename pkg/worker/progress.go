package worker

import (
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

// progressEvery is how often progress of one attempt is told at most.
const progressEvery = time.Second

// Progress is how far an attempt has come.
type Progress struct {
	Origin   task.Origin
	Attempt  int
	Round    int      // of the task
	Instance string   // empty for a function
	Fraction *float64 // that is done, from 0 to 1; nil where the agent doesn't say
	Message  string
	At       time.Time
}

// Progress notes that the attempt has come so far; fraction may be nil. Where the attempt has no other limit, its Timeout
// begins anew. It never blocks.
func (a *Attempt) Progress(fraction *float64, message, instance string) {
	now := time.Now()
	if a.Idle {
		a.call.extend(now.Add(a.Timeout))
	}
	if a.slot == nil {
		return
	}
	if p, ok := a.slot.progress(now); ok {
		p.Instance, p.Fraction, p.Message = instance, fraction, message
		a.slot.eng.cfg.Progress(p)
	}
}

// signs are an attempt's signs of life.
type signs struct {
	last time.Time
	told time.Time // when somebody was last told of its progress
}

// alive is when the attempt last gave a sign of life: its start, or its last progress.
func (s *slot) alive() time.Time {
	if s.signs != nil {
		return s.signs.last
	}
	return s.attempt.started
}

// progress notes a sign of life, and reports whether it is to be told.
func (s *slot) progress(now time.Time) (Progress, bool) {
	e := s.eng
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.state != running {
		return Progress{}, false
	}
	if s.signs == nil {
		s.signs = &signs{}
	}
	s.signs.last = now
	if e.cfg.Progress == nil || now.Sub(s.signs.told) < progressEvery {
		return Progress{}, false
	}
	s.signs.told = now
	origin, err := task.ParseOrigin(string(s.origin()))
	return Progress{Origin: origin, Attempt: s.attempt.Number, Round: s.header.round(), At: now}, err == nil
}
