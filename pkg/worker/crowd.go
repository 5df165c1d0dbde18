package worker

import (
	"fmt"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

// A partition can be held up by one task: nothing starts beyond the window, which begins at the lowest unsettled task, and
// a dispatcher puts no more into the queue than it bounds, however many of that belong to one key. That is as it should
// be, since nothing may be skipped; but a person should know which task it is.

// crowdEvery is how often partitions are looked at that one task may hold up.
const crowdEvery = tidyPause

// KindQueueHeld is the alert of a task that holds up its partition.
const KindQueueHeld = "queue_held"

// crowd is a partition that one task holds up.
type crowd struct {
	by    *slot // nil: none
	since time.Time
	told  bool
}

// lookForCrowds alerts where a task has held up its partition for a while, and takes that back.
func (e *Engine) lookForCrowds(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	told := false
	for _, p := range e.order {
		by, waiting := p.heldUpBy()
		switch {
		case by == nil:
			p.crowd = crowd{}
		case p.crowd.by != by:
			p.crowd = crowd{by: by, since: now, told: p.crowd.told && e.crowded}
		case now.Sub(p.crowd.since) >= alertAfter && !p.crowd.told:
			p.crowd.told = true
			e.cfg.Alert(Alert{Kind: KindQueueHeld, Severity: "warning", Message: fmt.Sprintf("%s, and %d later tasks of %s/%d wait for it",
				by.describe(), waiting, e.cfg.Names.Tasks(e.cfg.Spec.Topic, e.cfg.Spec.Name), p.id)})
		}
		told = told || p.crowd.told
	}
	if e.crowded && !told {
		e.cfg.Alert(Alert{Kind: KindQueueHeld, Severity: "warning", Resolved: true, Message: "no task holds up its partition any more"})
	}
	e.crowded = told
}

// heldUpBy is the task that holds up a partition, with how many wait for it at least.
func (p *partition) heldUpBy() (by *slot, waiting int) {
	if len(p.pending) > 0 && !p.tracker.Fits(p.pending[0].Offset) {
		return p.lowest(), len(p.pending)
	}
	if p.holds.count == 0 || p.live < spec.QueueBound-trialSize {
		return nil, 0
	}
	for _, s := range p.named {
		n := 0
		for next := s.next; s.hold != nil && next != nil; next = next.next {
			n++
		}
		if n > waiting {
			by, waiting = s, n
		}
	}
	return by, waiting
}

// lowest is the lowest unsettled task; nil where it is under way to its settlement.
func (p *partition) lowest() *slot {
	low := p.tracker.Low()
	if s := p.named[low]; s != nil {
		return s
	}
	for s := range p.inFlight {
		if s.offset() == low {
			return s
		}
	}
	return nil
}

// describe says what a task waits for.
func (s *slot) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the task %s", taskID(s.origin()))
	if key := s.attempt.Record.Key; key != nil {
		fmt.Fprintf(&b, " (key %q)", clip(string(key), 100))
	}
	switch {
	case s.state == running:
		fmt.Fprintf(&b, " runs since %s", s.attempt.started.UTC().Format(time.RFC3339))
	case s.hold != nil:
		fmt.Fprintf(&b, " keeps its key: its attempt %d failed, the next starts at %s", s.hold.attempt, s.hold.due.UTC().Format(time.RFC3339))
	default:
		b.WriteString(" isn't settled")
	}
	return b.String()
}
