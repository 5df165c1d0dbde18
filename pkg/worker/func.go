package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

// FuncRunner runs attempts as calls of a function in this process. A panic, or an end of the goroutine, is a crash of that
// attempt alone.
type FuncRunner struct {
	handle func(context.Context, *Attempt) Result
	free   atomic.Int64
	work   chan *Attempt
	done   sync.WaitGroup
}

// NewFuncRunner starts goroutines that call handle, as many as calls may run at once. Close ends them. The context that
// handle gets ends at the attempt's deadline, when the engine gives the attempt up, and when handle returns.
func NewFuncRunner(concurrency int, handle func(context.Context, *Attempt) Result) *FuncRunner {
	f := &FuncRunner{handle: handle, work: make(chan *Attempt, concurrency)}
	f.free.Store(int64(concurrency))
	for range concurrency {
		f.start()
	}
	return f
}

func (f *FuncRunner) start() {
	f.done.Go(func() {
		for a := range f.work {
			f.call(a)
		}
	})
}

// Slots is how many more calls may start.
func (f *FuncRunner) Slots() int { return int(f.free.Load()) }

// Run starts calls.
func (f *FuncRunner) Run(batch []*Attempt) {
	f.free.Add(-int64(len(batch)))
	for _, a := range batch {
		a.call.begin(a)
		f.work <- a // has room: Slots said so
	}
}

// Cancel ends the call's context.
func (f *FuncRunner) Cancel(a *Attempt) { a.call.end(errGivenUp) }

// Interrupt ends the call's context. Nobody can end a function that goes on all the same.
func (f *FuncRunner) Interrupt(a *Attempt) { a.call.end(ErrCancelled) }

// ErrCancelled is the error of a call's context whose task was cancelled. It is a context.Canceled.
var ErrCancelled = fmt.Errorf("the task was cancelled: %w", context.Canceled)

// Close waits for calls that run. The engine must have ended before.
func (f *FuncRunner) Close() {
	close(f.work)
	f.done.Wait()
}

// call runs one attempt to its end, whichever that is: the function returns, panics, or ends its goroutine, which then
// has to be replaced.
func (f *FuncRunner) call(a *Attempt) {
	r, returned := Result{Outcome: task.Crashed, Class: task.ClassCrash}, false
	defer func() {
		if !returned {
			if p := recover(); p != nil {
				r.Message, r.Traceback = fmt.Sprintf("panic: %v", p), string(debug.Stack())
			} else {
				r.Message = "the function ended its goroutine (runtime.Goexit) instead of returning"
				f.start()
			}
		}
		if errors.Is(a.call.Err(), errGivenUp) && r.Outcome != task.Completed {
			r = Result{CutShort: true}
		}
		a.call.end(context.Canceled)
		f.free.Add(1)
		a.Finish(r)
	}()
	r = f.handle(&a.call, a)
	returned = true
}

// errGivenUp is a cancellation to those who look for one.
var errGivenUp = fmt.Errorf("the engine has given the attempt up: %w", context.Canceled)

// callContext is the context of one call. It is part of the Attempt and makes its channel and timer only for those who
// ask for them, since a context from the standard library would cost more than a short handler.
type callContext struct {
	mu       sync.Mutex
	deadline time.Time
	err      error
	done     chan struct{}
	timer    *time.Timer
}

func (c *callContext) begin(a *Attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.done, c.timer, c.deadline = nil, nil, nil, time.Time{}
	if a.Timeout > 0 {
		c.deadline = a.started.Add(a.Timeout)
	}
}

// Deadline is the attempt's.
func (c *callContext) Deadline() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline, !c.deadline.IsZero()
}

// extend gives a call that goes on more time.
func (c *callContext) extend(deadline time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.deadline.IsZero() {
		return
	}
	c.deadline = deadline
	if c.timer != nil && c.timer.Stop() {
		c.timer.Reset(time.Until(deadline))
	}
}

// Value has none.
func (c *callContext) Value(any) any { return nil }

// Done is closed when the context ends.
func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		} else if !c.deadline.IsZero() {
			done := c.done
			c.timer = time.AfterFunc(time.Until(c.deadline), func() { c.expire(done) })
		}
	}
	return c.done
}

// Err is nil while the call may go on.
func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && !c.deadline.IsZero() && time.Now().After(c.deadline) {
		c.finish(context.DeadlineExceeded)
	}
	return c.err
}

// expire is the timer's; the context may meanwhile serve a later attempt.
func (c *callContext) expire(done chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == done && !time.Now().Before(c.deadline) {
		c.finish(context.DeadlineExceeded)
	}
}

func (c *callContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish(err)
}

func (c *callContext) finish(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
}
