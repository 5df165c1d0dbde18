package fleet

import "time"

// bound is the most tasks that dispatchers have seen unsettled on an agent's task topic lately; each of them looks at all. A
// worker's commit shows there before the history has its outcomes, so that what was seen last alone would make finished
// tasks vanish until they are projected.
type bound struct {
	begun, since time.Time // of the first look, and of those in now
	now, before  int64
}

// lately is how far the history may be behind the task topic.
const lately = 10 * time.Second

// add takes a look.
func (b *bound) add(unsettled int64, at time.Time) {
	switch {
	case b.old(at): // those of long ago tell nothing
		b.since, b.before, b.now = at, unsettled, unsettled
	case at.Sub(b.since) >= lately:
		b.since, b.before, b.now = at, b.now, unsettled
	default:
		b.now = max(b.now, unsettled)
	}
}

// old reports whether looks are too long ago to tell anything.
func (b *bound) old(now time.Time) bool { return now.Sub(b.since) >= 2*lately }

// get is the bound; nil where there is none, or looks are too few or too old to tell.
func (b *bound) get(now time.Time) *int64 {
	if b == nil || b.since.Sub(b.begun) < lately || b.old(now) {
		return nil
	}
	most := max(b.now, b.before)
	return &most
}
