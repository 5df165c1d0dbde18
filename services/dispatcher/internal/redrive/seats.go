package redrive

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// seats is how many desks are in their groups at a time: each has connections of its own.
	seats = 16
	// patience is how long a desk keeps its seat while nothing moves and others wait.
	patience = 5 * time.Second
)

// seating is who is in its group, and who waits for that, in turn. Its methods are safe for concurrent use.
type seating struct {
	mu      sync.Mutex
	taken   int
	yielded int     // of them: those that are being left to others
	queue   []*desk // who has waited longest comes first
}

// take takes a seat, and reports whether there was one that is nobody else's turn. Else the desk waits from then on.
func (s *seating) take(d *desk) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.Index(s.queue, d)
	if at < 0 {
		at = len(s.queue)
		s.queue = append(s.queue, d)
	}
	if at >= seats-s.taken {
		return false
	}
	s.queue = slices.Delete(s.queue, at, at+1)
	s.taken++
	return true
}

// forgo ends a wait.
func (s *seating) forgo(d *desk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(other *desk) bool { return other == d })
}

// yield reports whether somebody waits who gets no other seat. Who asks gives up its own then.
func (s *seating) yield() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) <= seats-s.taken+s.yielded {
		return false
	}
	s.yielded++
	return true
}

// free gives a seat back.
func (s *seating) free(yielded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if yielded {
		s.yielded--
	}
}

// sit takes a seat, unless the desk has one, and reports whether it has one then.
func (d *desk) sit() bool {
	if !d.seated {
		d.seated = d.all.seating.take(d)
	}
	return d.seated
}

// yields reports whether the desk is to leave its seat to others.
func (d *desk) yields() bool {
	if d.seated && !d.yielded {
		d.yielded = d.all.seating.yield()
	}
	return d.yielded
}

// stand gives the seat to others.
func (d *desk) stand() {
	if d.seated {
		d.all.seating.free(d.yielded)
		d.seated, d.yielded = false, false
	}
}

// untilSeated waits until the order may go on and the desk has a seat. early says how it ends without.
func (r *run) untilSeated(ctx context.Context) (early *conclusion, err error) {
	defer r.all.seating.forgo(r.desk)
	for ctx.Err() == nil && !r.cfg.Finished(r.order.ID) {
		if early := r.over(ctx); early != nil {
			return early, nil
		}
		seated, why := r.seated, r.waitsFor(r.order.Verb)
		switch {
		case why == "" && r.sit():
			if !seated || r.stirred.IsZero() {
				r.stirred = time.Now()
			}
			return nil, nil
		case why == "":
			why = fmt.Sprintf("dead letters of %d other agents are worked on", seats)
			if r.trouble != "" {
				why += "; last it was: " + r.trouble
			}
		case seated:
			return nil, errHeld
		default:
			r.all.seating.forgo(r.desk)
		}
		r.say(stateWaiting, why)
		await(ctx, look, nil)
	}
	return nil, errMoved // it ends, or somebody has carried it out
}

// blocks reports whether the order keeps others waiting for nothing: the desk is to leave its seat to them.
func (r *run) blocks() bool { return time.Since(r.stirred) > patience && r.yields() }
