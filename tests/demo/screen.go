package main

import (
	"fmt"
	"io"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

const (
	// outcomeEvery and progressEvery keep the screen readable: one line per agent and kind, one line of progress.
	outcomeEvery  = 2 * time.Second
	progressEvery = 2 * time.Second
)

// screen shows some of the outcomes as they come, and every dead letter.
type screen struct {
	out   io.Writer
	shown map[string]time.Time // by agent and kind
	told  time.Time            // the last progress
}

func newScreen(out io.Writer) *screen { return &screen{out: out, shown: map[string]time.Time{}} }

func (s *screen) outcome(o outcome, at time.Time) {
	kind := o.agent + " " + string(o.settled)
	if o.settled != task.SettledDLQ && at.Sub(s.shown[kind]) < outcomeEvery {
		return
	}
	s.shown[kind] = at
	fmt.Fprintf(s.out, "%s  %-37s  %s\n", at.Format(time.TimeOnly), o.agent, sentence(o))
}

// sentence says what came of an attempt.
func sentence(o outcome) string {
	switch o.settled {
	case task.SettledDone:
		if o.attempt > 1 {
			return oneLine(fmt.Sprintf("✓ attempt %d: %s", o.attempt, o.summary), 100)
		}
		return oneLine("✓ "+o.summary, 100)
	case task.SettledRetry:
		return oneLine(fmt.Sprintf("↻ attempt %d, %s: %s", o.attempt, o.class, o.message), 100)
	case task.SettledDLQ:
		return oneLine(fmt.Sprintf("✗ dead-lettered after attempt %d, %s: %s", o.attempt, o.class, o.message), 120)
	default:
		return oneLine(fmt.Sprintf("%s, settled as %s: %s", o.outcome, o.settled, o.message), 100)
	}
}

func (s *screen) progress(done, tasks int, now time.Time) {
	if now.Sub(s.told) < progressEvery && done < tasks {
		return
	}
	s.told = now
	fmt.Fprintf(s.out, "%s  %d of %d tasks have their outcome\n", now.Format(time.TimeOnly), done, tasks)
}
