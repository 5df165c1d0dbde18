package history

import "math/bits"

// Histogram counts milliseconds in buckets that are at most a sixteenth of their value wide: bucket v for v below 16, then
// sixteen to each doubling. The numbering is stored and never changes.
type Histogram []int64

const (
	subBits = 4
	sub     = 1 << subBits
	buckets = 40 * sub // up to 2^43 ms
)

func bucket(ms int64) int {
	if ms < sub {
		return int(max(0, ms))
	}
	shift := bits.Len64(uint64(ms)) - 1 - subBits
	return min(buckets-1, (shift+1)*sub+int(ms>>shift)-sub)
}

// middle is the value in the middle of a bucket.
func middle(i int) float64 {
	if i < sub {
		return float64(i)
	}
	shift := i/sub - 1
	low := int64(sub+i%sub) << shift
	return float64(low) + float64(int64(1)<<shift-1)/2
}

// Add counts a value.
func (h *Histogram) Add(ms int64) {
	i := bucket(ms)
	if i >= len(*h) {
		*h = append(*h, make([]int64, i+1-len(*h))...)
	}
	(*h)[i]++
}

// Merge adds another's counts.
func (h *Histogram) Merge(o Histogram) {
	if len(o) > len(*h) {
		*h = append(*h, make([]int64, len(o)-len(*h))...)
	}
	for i, n := range o {
		(*h)[i] += n
	}
}

// Count is how many values it has.
func (h Histogram) Count() int64 {
	var n int64
	for _, c := range h {
		n += c
	}
	return n
}

// Quantile is the value that a share q of all values doesn't exceed, at most 5 % off; 0 where there are none.
func (h Histogram) Quantile(q float64) float64 {
	rank := int64(q * float64(h.Count()))
	for i, n := range h {
		if rank -= n; rank < 0 {
			return middle(i)
		}
	}
	for i := len(h) - 1; i >= 0; i-- {
		if h[i] > 0 {
			return middle(i)
		}
	}
	return 0
}
