package offsets

import (
	"encoding/binary"
	"math/bits"
)

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

// A set is written as runs or as a bitmap.
const (
	kindRuns   = 'r'
	kindBitmap = 'b'
)

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
