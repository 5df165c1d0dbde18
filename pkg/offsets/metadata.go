package offsets

import "slices"

const (
	// Window is how far beyond the lowest unsettled offset work may start.
	Window = 16_384
	// MaxEntries is how many tasks of a partition may be on a later attempt than their record says.
	MaxEntries = 64
	// MaxBytes is the length that an encoded Metadata never exceeds.
	MaxBytes = 4_096
	// MaxNode is the longest node name, in bytes.
	MaxNode = 100
	// MaxAttempt is the highest attempt that an entry can hold; higher ones are written as this.
	MaxAttempt = 1<<20 - 1
	// MaxBurnt is the highest count of used up retries that an entry can keep; higher ones are written as this.
	MaxBurnt = 1<<11 - 1
	// MaxTimeouts is the same of timeouts.
	MaxTimeouts = 3
	// MaxOutages is how many outages are remembered.
	MaxOutages = 4
)

// Metadata is what a commit says besides its offset L. The zero value is that of a partition that nobody has touched.
type Metadata struct {
	Clean bool
	// Strict says that the writer starts no task behind an unsettled one of its key, so that none has begun there.
	Strict  bool
	TopicID [16]byte
	Node    string
	// Reserved and Suspects are offsets, not distances; a value of L or less means none.
	Reserved int64
	Suspects int64
	Passed   Count
	Outages  []Outage // of the agent, the latest MaxOutages, ascending
	Entries  []Entry  // ascending by offset, all in [L, L+Window)
	Settled  Set      // relative to L
	// Far is what is settled of a topic that isn't worked through in order, however far beyond L: of dead letters. It takes
	// the place of Settled, and may make the metadata too long; see Fits.
	Far Runs
}

// Count is how many records were passed on since a time. It rides with the commits that pass them on, so it is exact, and
// each owner of the partition goes on where the last one stopped. The zero value counts nothing. On a dead-letter topic it is
// how many an order has moved, and Since is the order's; see Ledger.Count.
type Count struct {
	Since int64 // Unix milliseconds; tells a count from one that begins anew because the commits before were lost
	N     int64
	Over  int64 // records of a user topic that were passed over: nothing was made of them
}

// Outage is a time in which nothing of the agent succeeded, in Unix milliseconds. Until is 0 while it lasts.
type Outage struct{ Since, Until int64 }

// Entry is a task whose attempt is another than its record says.
type Entry struct {
	Offset    int64
	Attempt   int   // the last one that began, from 1
	NotBefore int64 // Unix milliseconds; 0: at once
	Alone     bool  // it was started with nothing beside it, so a death of its host is its own
	// Kept says that attempts of the task were settled which its record doesn't know of. Then these count, not the record:
	// the retries that are used up, the attempts that timed out (of more than MaxTimeouts nobody has to know), and when the
	// first one failed, in Unix milliseconds, 0 where there was no room for it.
	Kept        bool
	Burnt       int
	Timeouts    int
	FirstFailed int64
}

// From is what metadata written for a commit at l says of the part from a later offset on.
func (m Metadata) From(l, offset int64) Metadata {
	m.Far = m.Far.from(offset)
	settled := m.Settled
	m.Settled, m.Entries = nil, slices.DeleteFunc(slices.Clone(m.Entries), func(e Entry) bool { return e.Offset < offset })
	for i := offset - l; i < int64(len(settled))*64; i++ {
		if settled.Has(i) {
			m.Settled.Add(i - (offset - l))
		}
	}
	return m
}

// Below is what metadata written for a commit at l says of the part below an end: the log has lost what was there from it on.
func (m Metadata) Below(l, end int64) Metadata {
	m.Reserved, m.Suspects = min(m.Reserved, end), min(m.Suspects, end)
	m.Far = m.Far.below(end)
	settled := m.Settled
	m.Settled, m.Entries = nil, slices.DeleteFunc(slices.Clone(m.Entries), func(e Entry) bool { return e.Offset >= end })
	for i := range min(end-l, int64(len(settled))*64) {
		if settled.Has(i) {
			m.Settled.Add(i)
		}
	}
	return m
}

// Reach is the offset behind the last one that metadata written for a commit at l says to be settled, or names; l where there
// is none.
func (m Metadata) Reach(l int64) int64 {
	reach := l
	for i := int64(len(m.Settled))*64 - 1; i >= 0; i-- {
		if m.Settled.Has(i) {
			reach = l + i + 1
			break
		}
	}
	if n := len(m.Entries); n > 0 {
		reach = max(reach, m.Entries[n-1].Offset+1)
	}
	if n := len(m.Far); n > 0 {
		reach = max(reach, m.Far[n-1].To)
	}
	return reach
}
