package worker

import (
	"cmp"
	"hash/maphash"
	"slices"
	"time"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/task"
)

// The outage rule tells an event that fails from an agent that can do nothing, because something that it depends on is
// away. Each worker has its own view.
//
//	         nearly all of the last                    its probes fail
//	calm ──── distinct tasks ────► checking ────────────────────────────► out
//	  ▲  ▲    failed alike            │ one succeeds                       │ one succeeds
//	  │  └──── most succeed ──── recovering ◄──────────────────────────────┘
//	  └──── nothing is left to try    │ most fail: back to where it came from
//
// While it isn't calm only probes start: one at a time, and while it recovers twice as many after each success. checking
// takes milliseconds as a rule; if it ends in calm nothing has happened. Once the outage is believed, a failure says
// nothing of its task: it burns no retry, and those that were burnt since the outage began are given back. What would be a
// task's last failure may lead to checking too, or wait for it: see doubt.go.
const (
	// sampleSize is how many distinct tasks the rule looks at, and sampleAlike how many of them must have failed alike, for
	// sampleSpell at least: by then the first retries have had their say.
	sampleSize  = 20
	sampleAlike = 19
	sampleSpell = 2 * time.Second
	// dependencyAlike is how many in a row are enough, at once, where the agent says itself that a dependency failed.
	dependencyAlike = 5
	// doubt is how many probes must fail until the outage is believed.
	doubt = 3
	// assurance is how many tasks must succeed until its end is believed; it is not, if more than twice as many fail.
	assurance = 8
	// Between two probes there is a tenth of the time that the outage has lasted, within these bounds: working off what came
	// in meanwhile takes longer than that.
	probeShare = 10
	probeMin   = 500 * time.Millisecond
	probeMax   = 30 * time.Second
	// quiet is how long nothing must have been there to try until a recovery is content with what it has seen.
	quiet = time.Second
	// maxSpared is in how many outages a task is spared: one that fails whenever others do mustn't go round for ever.
	maxSpared = 10
)

// stage is where the outage rule stands.
type stage uint8

const (
	calm stage = iota
	checking
	out
	recovering
)

// failure is what the outage rule has to know of a result. The zero value is that of a task that succeeded, or whose
// failure tells nothing of others: one that is settled at once, or that burns no retry anyway.
type failure struct {
	kind    uint64 // the same for failures that are alike; 0: none
	class   task.Class
	message string
}

// failureOf classes a result. Failures are alike that have the same class, where the class says that something outside of
// the agent failed; otherwise their messages have to be the same too, but for numbers and ids.
func failureOf(r Result) failure {
	if r.Outcome != task.Failed && r.Outcome != task.TimedOut && r.Outcome != task.Crashed {
		return failure{}
	}
	class, derived := classify(r)
	f := failure{class: class, message: r.Message}
	switch class {
	case task.ClassDependency, task.ClassNetwork, task.ClassTimeout:
		f.kind = maphash.String(seed, string(class))
	case task.ClassInternal, task.ClassCrash:
		f.kind = maphash.String(seed, string(class)+"\x00"+normalise(clip(r.Message, messageLimit)))
	case task.ClassResource:
		if derived {
			f.kind = maphash.String(seed, string(class))
		}
	}
	if f.kind == 0 {
		return failure{}
	}
	return f
}

// sample is the last result of one of the last distinct tasks.
type sample struct {
	failure
	task  uint64
	first time.Time // when the failures began that count against the task
	at    time.Time
}

// result is what the rule is told of an attempt.
type result struct {
	failure
	task  uint64
	began time.Time // the attempt
	first time.Time // as a sample's, where it failed
	probe bool      // the attempt began after the outage did: what an older one says is old
}

// covers reports whether some of [from, to] lies in an outage.
func covers(o offsets.Outage, from, to int64) bool {
	return to >= o.Since && (o.Until == 0 || from <= o.Until)
}

