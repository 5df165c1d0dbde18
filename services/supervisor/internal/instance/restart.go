package instance

import (
	"math"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

// End is how a process's life ended.
type End int

// The ends.
const (
	EndAsked    End = iota // it was stopped
	EndDone                // it exited with code 0 without having been asked
	EndCrashed             // anything else, a start that came to nothing included
	EndCulprit             // it crashed with one task in flight, whose fault it was
	EndHopeless            // it can't be started at all: a callback that isn't there
)

// Action is what follows.
type Action int

// The actions.
const (
	ActStop    Action = iota // the instance is done
	ActRestart               // after a delay
	ActOpen                  // the circuit opens: nothing more until somebody resets it
	ActAsk                   // a person decides
	ActLeave                 // it stays down, as the policy says
)

// healthySpell is how long a process must have run for its instance's restarts to be forgotten.
const healthySpell = 60 * time.Second

const (
	immediately = 1 * time.Second // the delay of the policy immediate, and after an exit with code 0
	jitterShare = 0.1
)

// Decide says what follows the end of a process that had run for a while, when there were so many restarts before.
// jitter is from [0, 1). It also gives the restarts to count from now on.
func Decide(p spec.Process, end End, ran time.Duration, restarts int, jitter float64) (act Action, delay time.Duration, count int) {
	if ran >= healthySpell {
		restarts = 0
	}
	switch {
	case end == EndAsked:
		return ActStop, 0, restarts
	case end == EndHopeless:
		return ActOpen, 0, restarts
	case p.RestartPolicy == spec.RestartNever:
		return ActLeave, 0, restarts
	case p.RestartPolicy == spec.RestartManual:
		return ActAsk, 0, restarts
	case end == EndCulprit: // it also explains a crash before, when the same task had others beside it
		return ActRestart, 0, max(restarts-1, 0)
	case end == EndDone:
		return ActRestart, immediately, restarts
	case restarts >= p.MaxRestartAttempts:
		return ActOpen, 0, restarts
	case p.RestartPolicy == spec.RestartImmediate:
		return ActRestart, immediately, restarts + 1
	}
	return ActRestart, backoff(p, restarts, jitter), restarts + 1
}

// backoff is min(max, base·2ⁿ) and 0 to 10 % more, never less.
func backoff(p spec.Process, n int, jitter float64) time.Duration {
	d := math.Min(float64(p.RestartBackoffMaxSeconds), float64(p.RestartBackoffSeconds)*math.Pow(2, float64(n)))
	return time.Duration(d * (1 + jitterShare*jitter) * float64(time.Second))
}
