package deliver

import (
	"cmp"
	"slices"
	"time"
)

const (
	// perEndpoint is how many webhooks are in flight to one endpoint, inFlight to all.
	perEndpoint = 8
	inFlight    = 512
	// repeatable is how many of an endpoint's are in flight, or sent and not settled: after a crash these are sent again. A
	// broker that is slow slows the sending, rather than that it makes them more.
	repeatable = 3 * perEndpoint
	// queued is how many wait in memory for a place at an endpoint, and patience for how long. What finds no place is put
	// off: it waits on Kafka, and the window of its partition moves on.
	queued   = 1_000
	patience = 5 * time.Second
	// downAfter is how many failures in a row make an endpoint count as down: it is tried by one webhook at a time then.
	downAfter = 5
	// longDown is after how long a person is told.
	longDown = 5 * time.Minute
)

// endpoint is who is at the other end of some URLs, as this process has seen it. The Deliverer's lock guards it.
type endpoint struct {
	name     string
	queue    []*item
	running  int
	sent     int       // and not settled yet
	failures int       // in a row
	since    time.Time // when the first of them was
	message  string    // of the last one
	heard    time.Time // when it was last tried
}

// down reports whether it doesn't answer as it should for some time.
func (e *endpoint) down() bool { return e.failures >= downAfter }

// places is how many more webhooks may be in flight to it.
func (e *endpoint) places() int {
	most := perEndpoint
	if e.down() {
		most = 1
	}
	return min(most, repeatable-e.sent) - e.running
}

// full reports whether another webhook would wait in vain.
func (e *endpoint) full() bool {
	if e.down() {
		return e.running+len(e.queue) > 0
	}
	return len(e.queue) >= queued
}

// judged learns from how a try was judged.
func (e *endpoint) judged(v Verdict, status int, now time.Time) {
	e.heard = now
	switch {
	case v.State == Delivered || status >= 200 && status < 500 && status != 429: // it answers, whatever it thinks of this one
		e.failures, e.since, e.message = 0, time.Time{}, ""
	default:
		if e.failures++; e.failures == 1 {
			e.since = now
		}
		e.message = v.Message
	}
}

const (
	// remember is for how long the failures of an endpoint are remembered that isn't tried any more.
	remember = 3 * time.Hour
	// remembered is of how many such endpoints: events may name any number. One that is forgotten is taken for well, so that
	// it is sent eight webhooks at a time until five have failed once more.
	remembered = 1_000
)

// idle reports whether nothing need be remembered of it.
func (e *endpoint) idle(now time.Time) bool {
	return e.quiet() && (e.failures == 0 || now.Sub(e.heard) > remember)
}

// quiet reports whether nothing of it is under way or waits here.
func (e *endpoint) quiet() bool { return e.running+e.sent == 0 && len(e.queue) == 0 }

// surplus are the endpoints to forget so that at most so many quiet ones are left: first those that have failed a few times
// only, since people are told of the others and one webhook at a time goes there; of like ones those that were tried longest
// ago.
func surplus(all map[string]*endpoint, most int) []*endpoint {
	var quiet []*endpoint
	for _, e := range all {
		if e.quiet() {
			quiet = append(quiet, e)
		}
	}
	if len(quiet) <= most {
		return nil
	}
	rank := func(e *endpoint) int {
		if e.down() {
			return 1
		}
		return 0
	}
	slices.SortFunc(quiet, func(a, b *endpoint) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), a.heard.Compare(b.heard)) })
	return quiet[:len(quiet)-most]
}
