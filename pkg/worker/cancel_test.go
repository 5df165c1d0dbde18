package worker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// told collects what cancellations said, by task.
type told struct {
	mu     sync.Mutex
	states map[string][]string
}

func (c *told) of(i int, round int) worker.Cancellation {
	o := task.Origin{Topic: "orders", Partition: int32(i % 2), Offset: int64(i)}
	return worker.Cancellation{Origin: o, Round: round, Message: "cancelled by ann", Expires: time.Now().Add(time.Minute), Tell: func(state, _ string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.states == nil {
			c.states = map[string][]string{}
		}
		c.states[o.ID()] = append(c.states[o.ID()], state)
	}}
}

func (c *told) last(i int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.states[task.Origin{Topic: "orders", Partition: int32(i % 2), Offset: int64(i)}.ID()]
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// finals gives the headers of the final outcome of each task by its number, once there are n, and fails where one has
// several.
func (s *stand) finals(n int) map[int]map[string]string {
	s.t.Helper()
	finals := map[int]map[string]string{}
	final := func(r *kgo.Record) bool { return header(r)[task.HeaderFinal] == "true" }
	for _, r := range s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool {
		return len(rs) >= n && len(rs)-len(slices.DeleteFunc(slices.Clone(rs), final)) >= n
	}) {
		if !final(r) {
			continue
		}
		origin, err := task.ParseOrigin(string(r.Key))
		if err != nil {
			s.t.Fatal(err)
		}
		if _, twice := finals[int(origin.Offset)]; twice {
			s.t.Errorf("%s has two finals", origin.ID())
		}
		finals[int(origin.Offset)] = header(r)
	}
	return finals
}

func TestACancelledTaskEndsWhereverItIs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.RetryDelays = []string{"5s"}
		running := make(chan int, 100)
		free := make(chan struct{})
		fail := make(chan struct{})
		handle := func(ctx context.Context, a *worker.Attempt) worker.Result {
			i, _ := strconv.Atoi(string(a.Record.Value))
			running <- i
			var err error
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-free:
				return worker.Result{Outcome: task.Completed}
			case <-fail:
				err = errors.New("no")
			}
			return worker.Result{Outcome: task.Failed, Message: err.Error()}
		}
		e, _ := s.engine("n1", runner(t, 1, handle))
		var c told
		e.CancelTask(c.of(30, 0)) // not here yet
		s.publish(0, 25)          // k0 to k9, so that 10 and 20 wait behind 0
		first := <-running
		behind := (first + 10) % 20 // of the same key
		queued := (first + 1) % 10  // of another
		for _, i := range []int{queued, behind, first} {
			e.CancelTask(c.of(i, 0))
		}
		s.finals(3)
		close(free)
		s.publish(30, 1)
		finals := s.finals(26)
		for i, o := range finals {
			cancelled := i == first || i == queued || i == behind || i == 30
			if got := o[task.HeaderOutcome]; (got == string(task.Cancelled)) != cancelled {
				t.Errorf("task %d is %s", i, got)
			}
			if !cancelled {
				continue
			}
			attempt := "0"
			if i == first {
				attempt = "1"
			}
			if o[task.HeaderAttempt] != attempt || o[task.HeaderSettled] != string(task.SettledDropped) || o[task.HeaderErrorMessage] != "cancelled by ann" {
				t.Errorf("task %d: %v", i, o)
			}
		}
		for _, i := range []int{queued, behind, first, 30} {
			s.until("it is told of "+strconv.Itoa(i), func() bool { return c.last(i) == status.CommandDone })
		}
		s.awaitLag(0)
	})
}

func TestACancelledRoundLeavesTheNextOneAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		e, _ := s.engine("n1", runner(t, 4, ok))
		var c told
		e.CancelTask(c.of(1, 1))
		e.CancelTask(c.of(2, 1))
		e.CancelTask(c.of(3, 1))
		s.publish(1, 1, kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte("2")})
		s.publish(2, 1, kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte("1")}, kgo.RecordHeader{Key: task.HeaderAttempt, Value: []byte("3")})
		expired := c.of(3, 1)
		expired.Expires = time.Now()
		e.CancelTask(expired)
		finals := s.finals(2)
		if got := finals[1][task.HeaderOutcome]; got != "completed" {
			t.Errorf("the later round is %s", got)
		}
		if h := finals[2]; h[task.HeaderOutcome] != "cancelled" || h[task.HeaderAttempt] != "2" || h[task.HeaderRedrives] != "1" {
			t.Errorf("the round that was meant: %v", h)
		}
	})
}

func TestACancelThatRacesWithTheEndLeavesOneFinal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.MaxRetries, s.spec.Config.DLQEnabled = 1, false
		handle := func(ctx context.Context, a *worker.Attempt) worker.Result {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(rand.IntN(3)) * time.Millisecond):
			}
			if rand.IntN(3) == 0 {
				return worker.Result{Outcome: task.Failed, Message: "no", Class: task.ClassPermanent}
			}
			return worker.Result{Outcome: task.Completed}
		}
		e, _ := s.engine("n1", runner(t, 8, handle))
		const n = 600
		var c told
		var asking sync.WaitGroup
		asking.Go(func() {
			for i := 0; i < n; i += 2 {
				e.CancelTask(c.of(i, 0))
			}
		})
		for i := 0; i < n; i += 60 {
			s.publish(i, 60)
		}
		asking.Wait()
		finals := s.finals(n)
		got := map[string]int{}
		for i, o := range finals {
			out := o[task.HeaderOutcome]
			got[out]++
			if i%2 == 1 && out == "cancelled" {
				t.Errorf("task %d was never cancelled", i)
			}
			if i%2 == 1 {
				continue
			}
			want := map[string]string{"cancelled": status.CommandDone, "completed": status.CommandRefused}[out]
			if out == "completed" && c.last(i) == "" { // it was settled before the cancel was here
				continue
			}
			if out != "failed" {
				s.until(fmt.Sprintf("task %d, %s, is told of", i, out), func() bool { return c.last(i) == want })
			}
		}
		if len(finals) != n || got["cancelled"] == 0 {
			t.Errorf("%d finals of %d: %v", len(finals), n, got)
		}
		s.awaitLag(0)
	})
}
