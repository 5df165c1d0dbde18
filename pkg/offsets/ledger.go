package offsets

// Ledger is what is settled of a partition that is worked through in any order, such as dead letters that people redrive and
// purge as they like: everything below Low, and the runs beyond it. It is a value: settling gives another one.
type Ledger struct {
	Low     int64
	Settled Runs
	// Counted is how much one piece of work has settled so far, whose id is Since: whoever goes on with it goes on counting.
	Counted Count
}

// LedgerAt is the ledger that a commit says.
func LedgerAt(at int64, m Metadata) Ledger {
	low, settled := m.Far.above(at)
	return Ledger{low, settled, m.Passed}
}

// Open reports whether what stands at an offset isn't settled.
func (l Ledger) Open(offset int64) bool { return offset >= l.Low && !l.Settled.Has(offset) }

// Settle settles [from, to).
func (l Ledger) Settle(from, to int64) Ledger {
	low, settled := l.Settled.Add(max(from, l.Low), to).above(l.Low)
	return Ledger{low, settled, l.Counted}
}

// Count adds n to what the work with an id, which isn't 0, has settled. Of another work the count is forgotten.
func (l Ledger) Count(id, n int64) Ledger {
	l.Counted = Count{Since: id, N: l.CountOf(id) + n}
	return l
}

// CountOf is how much the work with an id has settled.
func (l Ledger) CountOf(id int64) int64 {
	if l.Counted.Since != id {
		return 0
	}
	return l.Counted.N
}

// Within counts the offsets of [from, to) that are open.
func (l Ledger) Within(from, to int64) int64 {
	if from = max(from, l.Low); from >= to {
		return 0
	}
	n := to - from
	for _, r := range l.Settled {
		n -= max(0, min(r.To, to)-max(r.From, from))
	}
	return n
}

// Below forgets what is settled from an end on: the log has lost what was there.
func (l Ledger) Below(end int64) Ledger {
	return Ledger{min(l.Low, end), l.Settled.below(end), l.Counted}
}
