package dispatch

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

// What passes before its turn is named beyond the position, is left out when it is read again, and goes with the position.
func TestWhatPassesBeforeItsTurnIsKnownBeyondThePosition(t *testing.T) {
	var rs []*kgo.Record
	for _, at := range []int64{10, 11, 12, 15, 16} { // 13 and 14 are an aborted transaction's
		rs = append(rs, &kgo.Record{Offset: at})
	}
	h := &held{queue: slices.Clone(rs), next: 10, end: 17}
	take := func(n int) {
		h.next = h.behind(n)
		h.queue = h.queue[n:]
		h.moved(nil)
	}
	offsetsOf := func() (out []int64) {
		for _, r := range h.queue {
			out = append(out, r.Offset)
		}
		return out
	}
	named := func() (out []int64) {
		s := h.settled(h.next, nil)
		for i := range int64(len(s)) * 64 {
			if s.Has(i) {
				out = append(out, h.next+i)
			}
		}
		return out
	}
	h.moved([]*kgo.Record{rs[1], rs[4]})
	if !slices.Equal(offsetsOf(), []int64{10, 12, 15}) || !slices.Equal(named(), []int64{11, 16}) {
		t.Errorf("held %v, named %v", offsetsOf(), named())
	}
	again := &held{next: 10, ahead: aheadOf(hop.Assignment{Offset: 10, Metadata: offsets.Metadata{Settled: h.settled(10, nil)}})}
	if fresh := again.fresh(rs); len(fresh) != 3 || fresh[1].Offset != 12 {
		t.Errorf("read again: %v", fresh)
	}
	take(1)
	if h.next != 12 || !slices.Equal(named(), []int64{16}) {
		t.Errorf("at %d, named %v", h.next, named())
	}
	take(2)
	if h.next != 17 || len(named()) != 0 || len(h.ahead) != 0 {
		t.Errorf("at %d, named %v", h.next, named())
	}
}
