package worker_test

import (
	"context"
	"errors"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// A function without a time limit goes on as long as it says how far it is, and its context ends when it is silent for
// the agent's reclaim time. What it says is told once a second at most.
func TestAFunctionThatMakesProgressKeepsItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Process.RequestTimeout = spec.Seconds(math.Inf(1))
		s.spec.Config.ReclaimIdleMS, s.spec.Config.MaxRetries, s.spec.Config.DLQEnabled = 200, 0, false
		var mu sync.Mutex
		var told []worker.Progress
		half := 0.5
		handle := func(ctx context.Context, a *worker.Attempt) worker.Result {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return worker.Result{Outcome: task.TimedOut, Class: task.ClassTimeout, Message: ctx.Err().Error()}
				case <-tick.C:
				}
				if string(a.Record.Value) == "1" { // the silent one
					continue
				}
				a.Progress(&half, "step "+strconv.Itoa(n), "")
				if n == 30 {
					return worker.Result{Outcome: task.Completed}
				}
			}
		}
		s.engine("n1", runner(t, 4, handle), func(c *worker.Config) {
			c.Progress = func(p worker.Progress) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, p)
			}
		})
		s.publish(0, 2)
		finals := s.finals(2)
		if finals[0][task.HeaderOutcome] != "completed" || finals[1][task.HeaderOutcome] != "timed_out" {
			t.Errorf("%v", finals)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(told) != 1 || told[0].Origin.ID() != "orders/0/0" || told[0].Attempt != 1 || *told[0].Fraction != 0.5 || told[0].Message != "step 0" {
			t.Errorf("told %+v", told)
		}
	})
}

func TestACallSeesThatItsTaskWasCancelled(t *testing.T) {
	r := runner(t, 1, func(ctx context.Context, _ *worker.Attempt) worker.Result {
		<-ctx.Done()
		if !errors.Is(ctx.Err(), worker.ErrCancelled) || !errors.Is(ctx.Err(), context.Canceled) {
			return worker.Result{Outcome: task.Completed}
		}
		return worker.Result{Outcome: task.Failed, Message: ctx.Err().Error()}
	})
	results := make(chan worker.Result, 1)
	a := worker.NewAttempt(nil, 1, time.Minute, false, func(res worker.Result) { results <- res })
	r.Run([]*worker.Attempt{a})
	r.Interrupt(a)
	if res := <-results; res.Outcome != task.Failed || res.CutShort {
		t.Errorf("%+v", res)
	}
}
