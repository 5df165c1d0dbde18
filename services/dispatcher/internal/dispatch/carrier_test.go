package dispatch

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/reeve-run/reeve/pkg/hop"
)

// awaited is a rule that lets nothing pass and says when it has got a partition.
type awaited struct {
	Purge
	assigned chan int32
}

func (r *awaited) Assigned(a hop.Assignment) { r.assigned <- a.Partition }
func (r *awaited) Released(int32)            {}

// carrier joins a group and has got the topic's only partition.
func carrier(t *testing.T) *Carrier {
	t.Helper()
	env := environment(t)
	if _, err := kadm.NewClient(env.Client).CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	rule := &awaited{assigned: make(chan int32, 2)}
	c, err := NewCarrier(CarrierConfig{
		Member: hop.MemberConfig{Opts: env.Opts, Names: env.Names, Group: "g", Topic: "orders", Service: env.Service, Node: env.Node},
		Rule:   rule, Logger: quiet(),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Member().Close)
	<-rule.assigned
	return c
}

// The group's first word may come while NewCarrier has not returned yet. With -race this fails where the two aren't in order.
func TestACarrierKnowsItsMemberBeforeItsFirstPartition(t *testing.T) { carrier(t) }

func TestATransactionLeavesThePauseOfALaterAssignmentAlone(t *testing.T) {
	c := carrier(t)
	c.mu.Lock()
	before := c.parts[0]
	before.paused = true
	c.mu.Unlock()
	under := batch{taken: map[int32]taken{0: {from: before}}}
	c.Lost([]int32{0})
	c.Assigned(t.Context(), []hop.Assignment{{Partition: 0}})
	c.member.Pause(0)
	c.done(under)
	if paused := c.member.Client().PauseFetchPartitions(nil)["orders"]; !slices.Contains(paused, 0) {
		t.Error("the partition is fetched without a bound")
	}
}

func TestWhatWasMovedIsLetGoOf(t *testing.T) {
	rs := records("a", "b", "c")
	h := &held{queue: rs}
	c := &Carrier{parts: map[int32]*held{0: h}}
	c.done(batch{taken: map[int32]taken{0: {from: h, n: 2, next: 2, produced: 2}}})
	if rs[0] != nil || rs[1] != nil || rs[2] == nil || len(h.queue) != 1 || h.next != 2 || h.passed.N != 2 {
		t.Errorf("%v is kept of %v", h, rs)
	}
}
