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
}

// inherit reads the predecessor's metadata for one unsettled offset. recorded is the attempt that the task's record
// says. A predecessor that ended cleanly leaves no suspects, only attempts that were cut short.
func inherit(m *offsets.Metadata, offset int64, recorded int) inheritance {
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Offset == offset {
			return inheritance{begun: e.Attempt, suspect: !m.Clean, solo: !m.Clean, culprit: !m.Clean && e.Alone}
		}
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
