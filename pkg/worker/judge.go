package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// Policy is what decides about failed attempts of an agent.
type Policy struct {
	MaxRetries int
	Delays     []time.Duration // one a retry, the last repeats; each is a tier
	Tiers      []time.Duration // of the installation, ascending
	DLQ        bool
}

// NewPolicy takes the policy out of a spec. A spec may have been written when the installation had other tiers: each of its
// delays becomes the shortest tier that is as long, so that nothing is sent to a topic that nobody reads. With ordering
// strict the worker waits itself.
func NewPolicy(a *spec.Agent, tiers []time.Duration) Policy {
	delays := a.Config.Delays()
	if len(tiers) > 0 && a.Config.Ordering != spec.OrderingStrict {
		for i, d := range delays {
			delays[i] = tierFor(tiers, d)
		}
	}
	return Policy{MaxRetries: a.Config.MaxRetries, Delays: delays, Tiers: tiers, DLQ: a.Config.DLQEnabled}
}

// Tries is what is known of a task's attempts up to and with the one that ended.
type Tries struct {
	Number   int // of the attempt that ended
	Burnt    int // retries used up before it
	Timeouts int // attempts before it that timed out
	// Outage says that nothing of the agent succeeded while the attempt ran: its failure tells nothing of the task.
	Outage bool
}

// Verdict is what becomes of an attempt and its task.
type Verdict struct {
	Outcome task.Outcome
	Settled task.Settled
	Class   task.Class    // empty when completed
	Derived bool          // the class was guessed from the message
	Delay   time.Duration // with SettledRetry: the tier, or how long the task keeps its key (ordering strict)
	Burns   bool          // with SettledRetry: a retry is used up
}

// Settlement is a verdict that has come true.
type Settlement struct {
	Verdict
	First bool // nothing of the task was settled before
}

// Judge decides by the error's class what becomes of a result that isn't cut short.
func Judge(p Policy, t Tries, r Result) Verdict {
	switch r.Outcome {
	case task.Completed:
		return Verdict{Outcome: task.Completed, Settled: task.SettledDone}
	case task.Cancelled, task.Discarded:
		return Verdict{Outcome: r.Outcome, Settled: task.SettledDropped}
	}
	class, derived := classify(r)
	v := Verdict{Outcome: r.Outcome, Class: class, Derived: derived, Settled: task.SettledRetry}
	if r.Outcome == task.Rejected && !p.DLQ { // nothing has failed: it never ran
		v.Settled = task.SettledDropped
		return v
	}
	switch class {
	case task.ClassInvalidInput, task.ClassIncompatibleTask, task.ClassPermanent, task.ClassResultTooLarge:
		return v.dead(p)
	case task.ClassRateLimited:
		v.Delay = tierFor(p.Tiers, p.rateLimited(t, r))
		return v
	case task.ClassResource:
		if !derived { // a guess must not let a task go round for ever
			v.Delay = p.delay(t.Number - 1)
			return v
		}
	}
	if t.Outage {
		v.Delay = p.Tiers[0] // it waits at its worker anyway
		return v
	}
	if t.Burnt >= p.MaxRetries {
		return v.dead(p)
	}
	v.Burns, v.Delay = true, p.delay(t.Burnt)
	return v
}

// final reports whether the task has failed for good.
func (v Verdict) final() bool { return v.Settled == task.SettledDLQ || v.Settled == task.SettledFailed }

func (v Verdict) dead(p Policy) Verdict {
	v.Settled = task.SettledFailed
	if p.DLQ {
		v.Settled = task.SettledDLQ
	}
	return v
}

// delay is that of retry n, from 0.
func (p Policy) delay(n int) time.Duration {
	if len(p.Delays) == 0 {
		return p.Tiers[0]
	}
	return p.Delays[min(max(n, 0), len(p.Delays)-1)]
}

// rateLimited is how long a task waits that was rate limited: as long as the agent asked, at least a delay of its own and
// no longer than the longest tier.
func (p Policy) rateLimited(t Tries, r Result) time.Duration {
	return min(max(r.RetryAfter, p.delay(t.Number-1)), p.Tiers[len(p.Tiers)-1])
}

// tierFor is the shortest tier that is at least d, or the longest.
func tierFor(tiers []time.Duration, d time.Duration) time.Duration {
	i := slices.IndexFunc(tiers, func(t time.Duration) bool { return t >= d })
	if i < 0 {
		i = len(tiers) - 1
	}
	return tiers[i]
}

var known = []task.Class{task.ClassTimeout, task.ClassResource, task.ClassNetwork, task.ClassCrash, task.ClassInternal, task.ClassRateLimited,
	task.ClassDependency, task.ClassInvalidInput, task.ClassIncompatibleTask, task.ClassPermanent, task.ClassResultTooLarge}

// Classify is the class that a failed attempt is judged by.
func Classify(r Result) task.Class {
	c, _ := classify(r)
	return c
}

// classify takes the class that was given, or guesses one from the message.
func classify(r Result) (c task.Class, derived bool) {
	switch {
	case slices.Contains(known, r.Class):
		return r.Class, false
	case r.Class != "":
		return task.ClassInternal, false
	}
	text := strings.ToLower(r.Message)
	switch {
	case strings.Contains(text, "timeout"), strings.Contains(text, "timed out"):
		return task.ClassTimeout, true
	case strings.Contains(text, "resource"):
		return task.ClassResource, true
	}
	return task.ClassInternal, false
}

// AttemptTimeout is how long an attempt may take: the agent's request_timeout, doubled for each attempt of the task that
// timed out before, up to four times. An agent without a limit has its reclaim time. 0 is never returned.
func AttemptTimeout(a *spec.Agent, timeouts int) time.Duration {
	if a.Process.RequestTimeout.Infinite() {
		return time.Duration(a.Config.ReclaimIdleMS) * time.Millisecond
	}
	return a.Process.RequestTimeout.Duration() << min(timeouts, 2)
}

var variable = regexp.MustCompile(`[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,}){0,4}|0x[0-9a-fA-F]+|[0-9]+`)

// Fingerprint tells like errors from unlike ones: class, message with its numbers and ids blanked out, version.
func Fingerprint(c task.Class, message, version string) string {
	sum := sha256.Sum256([]byte(string(c) + "\x00" + normalise(message) + "\x00" + version))
	return hex.EncodeToString(sum[:8])
}

// normalise blanks out what differs between like messages.
func normalise(message string) string { return variable.ReplaceAllString(message, "#") }
