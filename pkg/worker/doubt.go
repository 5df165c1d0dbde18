package worker

import (
	"slices"
	"time"
)

// A final failure, after which a task has no retry left, is the moment at which an outage may cost an event. So it is settled
// only as far as something speaks against the task:
//
//   - An attempt that began after the task had begun to fail has succeeded: it's that task. It goes at once. Its further
//     failures say nothing of others either, so that what is left of a bad batch doesn't look like an outage.
//   - Nothing has succeeded since, and others fail as well, two tasks alike whose class says that something outside of the
//     agent failed, or nearly all of the last ones in any other class: it's in doubt, and waits. If others succeed then, it was
//     an outage where most had failed; if nothing is heard for a while, or very many wait, the agent is checked like in any
//     other beginning outage. Either way all that wait get another attempt, which burns no retry. So an outage is seen whose
//     tasks are few, and one that is over before it can be checked.
//   - It is alone: nothing is known but its own failures. If their class says that something outside of the agent failed, it
//     waits for as long as it has been failing, at least for a second and at most for a minute, and goes. Where events come so
//     seldom, the first one or two of an outage may be lost.
//   - In any other class it goes at once. An error without a class is the agent's own until nearly all tasks fail by it: who
//     tries an agent with a handful of events that it can't handle wants to see them among the dead letters.
//
// How often a task gets another attempt is bounded: in two doubts, or in maxSpared outages that nearly all of the last tasks
// showed. One that always fails is dead-lettered soon where others succeed now and then.
const (
	// patience is how long nothing must be heard until final failures in doubt are tried again.
	patience = sampleSpell + probeMin
	// longest is how long final failures wait at most, whatever is heard or still runs.
	longest = time.Minute
	// telling is how many tasks that fail alike are a doubt, where their class says that something outside of the agent
	// failed; otherwise it takes sampleAlike.
	telling = 2
	// doubts is in how many of them a task gets another attempt.
	doubts = 2
	// memory is how long a failure tells something of others: of one an hour each is alone.
	memory = 30 * time.Minute
)

// final is a failure that would be its task's last one.
type final struct {
	failure
	// first is when the failures began that count against the task, and at when this one came.
	first, at time.Time
}

// alone is until when it waits if nobody else has anything to say.
func (f final) alone() time.Time {
	return f.at.Add(min(max(f.at.Sub(f.first), quiet), longest))
}

// reprieve is a time whose final failures get another attempt.
type reprieve struct {
	after time.Time // the tasks had begun to fail after that
	until time.Time // and had failed before this
	since time.Time // when the first of them began
	wide  bool      // nearly all of the last tasks failed alike
}

// covers reports whether a failure came in it. One that was found after its host's death has no time.
func (d reprieve) covers(f final) bool {
	return !f.at.IsZero() && f.first.After(d.after) && !f.at.After(d.until)
}

// spare notes in a task's account that it gets another attempt; it refuses where there were too many.
func (d reprieve) spare(a *account) bool {
	since := d.since.UnixMilli()
	if !d.wide && a.outages >= doubts && a.last != since {
		return false
	}
	return a.spare(since)
}

// unproven reports whether a result is a failure that tells something of others: nothing has succeeded that began after it.
func (o *outage) unproven(s sample) bool { return s.kind != 0 && s.first.After(o.able) }

// doubtful reports whether enough tasks have failed alike, and nothing has succeeded since. most says whether they are most
// of the last ones, and wide whether they are nearly all of very many.
func (o *outage) doubtful() (yes, most, wide bool) {
	for i, s := range o.samples {
		if !o.unproven(s) {
			continue
		}
		n, enough := 1, sampleAlike
		if s.class.Outside() {
			enough = telling
		}
		for _, other := range o.samples[i+1:] {
			if other.kind == s.kind && o.unproven(other) {
				n++
			}
		}
		if n >= enough {
			yes, most, wide = true, most || 2*n > len(o.samples), wide || n >= sampleAlike
		}
	}
	return yes, most, wide
}

// proven takes a success. Where most had failed until now, that was an outage, over before it could be checked.
func (o *outage) proven(now, began time.Time) {
	if !began.After(o.able) || len(o.samples) == 0 {
		return
	}
	if o.since.After(began) {
		o.able = began // it says nothing of the failures
		return
	}
	if _, most, _ := o.doubtful(); most {
		o.again(now)
	}
	o.able = began
	o.since = time.Time{}
	for _, s := range o.samples {
		if o.unproven(s) {
			o.since = earlier(o.since, s.first)
		}
	}
}

// unexplained takes a failure of a task that began to fail at a time.
func (o *outage) unexplained(first time.Time) {
	if !slices.ContainsFunc(o.samples, o.unproven) {
		o.since = time.Time{}
	}
	o.since = earlier(o.since, first)
}

// again gives the final failures that have come until now another attempt.
func (o *outage) again(now time.Time) {
	_, _, wide := o.doubtful()
	d := reprieve{after: o.able, until: now, since: earlier(o.start, o.since), wide: wide}
	if o.held > 0 && o.reprieve.after.Before(d.after) {
		d.after = o.reprieve.after // some may still wait for that one
	}
	o.reprieve, o.last = d, now
}

// lapse checks whether there is an outage where nothing else tells: nothing is heard and nothing runs while final failures
// in doubt wait, or the oldest of them has waited for too long.
func (o *outage) lapse(now, oldest time.Time, running int) {
	if o.stage != calm {
		return
	}
	silent := running == 0 && now.Sub(o.last) >= patience
	if !silent && now.Sub(oldest) < longest {
		return
	}
	if yes, _, _ := o.doubtful(); yes {
		o.check(now)
		o.again(now)
	}
}

// outlook is what the rule makes of a final failure. While it is the same, only time changes that.
type outlook struct {
	believed, calm, doubtful bool
	able                     time.Time
	reprieve                 reprieve
}

// outlook is the present one.
func (o *outage) outlook() outlook {
	l := outlook{believed: o.believed, calm: o.stage == calm, able: o.able, reprieve: o.reprieve}
	if l.calm {
		l.doubtful, _, _ = o.doubtful()
	}
	return l
}

// waits reports whether a final failure waits, and until when it does if nothing else happens; zero: it's for the rule to say.
func (l outlook) waits(f final, now time.Time) (yes bool, until time.Time) {
	switch {
	case f.kind == 0 || f.at.IsZero() || l.believed || l.reprieve.covers(f):
		return false, time.Time{}
	case !l.calm:
		return true, time.Time{}
	case !f.first.After(l.able):
		return false, time.Time{}
	case l.doubtful:
		return true, time.Time{}
	case !f.class.Outside():
		return false, time.Time{}
	}
	until = f.alone()
	return now.Before(until), until
}