// outage is the rule's state. It is a function of what it is told, times included.
type outage struct {
	stage    stage
	believed bool             // its probes have failed
	cause    failure          // of the outage
	samples  []sample         // the newest last; none while nothing fails
	start    time.Time        // since when most have failed alike; zero: they haven't
	misses   int              // probes that have failed since checking began
	good     int              // probes that succeeded while recovering
	bad      int              // that failed
	probing  int              // in flight
	probes   int              // started since checking began
	next     time.Time        // when the next probe may start
	pace     time.Time        // since when probes have been getting rarer
	last     time.Time        // when something was last learnt
	able     time.Time        // when the latest attempt began that has succeeded, as far as it matters
	since    time.Time        // when the first failure came after which nothing has
	regained time.Time        // the same, while it isn't calm
	reprieve reprieve         // which final failures get another attempt
	held     int              // final failures that wait
	informed bool             // something is known of how the agent does
	spells   []offsets.Outage // those that were believed, ascending, the present one last
}

// allow says how many of n tasks may start now.
func (o *outage) allow(n int, now time.Time) int {
	switch o.stage {
	case calm:
		return n
	case recovering:
		return min(n, max(1<<min(o.good, 16)-o.probing, 0))
	}
	if o.probing > 0 || now.Before(o.next) {
		return 0
	}
	return min(n, 1)
}

// started notes that a probe starts.
func (o *outage) started(now time.Time) {
	o.probing++
	o.probes++
	o.last = now
}

// observe takes a result. A failure says nothing of others if the task had begun to fail before a later attempt succeeded.
func (o *outage) observe(now time.Time, r result) {
	switch {
	case o.stage == calm && r.kind == 0:
		o.proven(now, r.began)
	case o.stage == calm:
		if !r.first.After(o.able) {
			return
		}
		o.unexplained(r.first)
	case !r.probe:
		return
	}
	o.sample(sample{r.failure, r.task, r.first, now})
	switch {
	case o.stage == calm:
		if o.last = now; o.alike(now) {
			o.check(now)
		}
	case r.kind == 0:
		o.succeeded(now, r.began)
	default:
		o.failed(now, r.failure)
	}
}

// sample keeps the last result of each of the last distinct tasks.
func (o *outage) sample(s sample) {
	if s.kind == 0 && len(o.samples) == 0 {
		return
	}
	kept, failed := o.samples[:0], s.kind != 0
	for _, old := range o.samples {
		switch {
		case s.at.Sub(old.at) > memory:
		case old.task != s.task:
			kept = append(kept, old)
		case s.kind != 0 && o.unproven(old):
			s.first = earlier(s.first, old.first)
		}
	}
	kept = append(kept, s)
	kept = kept[max(len(kept)-sampleSize, 0):]
	for i := range kept {
		failed = failed || kept[i].kind != 0
	}
	if !failed {
		kept = nil
	}
	o.samples = kept
}

// check begins to try whether there is an outage.
func (o *outage) check(now time.Time) {
	o.stage, o.misses, o.probes, o.next, o.last = checking, 0, 0, now, now
	if o.start = earlier(o.start, o.since); o.start.IsZero() {
		o.start = now
	}
	for _, s := range o.samples {
		if o.unproven(s) {
			o.cause = s.failure
		}
	}
}

// alike reports whether nearly all have failed as the last one has, for long enough.
func (o *outage) alike(now time.Time) bool {
	n := 0
	row, cause := o.row()
	if row > 0 {
		o.cause = cause
	}
	for _, s := range o.samples {
		if s.kind != 0 && s.kind == o.cause.kind {
			n++
		}
	}
	if 2*n <= len(o.samples) {
		o.start = time.Time{}
		return false
	}
	if o.start.IsZero() && row > 0 {
		o.start = o.samples[len(o.samples)-row].at
	}
	return row >= dependencyAlike && cause.class == task.ClassDependency || row > 0 && n >= sampleAlike && now.Sub(o.start) >= sampleSpell
}

// row counts the last results that are failures and alike, and gives the last one.
func (o *outage) row() (n int, of failure) {
	if len(o.samples) == 0 {
		return 0, failure{}
	}
	of = o.samples[len(o.samples)-1].failure
	for i := len(o.samples) - 1; i >= 0 && of.kind != 0 && o.samples[i].kind == of.kind; i-- {
		n++
	}
	return n, of
}

// failed takes a probe that failed.
func (o *outage) failed(now time.Time, f failure) {
	o.last = now
	if o.cause.kind == 0 {
		o.cause = f
	}
	if o.stage == recovering {
		if o.bad++; o.bad <= 2*o.good+1 {
			return
		}
		o.relapse()
	}
	if o.misses++; o.misses >= doubt && !o.believed {
		o.believe(now, o.start)
	}
	if o.believed {
		o.stage, o.next = out, now.Add(o.pause(now))
	}
}

