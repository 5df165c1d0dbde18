package offsets

import "math/bits"

// Tracker tracks one partition: which offsets were delivered and which of them are settled. Offsets that are never
// delivered (aborted records) leave gaps, which count as settled once a later offset was delivered.
//
// It is not safe for concurrent use. Memory grows with the span in use, up to 8 KiB.
type Tracker struct {
	low  int64 // lowest unsettled offset: all below it are settled
	next int64 // one past the highest delivered offset
	// Rings of bits, indexed by offset modulo their length. Bits outside [low, low+len) are zero.
	delivered, settled []uint64
}

// NewTracker starts at a committed offset; settled says what is settled beyond it (not delivered yet).
func NewTracker(low int64, settled Set) *Tracker {
	t := &Tracker{low: low, next: low}
	t.grow(max(int64(len(settled))*64, 64))
	for i := range int64(len(settled)) * 64 {
		if settled.Has(i) && i < Window {
			t.set(t.settled, low+i, true)
		}
	}
	return t
}

// Low is the lowest unsettled offset: what a commit would say.
func (t *Tracker) Low() int64 { return t.low }

// Next is one past the highest delivered offset.
func (t *Tracker) Next() int64 { return t.next }

// Fits reports whether an offset lies within the window, so that it may be delivered.
func (t *Tracker) Fits(offset int64) bool { return offset < t.low+Window }

// Deliver notes that an offset was delivered. It reports false for one that is settled already or was delivered before;
// such a record is to be dropped. The offset must fit.
func (t *Tracker) Deliver(offset int64) bool {
	if offset < t.next {
		return false
	}
	t.grow(offset - t.low + 1)
	t.next = offset + 1
	t.set(t.delivered, offset, true)
	return !t.get(t.settled, offset)
}

// Settle marks a delivered offset, Unsettle takes that back after a failed transaction. Neither moves Low: that is for
// Advance, once the transaction is committed.
//
// An offset below Low is left alone. What is read again after a lost partition came back may lie there, and its bit in
// the ring is that of a later offset, whose record would be dropped as settled.
func (t *Tracker) Settle(offset int64) { t.mark(offset, true) }

// Unsettle takes back a Settle.
func (t *Tracker) Unsettle(offset int64) { t.mark(offset, false) }

func (t *Tracker) mark(offset int64, settled bool) {
	if offset >= t.low {
		t.set(t.settled, offset, settled)
	}
}

// Settled reports whether an offset at or above Low is settled.
func (t *Tracker) Settled(offset int64) bool {
	return offset < t.low || offset < t.low+int64(len(t.settled))*64 && t.get(t.settled, offset)
}

// Position is the offset that a commit of everything settled says, with the settled offsets beyond it.
func (t *Tracker) Position() (int64, Set) {
	low := t.firstOpen()
	var s Set
	end := t.low + int64(len(t.settled))*64
	for o := low; o < end; o += 64 {
		w := t.word(t.settled, o)
		if rest := end - o; rest < 64 {
			w &= 1<<rest - 1
		}
		s = append(s, w)
	}
	for len(s) > 0 && s[len(s)-1] == 0 {
		s = s[:len(s)-1]
	}
	return low, s
}

// Advance moves Low past what is settled. It is called when a commit of Position was confirmed.
func (t *Tracker) Advance() {
	low := t.firstOpen()
	for t.low < low {
		if t.low%64 == 0 && low-t.low >= 64 {
			i := t.index(t.low)
			t.delivered[i], t.settled[i] = 0, 0
			t.low += 64
			continue
		}
		t.set(t.delivered, t.low, false)
		t.set(t.settled, t.low, false)
		t.low++
	}
}

// Jump forgets everything below an offset: its records are gone from the log.
func (t *Tracker) Jump(low int64) {
	if low <= t.low {
		return
	}
	if low >= t.low+int64(len(t.settled))*64 {
		clear(t.delivered)
		clear(t.settled)
		t.low, t.next = low, max(low, t.next)
		return
	}
	for ; t.low < low; t.low++ {
		t.set(t.delivered, t.low, false)
		t.set(t.settled, t.low, false)
	}
	t.next = max(low, t.next)
}

// firstOpen finds the lowest offset that was delivered and isn't settled, or next.
func (t *Tracker) firstOpen() int64 {
	for o := t.low; o < t.next; o += 64 {
		open := t.word(t.delivered, o) &^ t.word(t.settled, o)
		if open != 0 {
			return min(o+int64(bits.TrailingZeros64(open)), t.next)
		}
	}
	return t.next
}

// word reads the 64 bits from an offset on.
func (t *Tracker) word(ring []uint64, offset int64) uint64 {
	i, shift := t.index(offset), offset%64
	w := ring[i] >> shift
	if shift > 0 {
		w |= ring[(i+1)%len(ring)] << (64 - shift)
	}
	return w
}

func (t *Tracker) index(offset int64) int { return int(offset/64) & (len(t.settled) - 1) }

func (t *Tracker) get(ring []uint64, offset int64) bool {
	return ring[t.index(offset)]&(1<<(offset%64)) != 0
}

func (t *Tracker) set(ring []uint64, offset int64, v bool) {
	if v {
		ring[t.index(offset)] |= 1 << (offset % 64)
	} else {
		ring[t.index(offset)] &^= 1 << (offset % 64)
	}
}

// grow makes room for a span of offsets from low on. One spare word keeps an unaligned span from meeting itself.
func (t *Tracker) grow(span int64) {
	words := len(t.settled)
	if span+64 <= int64(words)*64 {
		return
	}
	bigger := max(words, 2)
	for int64(bigger)*64 < span+64 {
		bigger *= 2
	}
	old := *t
	t.delivered, t.settled = make([]uint64, bigger), make([]uint64, bigger)
	for o := old.low; o < old.low+int64(words)*64; o++ {
		if i := old.index(o); words > 0 {
			bit := uint64(1) << (o % 64)
			if old.delivered[i]&bit != 0 {
				t.set(t.delivered, o, true)
			}
			if old.settled[i]&bit != 0 {
				t.set(t.settled, o, true)
			}
		}
	}
}
