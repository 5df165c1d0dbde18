package worker

import (
	"time"

	"github.com/reeve-run/reeve/pkg/offsets"
)

// aheadMin is how many offsets of a partition are reserved beyond the last started one at least.
const aheadMin = 4

// reserveTo is the mark that the next commit reserves: what is wanted now, and as much again as has started since the
// last commit, twice, so that a busy partition seldom waits; never beyond the window. It doesn't shrink.
func reserveTo(low, reserved, highest int64, startedSince int) int64 {
	mark := highest + 1 + aheadMin + 2*int64(startedSince)
	return max(reserved, min(mark, low+offsets.Window))
}

// inheritance is what a new owner makes of one unsettled task of its predecessor.
type inheritance struct {
	begun   int  // last attempt that may have begun; 0: none
	suspect bool // it may have killed its owner
	culprit bool // it did: it ran alone
}

// inherit reads the predecessor's metadata for one unsettled offset. recorded is the attempt that the task's record
// says. A predecessor that ended cleanly leaves no suspects, only attempts that were cut short.
func inherit(m *offsets.Metadata, offset int64, recorded int) inheritance {
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Offset == offset {
			return inheritance{begun: e.Attempt, suspect: !m.Clean, culprit: !m.Clean && e.Alone}
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
