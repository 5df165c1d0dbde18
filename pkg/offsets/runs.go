package offsets

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"slices"
)

// Range is the offsets from From up to, and without, To.
type Range struct{ From, To int64 }

// Runs are ranges of offsets, ascending and apart from each other. Unlike a Set they reach as far as a log does: what is
// settled of a dead-letter topic may lie anywhere in it. The zero value is empty.
type Runs []Range

// Has reports whether an offset is in one of the ranges.
func (rs Runs) Has(offset int64) bool {
	i := rs.search(offset)
	return i < len(rs) && rs[i].From <= offset
}

// search finds the first range that ends behind an offset.
func (rs Runs) search(offset int64) int {
	i, _ := slices.BinarySearchFunc(rs, offset, func(r Range, o int64) int {
		if r.To <= o {
			return -1
		}
		return 1
	})
	return i
}

// Add puts a range in and gives what becomes of the runs; these stay as they are.
func (rs Runs) Add(from, to int64) Runs {
	if from >= to {
		return rs
	}
	i := rs.search(from - 1) // one that ends where this begins belongs to it
	j := i
	for ; j < len(rs) && rs[j].From <= to; j++ {
		from, to = min(from, rs[j].From), max(to, rs[j].To)
	}
	out := make(Runs, 0, len(rs)+1)
	out = append(append(out, rs[:i]...), Range{from, to})
	return append(out, rs[j:]...)
}

// above cuts off what lies below l, and moves l behind the range that it lies in.
func (rs Runs) above(l int64) (int64, Runs) {
	for len(rs) > 0 && rs[0].From <= l {
		l, rs = max(l, rs[0].To), rs[1:]
	}
	return l, rs
}

// from cuts off what lies below an offset.
func (rs Runs) from(offset int64) Runs {
	rs = slices.Clone(rs[rs.search(offset):])
	if len(rs) > 0 {
		rs[0].From = max(rs[0].From, offset)
	}
	return rs
}

// below cuts off what lies from an end on.
func (rs Runs) below(end int64) Runs {
	i := rs.search(end)
	out := slices.Clone(rs[:i])
	if i < len(rs) && rs[i].From < end {
		out = append(out, Range{rs[i].From, end})
	}
	return out
}

const (
	kindFarRuns = 'R' // runs without the limit of the window
	kindPacked  = 'P' // the same, deflated
	kindFarMap  = 'B' // a bitmap, deflated
)

const (
	// packFrom is from how many bytes on the shorter forms are tried.
	packFrom = 256
	// mapSpan is how far a bitmap may reach, in offsets.
	mapSpan = 1 << 20
	// unpacked bounds what deflated bytes may become, whoever wrote them.
	unpacked = 1 << 20
)

// append writes the runs relative to l, in the shortest of their forms.
func (rs Runs) append(b []byte, l int64) []byte {
	raw := []byte{}
	end := l
	for _, r := range rs {
		raw = binary.AppendUvarint(raw, uint64(r.From-end))
		raw = binary.AppendUvarint(raw, uint64(r.To-r.From))
		end = r.To
	}
	best, kind := raw, byte(kindFarRuns)
	if len(raw) > packFrom {
		if p := deflate(raw); len(p) < len(best) {
			best, kind = p, kindPacked
		}
		if end-l <= mapSpan {
			if p := deflate(rs.bitmap(l)); len(p) < len(best) {
				best, kind = p, kindFarMap
			}
		}
	}
	return append(append(b, kind), best...)
}

func (rs Runs) bitmap(l int64) []byte {
	var s Set
	for _, r := range rs {
		for o := r.From; o < r.To; o++ {
			s.Add(o - l)
		}
	}
	b := make([]byte, 0, len(s)*8)
	for _, w := range s {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func deflate(b []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		return b // only an unknown level is an error
	}
	_, _ = w.Write(b) // a buffer takes everything
	_ = w.Close()
	return out.Bytes()
}

// runs reads what append wrote.
func (d *decoder) runs(l int64) Runs {
	kind := d.byte()
	b := d.b
	if kind == kindPacked || kind == kindFarMap {
		var err error
		b, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), unpacked+1))
		if err != nil || len(b) > unpacked {
			d.failed = true
			return nil
		}
	}
	switch kind {
	case kindFarRuns, kindPacked:
		return d.runsOf(b, l)
	case kindFarMap:
		return runsOfMap(b, l)
	}
	d.failed = true
	return nil
}

func (d *decoder) runsOf(b []byte, l int64) Runs {
	const most = 1 << 60
	in := decoder{b: b}
	var rs Runs
	for at := l; len(in.b) > 0; {
		from := at + int64(in.upTo(most))
		at = from + int64(in.upTo(most))
		if in.failed || from < l || at <= from || len(rs) > 0 && from <= rs[len(rs)-1].To {
			d.failed = true
			return nil
		}
		rs = append(rs, Range{from, at})
	}
	return rs
}

func runsOfMap(b []byte, l int64) Runs {
	var s Set
	for len(b) >= 8 {
		s = append(s, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	var rs Runs
	for at := int64(0); ; {
		from := s.next(at, true)
		if from < 0 {
			return rs
		}
		at = s.next(from, false)
		rs = append(rs, Range{l + from, l + at})
	}
}
