package worker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// failing is an agent without retries whose dependency is away.
type failing struct{ started, ended atomic.Int64 }

func (f *failing) handle(context.Context, *worker.Attempt) worker.Result {
	f.started.Add(1)
	defer f.ended.Add(1)
	return worker.Result{Outcome: task.Failed, Class: task.ClassDependency, Message: "connection refused"}
}

// all reports whether n attempts have failed, and the engine knows of that.
func (f *failing) all(n int64, e *worker.Engine) func() bool {
	return func() bool { return f.ended.Load() == n && e.Figures().Running == 0 }
}

// A stop while an outage may be forming finishes nothing for it: the next owner runs what has failed once more.
func TestAStopInAFormingOutageDeadLettersNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.MaxRetries = 0
		var f failing
		e, stop := s.engine("a", runner(t, 4, f.handle))
		const n = 4
		s.publish(0, n)
		s.until("all have failed", f.all(n, e))
		began := time.Now()
		stop()
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("the stop took %v", d)
		}
		s.engine("a", runner(t, 4, ok))
		for id, o := range s.byTask(n) {
			if o.settled != "done" || o.attempt != 2 {
				t.Errorf("%s is settled as %s with attempt %d", id, o.settled, o.attempt)
			}
		}
		s.awaitLag(0)
	})
}

// A partition that is revoked then goes with what has failed in it, and the worker's other partitions go on waiting.
func TestARevokeInAFormingOutageDeadLettersNothing(t *testing.T) {
	s := newStand(t)
	s.spec.Config.MaxRetries = 0
	var f failing
	free := make(chan struct{})
	e, _ := s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
		<-free
		return f.handle(ctx, a)
	}))
	const n = 4
	s.publish(0, n)
	s.until("all run", func() bool { return e.Figures().Running == n })
	b, _ := s.engine("b", runner(t, 4, ok))
	s.until("the group knows the other one", func() bool { return b.Figures().Joined })
	close(free) // it waits for what runs before it hands over
	done, again := map[string]int{}, map[string]int{}
	for id, o := range s.byTask(n) {
		switch partition := id[:len("orders/0")]; {
		case o.settled == "done" && o.attempt == 2:
			done[partition]++
		case o.settled == "retry" && o.attempt == 1: // nothing speaks against it: it is tried again
			again[partition]++
		default:
			t.Errorf("%s is settled as %s with attempt %d", id, o.settled, o.attempt)
		}
	}
	if len(done) != 1 || len(again) != 1 || done["orders/0"]+done["orders/1"] != n/2 {
		t.Errorf("done by partition: %v, tried again: %v", done, again)
	}
	s.awaitLag(0)
}

// byTask gives the outcomes of n tasks, once each has one.
func (s *stand) byTask(n int) map[string]outcome {
	s.t.Helper()
	all := map[string]outcome{}
	for _, o := range s.outcomes(n) {
		if before, twice := all[o.origin]; twice {
			s.t.Errorf("%+v after %+v", o, before)
		}
		all[o.origin] = o
	}
	return all
}
