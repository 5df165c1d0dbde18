package offsets

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

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
