package redrive

import "fmt"

const (
	// first is how many tasks of one failure are redriven before any of them has ended.
	first = 5
	// widest is how many of them may be under way.
	widest = 4096
	// hopeless is how many more tasks have to come back with the failure that they had than are completed, before the rest
	// of them stays where it is; with another failure it takes twice as many.
	hopeless = 5
)

// end is how a redriven task ended.
type end int

const (
	completed end = iota
	same          // dead, with the failure that it had
	other         // dead, with another one
	gone          // cancelled or discarded
)

// Pace decides for the tasks of one failure how many may be under way. The zero value is where it begins.
type Pace struct {
	// Singly lets them go one by one until the first is completed.
	Singly bool

	Moved, Completed, Same, Other int
	underway, grown               int
	bad, worse                    int // how many more came back than were completed, with the same failure and at all
}

// Room is how many more may be redriven now. Those that came back as they were hold their places until others are completed:
// without any success no more than the first few are ever redriven.
func (p *Pace) Room() int {
	if p.Hopeless() {
		return 0
	}
	if p.Singly && p.Completed == 0 {
		return max(1-p.underway, 0)
	}
	return max(min(first+p.grown, widest)-p.underway-p.bad, 0)
}

// Hopeless reports whether no more of them should be redriven.
func (p *Pace) Hopeless() bool { return p.bad >= hopeless || p.worse >= 2*hopeless }

// Move notes that one is under way.
func (p *Pace) Move() { p.Moved, p.underway = p.Moved+1, p.underway+1 }

// takeBack takes a Move back: nothing was redriven.
func (p *Pace) takeBack() { p.Moved, p.underway = p.Moved-1, p.underway-1 }

// End notes how one ended: each that is completed makes room for two, and each that comes back dead halves what has grown.
func (p *Pace) End(how end) {
	p.underway--
	switch how {
	case completed:
		p.Completed++
		p.grown = min(p.grown+1, widest)
		p.bad, p.worse = max(p.bad-1, 0), max(p.worse-1, 0)
	case same:
		p.Same++
		p.grown /= 2
		p.bad, p.worse = p.bad+1, p.worse+1
	case other:
		p.Other++
		p.grown /= 2
		p.worse++
	case gone:
	}
}

// Reason says why no more are redriven; "" where it isn't hopeless.
func (p *Pace) Reason(example string) string {
	if !p.Hopeless() {
		return ""
	}
	what := "with the failure that they had"
	if p.bad < hopeless {
		what = "with the same or another failure"
	}
	return fmt.Sprintf("%d of %d redriven tasks came back dead %s (%s)", p.Same+p.Other, p.Moved, what, example)
}
