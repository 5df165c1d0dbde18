package worker

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

// run makes one call and gives its result.
func run(timeout, cancelAfter time.Duration, handle func(context.Context, *Attempt) Result) Result {
	results := make(chan Result, 1)
	f := NewFuncRunner(1, handle)
	defer f.Close()
	a := NewAttempt(nil, 1, timeout, false, func(r Result) { results <- r })
	f.Run([]*Attempt{a})
	if cancelAfter > 0 {
		<-time.After(cancelAfter)
		f.Cancel(a)
	}
	return <-results
}

func TestCallEndsWithItsContext(t *testing.T) {
	wait := func(ctx context.Context, _ *Attempt) Result {
		<-ctx.Done()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return Result{Outcome: task.TimedOut, Class: task.ClassTimeout}
		}
		return Result{Outcome: task.Failed}
	}
	t.Run("deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if r := run(time.Minute, 0, wait); r.Outcome != task.TimedOut {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var cause error
			r := run(0, time.Second, func(ctx context.Context, a *Attempt) Result { r := wait(ctx, a); cause = ctx.Err(); return r })
			if !r.CutShort || !errors.Is(cause, context.Canceled) {
				t.Errorf("%+v, because of %v", r, cause)
			}
		})
	})
	t.Run("child context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := run(0, time.Second, func(ctx context.Context, a *Attempt) Result {
				child, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				return wait(child, a)
			})
			if !r.CutShort {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("panic", func(t *testing.T) {
		if r := run(0, 0, func(context.Context, *Attempt) Result { panic("oh") }); r.Outcome != task.Crashed || r.Message != "panic: oh" || r.Traceback == "" {
			t.Errorf("%+v", r)
		}
	})
}

func TestAFunctionThatEndsItsGoroutineCrashesAlone(t *testing.T) {
	results := make(chan Result, 2)
	f := NewFuncRunner(1, func(_ context.Context, a *Attempt) Result {
		if a.Number == 1 {
			runtime.Goexit()
		}
		return Result{Outcome: task.Completed}
	})
	defer f.Close()
	for number := 1; number <= 2; number++ {
		f.Run([]*Attempt{NewAttempt(nil, number, 0, false, func(r Result) { results <- r })})
		want := task.Crashed
		if number == 2 {
			want = task.Completed
		}
		if r := <-results; r.Outcome != want || f.Slots() != 1 {
			t.Errorf("attempt %d: %+v, %d slots", number, r, f.Slots())
		}
	}
}
