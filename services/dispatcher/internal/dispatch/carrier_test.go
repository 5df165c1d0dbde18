package dispatch

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

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

// moveOn lets everything pass to a topic.
type moveOn struct{ awaited }

func (r *moveOn) Take(_ int32, records []*kgo.Record, limit int) (outs []*kgo.Record, wait time.Duration) {
	for _, r := range records[:min(limit, len(records))] {
		if r.Attrs.IsControl() {
			outs = append(outs, nil)
			continue
		}
		outs = append(outs, &kgo.Record{Topic: "moved", Value: r.Value})
	}
	return outs, 0
}

// Events that come one by one while a transaction is under way are fetched together at its end: a fetch for each costs a
// broker more than the events.
func TestWhatComesDuringATransactionIsFetchedAtItsEnd(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "moved"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	env := environmentOn(t, cluster)
	begun, end := make(chan struct{}, 1), make(chan struct{})
	var fetches atomic.Int32
	var held atomic.Bool
	cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		if held.CompareAndSwap(false, true) {
			begun <- struct{}{}
			cluster.SleepControl(func() { <-end })
		}
		return nil, nil, false
	})
	pool, err := hop.NewPool(t.Context(), hop.PoolConfig{Opts: env.Opts, Names: env.Names, Service: env.Service, Node: env.Node})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	rule := &moveOn{awaited{assigned: make(chan int32, 2)}}
	var moved atomic.Int32
	all := make(chan struct{})
	c, err := NewCarrier(CarrierConfig{
		Member: hop.MemberConfig{Opts: env.Opts, Names: env.Names, Group: "g", Topic: "orders", Service: env.Service, Node: env.Node},
		Pool:   pool, Rule: rule, Wake: make(chan struct{}), Logger: quiet(),
	}, func(n, _ int) {
		if moved.Add(int32(n)) == 101 {
			close(all)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	<-rule.assigned
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		c.Member().Close()
	})
	publish := func(i int) {
		t.Helper()
		if err := env.Client.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	publish(0)
	<-begun
	cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		fetches.Add(1)
		return nil, nil, false
	})
	for i := range 100 {
		publish(i + 1)
	}
	if n := fetches.Load(); n > 3 {
		t.Errorf("%d fetches for 100 events that had to wait anyway", n)
	}
	close(end)
	select {
	case <-all:
	case <-time.After(time.Minute):
		t.Errorf("%d of 101 events were moved", moved.Load())
	}
}