// relapse ends a recovery that was none.
func (o *outage) relapse() {
	o.stage = checking
	if o.believed {
		o.stage = out
	}
}

// believe takes what is checked for an outage that began at a time.
func (o *outage) believe(now, began time.Time) {
	o.stage, o.believed, o.pace = out, true, now
	o.remember(offsets.Outage{Since: began.UnixMilli(), Until: now.UnixMilli()})
	o.spells[len(o.spells)-1].Until = 0
}

// remember adds an outage that is over to those that are known; overlapping ones are one.
func (o *outage) remember(x offsets.Outage) {
	kept := o.spells[:0]
	for _, s := range o.spells {
		if covers(s, x.Since, x.Until) {
			x.Since = min(x.Since, s.Since)
			if x.Until = max(x.Until, s.Until); s.Until == 0 {
				x.Until = 0
			}
		} else {
			kept = append(kept, s)
		}
	}
	kept = append(kept, x)
	slices.SortFunc(kept, func(a, b offsets.Outage) int { return cmp.Compare(a.Since, b.Since) })
	o.spells = kept[max(len(kept)-offsets.MaxOutages, 0):]
}

// inherit takes over what the last owner of a partition knew. Where nothing is known here yet of how the agent does, one that
// lasted is checked at once, so that a restart in the middle of an outage costs three attempts.
func (o *outage) inherit(now time.Time, known []offsets.Outage) {
	for _, x := range known {
		lasted := x.Until == 0
		x.Since = min(x.Since, now.UnixMilli()) // another host's clock may be ahead
		if x.Until = min(x.Until, now.UnixMilli()); lasted {
			x.Until = now.UnixMilli()
		}
		o.remember(x)
		if lasted && !o.informed && o.stage == calm {
			o.check(now)
			o.start, o.cause = time.UnixMilli(x.Since), failure{}
		}
	}
}

// pause is how long to wait between two probes.
func (o *outage) pause(now time.Time) time.Duration {
	return min(max(now.Sub(o.pace)/probeShare, probeMin), probeMax)
}

// succeeded takes a probe that succeeded. Most of the last distinct tasks may do so long before eight have, where few come;
// those that fail are then the same ones over and over.
func (o *outage) succeeded(now, began time.Time) {
	o.last = now
	if began.After(o.regained) {
		o.regained = began
	}
	if o.stage != recovering {
		o.stage, o.good, o.bad = recovering, 0, 0
	}
	good := 0
	for _, s := range o.samples {
		if s.kind == 0 {
			good++
		}
	}
	if o.good++; o.good >= assurance || 2*good > len(o.samples) {
		o.end(now)
	}
}

// look decides what doesn't come of a result: where nothing is left to try, the rule is content with what it has seen, and
// while it checks, final failures that wait for it get another attempt.
func (o *outage) look(now time.Time) {
	idle := now.Sub(o.last)
	switch {
	case o.probing > 0:
	case o.stage == recovering && idle >= quiet && o.good > o.bad:
		o.end(now)
	case o.stage == recovering && idle >= quiet:
		o.relapse()
	case o.stage == checking && idle >= patience && o.held > 0:
		o.again(now)
	}
}

// end is calm again. What failed meanwhile is tried once more, believed or not.
func (o *outage) end(now time.Time) {
	if o.believed {
		o.spells[len(o.spells)-1].Until = now.UnixMilli()
	} else {
		o.again(now)
	}
	o.able, o.regained = o.regained, time.Time{}
	o.stage, o.believed, o.samples, o.start, o.since = calm, false, nil, time.Time{}, time.Time{}
}

// hurry makes the next probe due: somebody has changed something.
func (o *outage) hurry(now time.Time) {
	if o.stage == out {
		o.next, o.pace = now, now
	}
}

// spares reports whether an attempt that ran from one time to another, in Unix milliseconds, says nothing of its task, and
// in which outage.
func (o *outage) spares(from, to int64) (since int64, ok bool) {
	for i := len(o.spells) - 1; i >= 0; i-- {
		if covers(o.spells[i], from, to) {
			return o.spells[i].Since, true
		}
	}
	return 0, false
}
