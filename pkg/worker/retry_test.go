package worker_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// An attempt that a drain cuts short is none of the task's retries, though its number is used up: with max_retries 0 the
// task still has the one attempt that it is owed.
func TestADrainBurnsNoRetry(t *testing.T) {
	for _, ordering := range []string{spec.OrderingKey, spec.OrderingStrict} {
		t.Run(ordering, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStand(t)
				s.spec.Config.Ordering, s.spec.Config.MaxRetries = ordering, 0
				s.publish(0, 1)
				begun := make(chan struct{}, 1)
				_, stop := s.engine("a", runner(t, 1, func(ctx context.Context, _ *worker.Attempt) worker.Result {
					begun <- struct{}{}
					<-ctx.Done()
					return failed(task.ClassInternal)
				}))
				<-begun
				stop()
				var timeout atomic.Int64
				s.engine("a", runner(t, 1, func(_ context.Context, a *worker.Attempt) worker.Result {
					timeout.Store(int64(a.Timeout))
					return failed(task.ClassTimeout)
				}))
				rs := s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) == 1 })
				if got, want := s.settledAs(rs, "orders/0/0"), []string{"2 failed dlq true"}; !slices.Equal(got, want) {
					t.Errorf("%v, want %v", got, want)
				}
				if want := s.spec.Process.RequestTimeout.Duration(); timeout.Load() != int64(want) {
					t.Errorf("the second attempt had %d ns", timeout.Load())
				}
			})
		})
	}
}

// What waits for something else than better luck uses up no retry, however often.
func TestWaitingForSomethingBurnsNoRetry(t *testing.T) {
	s := strictStand(t)
	s.spec.Config.MaxRetries = 0
	s.publish(0, 2)
	s.engine("a", runner(t, 4, func(_ context.Context, a *worker.Attempt) worker.Result {
		switch {
		case a.Number == 5:
			return worker.Result{Outcome: task.Completed}
		case string(a.Record.Value) == "0":
			return failed(task.ClassResource)
		}
		return failed(task.ClassRateLimited)
	}))
	rs := s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) == 10 })
	for _, origin := range []string{"orders/0/0", "orders/1/1"} {
		want := []string{"1 failed retry false", "2 failed retry false", "3 failed retry false", "4 failed retry false", "5 completed done true"}
		if got := s.settledAs(rs, origin); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", origin, got, want)
		}
	}
}
