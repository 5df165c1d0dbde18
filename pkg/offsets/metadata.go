package offsets

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

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

const (
	version1   = 1
	version2   = 2 // version 1 and Passed
	version3   = 3 // version 2 and what entries keep of a task's attempts
	version4   = 4 // version 2 with Far in place of Settled
	version5   = 5 // version 2 and Passed.Over
	flagClean  = 1
	flagStrict = 2
	flagSince  = 4
	flagOutage = 8
	kindRuns   = 'r'
	kindBitmap = 'b'
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
// each owner of the partition goes on where the last one stopped. The zero value counts nothing.
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

// Set is a set of offsets in [L, L+Window): bit i of word i/64 stands for L+i. The zero value is empty.
type Set []uint64

// Has reports whether the offset L+i is in the set.
func (s Set) Has(i int64) bool {
	return i >= 0 && i < int64(len(s))*64 && s[i/64]&(1<<(i%64)) != 0
}

// Add puts L+i into the set.
func (s *Set) Add(i int64) {
	for int64(len(*s))*64 <= i {
		*s = append(*s, 0)
	}
	(*s)[i/64] |= 1 << (i % 64)
}

// Len counts the offsets in the set.
func (s Set) Len() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Encode writes the metadata of a commit at offset l. It drops what lies outside the window and entries beyond
// MaxEntries, which the tracker never lets happen. The times of the first failures are left out where they would make it
// longer than MaxBytes: nothing depends on them.
func (m *Metadata) Encode(l int64) string {
	since := slices.ContainsFunc(m.Entries, func(e Entry) bool { return e.Kept })
	kept := since || len(m.Outages) > 0
	b := m.append(make([]byte, 0, 128), l, kept, since)
	if since && base64.RawURLEncoding.EncodedLen(len(b)) > MaxBytes {
		b = m.append(b[:0], l, kept, false)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// append writes the bytes, as version 3 where entries keep something or there were outages.
func (m *Metadata) append(b []byte, l int64, kept, since bool) []byte {
	b = append(b, version1, 0)
	far := len(m.Far) > 0 && !kept             // of dead letters no attempts are kept
	over := m.Passed.Over > 0 && !kept && !far // neither is there on user topics
	counts := m.Passed.Since > 0 || kept || far || over
	switch {
	case over:
		b[0] = version5
	case far:
		b[0] = version4
	case kept:
		b[0] = version3
	case counts:
		b[0] = version2
	}
	if m.Clean {
		b[1] |= flagClean
	}
	if m.Strict {
		b[1] |= flagStrict
	}
	if since {
		b[1] |= flagSince
	}
	b = append(b, m.TopicID[:]...)
	node := m.Node[:min(len(m.Node), MaxNode)]
	b = binary.AppendUvarint(b, uint64(len(node)))
	b = append(b, node...)
	b = binary.AppendUvarint(b, distance(l, m.Reserved))
	b = binary.AppendUvarint(b, distance(l, m.Suspects))
	if counts {
		b = binary.AppendUvarint(b, uint64(max(m.Passed.Since, 0)))
		b = binary.AppendUvarint(b, uint64(max(m.Passed.N, 0)))
	}
	if kept && len(m.Outages) > 0 {
		b[1] |= flagOutage
		b = appendOutages(b, m.Outages[max(len(m.Outages)-MaxOutages, 0):])
	}
	if over {
		b = binary.AppendUvarint(b, uint64(m.Passed.Over))
	}
	entries := m.Entries[:min(len(m.Entries), MaxEntries)]
	b = binary.AppendUvarint(b, uint64(len(entries)))
	previous := l
	for _, e := range entries {
		b = binary.AppendUvarint(b, uint64(e.Offset-previous))
		previous = e.Offset
		a := uint64(min(e.Attempt, MaxAttempt)) << 1
		if e.Alone {
			a |= 1
		}
		b = binary.AppendUvarint(b, a)
		b = binary.AppendUvarint(b, uint64(max(e.NotBefore, 0)))
		if kept {
			b = e.append(b, since)
		}
	}
	if far {
		return m.Far.append(b, l)
	}
	return m.Settled.append(b)
}

// appendOutages writes each as its begin and, but for one that lasts, one more than its length.
func appendOutages(b []byte, all []Outage) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, o := range all {
		b = binary.AppendUvarint(b, uint64(max(o.Since, 0)))
		if o.Until == 0 {
			b = append(b, 0)
		} else {
			b = binary.AppendUvarint(b, uint64(max(o.Until-max(o.Since, 0), 0))+1)
		}
	}
	return b
}

// Fits reports whether Kafka takes an encoded Metadata. All do but those whose Far is scattered over very much.
func Fits(encoded string) bool { return len(encoded) <= MaxBytes }

// append writes what an entry keeps: 0, or one more than the counts, then the time where times are written.
func (e *Entry) append(b []byte, since bool) []byte {
	if !e.Kept {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(min(e.Burnt, MaxBurnt)<<2|min(e.Timeouts, MaxTimeouts))+1)
	if since {
		b = binary.AppendUvarint(b, uint64(max(e.FirstFailed, 0)))
	}
	return b
}

func distance(l, mark int64) uint64 { return uint64(min(max(mark-l, 0), Window)) }

// append writes the shorter of runs and bitmap.
func (s Set) append(b []byte) []byte {
	for len(s) > 0 && s[len(s)-1] == 0 {
		s = s[:len(s)-1]
	}
	if len(s) == 0 {
		return b
	}
	bitmap := (len(s)-1)*8 + (bits.Len64(s[len(s)-1])+7)/8
	start := len(b)
	b = append(b, kindRuns)
	for at, end := int64(0), int64(0); ; {
		from := s.next(at, true)
		if from < 0 {
			return b
		}
		at = s.next(from, false)
		b = binary.AppendUvarint(b, uint64(from-end))
		b = binary.AppendUvarint(b, uint64(at-from))
		end = at
		if len(b)-start-1 > bitmap {
			break
		}
	}
	b = append(b[:start], kindBitmap)
	for i := range bitmap {
		b = append(b, byte(s[i/8]>>(8*(i%8))))
	}
	return b
}

// next finds the first position from at whose bit is v; without one it is -1 for true and the length for false.
func (s Set) next(at int64, v bool) int64 {
	for i := at / 64; i < int64(len(s)); i++ {
		w := s[i]
		if !v {
			w = ^w
		}
		if i == at/64 {
			w &= ^uint64(0) << (at % 64)
		}
		if w != 0 {
			return i*64 + int64(bits.TrailingZeros64(w))
		}
	}
	if v {
		return -1
	}
	return int64(len(s)) * 64
}

// ErrFormat is the error of metadata that Reeve didn't write, or a later version did.
var ErrFormat = errors.New("unreadable commit metadata")

// Decode reads the metadata of a commit at offset l. An empty string is an empty Metadata.
func Decode(l int64, s string) (Metadata, error) {
	var m Metadata
	if s == "" {
		return m, nil
	}
	if len(s) > MaxBytes {
		return m, fmt.Errorf("%w: %d bytes", ErrFormat, len(s))
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	d := decoder{b: b}
	v := d.byte()
	if v < version1 || v > version5 {
		return Metadata{}, fmt.Errorf("%w: version %d, this program reads %d to %d", ErrFormat, v, version1, version5)
	}
	flags := d.byte()
	m.Clean, m.Strict = flags&flagClean != 0, flags&flagStrict != 0
	copy(m.TopicID[:], d.bytes(16))
	m.Node = string(d.bytes(d.upTo(MaxNode)))
	m.Reserved = l + int64(d.upTo(Window))
	m.Suspects = l + int64(d.upTo(Window))
	if v >= version2 {
		m.Passed = Count{Since: int64(d.upTo(1 << 62)), N: int64(d.upTo(1 << 62))}
	}
	if v == version3 && flags&flagOutage != 0 {
		m.Outages = d.outages()
	}
	if v == version5 {
		m.Passed.Over = int64(d.upTo(1 << 62))
	}
	m.Entries = d.entries(l, v == version3, flags&flagSince != 0)
	if v == version4 {
		m.Far = d.runs(l)
	} else {
		m.Settled = d.set()
	}
	if d.failed {
		return Metadata{}, fmt.Errorf("%w: damaged", ErrFormat)
	}
	return m, nil
}

// decoder takes bytes apart; after the first failure everything it gives is zero.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.failed, d.b = true, nil
		return nil
	}
	head := d.b[:n]
	d.b = d.b[n:]
	return head
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.failed, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) upTo(limit uint64) uint64 {
	v := d.uvarint()
	if v > limit {
		d.failed, d.b = true, nil
		return 0
	}
	return v
}

func (d *decoder) outages() []Outage {
	var all []Outage
	for range d.upTo(MaxOutages) {
		o := Outage{Since: int64(d.upTo(1 << 61))}
		if n := d.upTo(1 << 61); n > 0 {
			o.Until = o.Since + int64(n) - 1
		}
		all = append(all, o)
	}
	return all
}

func (d *decoder) entries(l int64, kept, since bool) []Entry {
	n := d.upTo(MaxEntries)
	if n == 0 {
		return nil
	}
	es := make([]Entry, 0, n)
	at := l
	for i := range n {
		step := d.upTo(Window)
		at += int64(step)
		a := d.upTo(MaxAttempt<<1 | 1)
		e := Entry{Offset: at, Attempt: int(a >> 1), Alone: a&1 != 0, NotBefore: int64(d.upTo(1 << 62))}
		if kept {
			d.kept(&e, since)
		}
		es = append(es, e)
		if i > 0 && step == 0 || at >= l+Window {
			d.failed = true
		}
	}
	return es
}

func (d *decoder) kept(e *Entry, since bool) {
	counts := d.upTo(MaxBurnt<<2 | MaxTimeouts + 1)
	if counts == 0 {
		return
	}
	counts--
	e.Kept, e.Burnt, e.Timeouts = true, int(counts>>2), int(counts&MaxTimeouts)
	if since {
		e.FirstFailed = int64(d.upTo(1 << 62))
	}
}

func (d *decoder) set() Set {
	if len(d.b) == 0 {
		return nil
	}
	var s Set
	switch d.byte() {
	case kindBitmap:
		if len(d.b) > Window/8 {
			d.failed = true
			return nil
		}
		for i, b := range d.b {
			for ; b != 0; b &= b - 1 {
				s.Add(int64(i)*8 + int64(bits.TrailingZeros8(b)))
			}
		}
	case kindRuns:
		for at := uint64(0); len(d.b) > 0; {
			at += d.upTo(Window)
			n := d.upTo(Window)
			if at+n > Window {
				d.failed = true
				return nil
			}
			for range n {
				s.Add(int64(at))
				at++
			}
		}
	default:
		d.failed = true
	}
	return s
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
