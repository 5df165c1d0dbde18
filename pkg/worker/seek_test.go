package worker

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
)

// While an agent is tried one task at a time, every other one is the newest of some partition: of each in turn, whatever turn the
// ones between take. What could show that the agent works again may all be in one of them.
func TestTheNewestAreSoughtInEveryPartition(t *testing.T) {
	e := idleEngine()
	for id := range int32(2) {
		p := newPartition(hop.Assignment{Partition: id}, 1, false)
		for i := range int64(100) {
			s := &slot{eng: e, part: p, state: ready}
			s.attempt.Record = &kgo.Record{Partition: id, Offset: i}
			p.ready.push(s)
		}
		e.order = append(e.order, p)
	}
	e.outage.stage = out
	sought := map[int32]int{}
	for probe := range 20 {
		e.outage.probes = probe
		if e.seek(1); probe%2 == 0 { // the oldest of the next partition
			e.order = append(e.order[1:], e.order[0])
			continue
		}
		for _, s := range e.sought {
			sought[s.part.id]++
			s.part.wants = nil
		}
		e.sought = nil
	}
	if sought[0] != 5 || sought[1] != 5 {
		t.Errorf("by partition: %v", sought)
	}
}

// Of many probes at least half are sought, as far as there are any: where the oldest are a bad batch, they must not outnumber those
// that succeed for ever.
func TestHalfOfTheProbesAreSought(t *testing.T) {
	for n, want := range map[int]int{2: 1, 3: 2, 4: 2, 5: 3} {
		e := idleEngine()
		p := newPartition(hop.Assignment{}, 1, false)
		for i := range int64(10) {
			s := &slot{eng: e, part: p, state: ready}
			s.attempt.Record = &kgo.Record{Offset: i}
			p.ready.push(s)
		}
		e.order, e.outage.stage = []*partition{p}, recovering
		if e.seek(n); len(e.sought) != want {
			t.Errorf("of %d probes %d are sought, want %d", n, len(e.sought), want)
		}
	}
}
