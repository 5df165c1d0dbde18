package worker

import (
	"time"

	"github.com/reeve-run/reeve/pkg/offsets"
)

// aheadMin is how many offsets of a partition are reserved beyond the last started one at least.
const aheadMin = 4

// reserveTo is the mark that the next commit reserves: what is wanted now, and as much ahead as the partition's pace
// needs, so that a busy one seldom waits; never beyond the window. It doesn't shrink.
func reserveTo(low, reserved, highest int64, pace int) int64 {
	return max(reserved, min(highest+1+aheadMin+4*int64(pace), low+offsets.Window))
}

// paceOf is a partition's pace in starts per commit: it rises at once and falls slowly, since commits and starts
// alternate unevenly.
func paceOf(before, started int) int { return max(started, before*7/8) }

// inheritance is what a new owner makes of one unsettled task of its predecessor.
type inheritance struct {
	begun   int  // last attempt that may have begun; 0: none
	suspect bool // it may have killed its owner
	solo    bool // it was on trial when its owner died: the next trial is its own
	culprit bool // it did: it ran alone
	// kept is the entry of a task whose failed attempts its record doesn't know of.
	kept *offsets.Entry
}

// inherit reads the predecessor's metadata for one unsettled offset. recorded is the attempt that the task's record
// says; behind says that an unsettled task of the same key comes before it. A predecessor that ended cleanly leaves no
// suspects, only attempts that were cut short. A task that waited for its next attempt was in nobody's way either.
func inherit(m *offsets.Metadata, offset int64, recorded int, behind bool) (i inheritance) {
	for n := range m.Entries {
		e := &m.Entries[n]
		if e.Offset != offset {
			continue
		}
		if e.Kept {
			i.kept = e
		}
		i.begun = e.Attempt
		i.suspect = !m.Clean && e.NotBefore == 0
		i.solo, i.culprit = i.suspect, i.suspect && e.Alone
		return i
	}
	if behind && m.Strict {
		return inheritance{}
	}
	if offset < m.Suspects || !m.Clean && offset < m.Reserved {
		return inheritance{begun: recorded, suspect: !m.Clean}
	}
	return inheritance{}
}

// probation is how long a suspect runs alone before the next one joins it. It grows with each host that the task has
// seen die, so that one that kills late is found too.
func probation(begun, recorded int) time.Duration {
	return time.Second << min(3*max(begun-recorded, 0), 12)
}
