package worker_test

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

func deadAtOnce(context.Context, *worker.Attempt) worker.Result {
	return worker.Result{Outcome: task.Failed, Class: task.ClassPermanent, Message: "the account is closed"}
}

// unwritable are the alerts that an engine gave.
type unwritable struct {
	mu  sync.Mutex
	all []worker.Alert
}

func (a *unwritable) add(x worker.Alert) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, x)
}

// await waits for one that is as wanted.
func (a *unwritable) await(t *testing.T, resolved bool, says string) {
	t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		a.mu.Lock()
		for _, x := range a.all {
			if x.Kind == "destination_unwritable" && x.Resolved == resolved && strings.Contains(x.Message, says) {
				a.mu.Unlock()
				return
			}
		}
		a.mu.Unlock()
		select {
		case <-deadline:
			t.Fatalf("no alert says %q", says)
		case <-tick.C:
		}
	}
}

// A dead-letter topic that is too small holds up what goes there, says what to do, and nothing is lost: once it is large
// enough, the dead letters stand there with the failure that they had.
func TestADeadLetterTopicThatIsTooSmallIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		dlq, small := s.names.DLQ("orders", "biller"), "600"
		if _, err := s.adm.CreateTopic(t.Context(), 1, 1, map[string]*string{"max.message.bytes": &small}, dlq); err != nil {
			t.Fatal(err)
		}
		var told unwritable
		s.publish(0, 40, kgo.RecordHeader{Key: "large", Value: bytes.Repeat([]byte("x"), 2000)})
		s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
			if string(a.Record.Value) == "7" {
				return deadAtOnce(ctx, a)
			}
			return ok(ctx, a)
		}), func(c *worker.Config) { c.Alert = told.add })
		for _, o := range s.outcomes(39) {
			if o.settled != "done" {
				t.Errorf("%+v", o)
			}
		}
		told.await(t, false, "raise its max.message.bytes")
		large := strconv.Itoa(1 << 20)
		if _, err := s.adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &large}}, dlq); err != nil {
			t.Fatal(err)
		}
		dead := s.read(dlq, func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
		if h := header(dead); h[task.HeaderErrorMessage] != "the account is closed" || h[task.HeaderErrorClass] != "permanent" || string(dead.Value) != "7" {
			t.Errorf("%v", h)
		}
		told.await(t, true, "")
		s.outcomes(40)
	})
}

// A dead-letter topic that somebody deletes under a running worker is made again, with its settings.
func TestADeletedDeadLetterTopicIsMadeAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		dlq := s.names.DLQ("orders", "biller")
		s.publish(0, 3)
		s.engine("a", runner(t, 4, deadAtOnce))
		s.read(dlq, func(rs []*kgo.Record) bool { return len(rs) == 3 })
		if _, err := s.adm.DeleteTopics(t.Context(), dlq); err != nil {
			t.Fatal(err)
		}
		s.publish(3, 5)
		s.read(dlq, func(rs []*kgo.Record) bool { return len(rs) == 5 })
		s.settings(dlq)
	})
}

// settings checks what the engine makes a dead-letter topic with.
func (s *stand) settings(dlq string) {
	s.t.Helper()
	configs, err := s.adm.DescribeTopicConfigs(s.t.Context(), dlq, s.names.Tasks("orders", "biller"))
	if err != nil {
		s.t.Fatal(err)
	}
	of := func(topic, key string) string {
		for _, c := range configs {
			for _, kv := range c.Configs {
				if c.Name == topic && kv.Key == key {
					return kv.MaybeValue()
				}
			}
		}
		return ""
	}
	tasks, err := strconv.Atoi(of(s.names.Tasks("orders", "biller"), "max.message.bytes"))
	if err != nil {
		s.t.Fatal(err)
	}
	limit, err := strconv.Atoi(of(dlq, "max.message.bytes"))
	if err != nil || limit != tasks+64<<10 {
		s.t.Errorf("limit %d, beside the task topic's %d: %v", limit, tasks, err)
	}
	// All of them, or a broker's own settings would remove dead letters.
	for key, want := range map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "compression.type": "producer", "message.timestamp.type": "CreateTime"} {
		if got := of(dlq, key); got != want {
			s.t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

// Two workers that need the topic first at the same moment make one.
func TestTwoWorkersMakeOneDeadLetterTopic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		var ready sync.WaitGroup
		ready.Add(2)
		var first [2]atomic.Bool
		meet := func(ctx context.Context, a *worker.Attempt) worker.Result {
			if first[a.Record.Partition].CompareAndSwap(false, true) { // one of each partition
				ready.Done()
				ready.Wait()
			}
			return deadAtOnce(ctx, a)
		}
		s.engine("a", runner(t, 4, meet))
		s.engine("b", runner(t, 4, meet))
		s.awaitMembers(2)
		s.publish(0, 40)
		dlq := s.names.DLQ("orders", "biller")
		s.read(dlq, func(rs []*kgo.Record) bool { return len(rs) == 40 })
		s.outcomes(40)
		s.settings(dlq)
	})
}

// awaitMembers waits until each of so many members of the work group has a partition.
func (s *stand) awaitMembers(n int) {
	s.t.Helper()
	group := s.names.WorkGroup("orders", "biller")
	deadline, tick := time.After(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		gs, err := s.adm.DescribeGroups(s.t.Context(), group)
		served := 0
		if err == nil && gs[group].State == "Stable" {
			for _, m := range gs[group].Members {
				if as, ok := m.Assigned.AsConsumer(); ok && len(as.Topics) > 0 {
					served++
				}
			}
		}
		if served == n {
			return
		}
		select {
		case <-deadline:
			s.t.Fatalf("%d members have a partition, want %d: %v", served, n, err)
		case <-tick.C:
		}
	}
}

// However often it was tried, a dead letter says how it failed last, and when first.
func TestADeadLetterTellsTheRealFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.MaxRetries = 2
		s.publish(0, 1, kgo.RecordHeader{Key: "mine", Value: []byte{0xff}})
		s.engine("a", runner(t, 1, func(_ context.Context, a *worker.Attempt) worker.Result {
			return worker.Result{Outcome: task.Failed, Class: task.ClassNetwork, Message: "no route to host 10.0.0." + strconv.Itoa(a.Number)}
		}))
		s.retries()
		dead := s.read(s.names.DLQ("orders", "biller"), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
		h := header(dead)
		if h[task.HeaderErrorClass] != "network" || h[task.HeaderErrorMessage] != "no route to host 10.0.0.3" || h[task.HeaderAttempts] != "3" || h["mine"] != "\xff" ||
			h[task.HeaderErrorFingerprint] != worker.Fingerprint(task.ClassNetwork, "no route to host 10.0.0.9", s.spec.Version) {
			t.Errorf("%v", h)
		}
		first, err1 := time.Parse(time.RFC3339, h[task.HeaderFirstFailedAt])
		last, err2 := time.Parse(time.RFC3339, h[task.HeaderLastFailedAt])
		if err1 != nil || err2 != nil || !first.Before(last) || string(dead.Value) != "0" || string(dead.Key) != "k0" {
			t.Errorf("failed first at %v (%v), last at %v (%v): %q", first, err1, last, err2, dead.Value)
		}
	})
}
