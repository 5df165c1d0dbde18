package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/reeve-run/reeve/pkg/task"
)

// FuncRunner runs attempts as calls of a function in this process. A panic is a crash of that attempt alone.
type FuncRunner struct {
	handle func(context.Context, *Attempt) Result
	free   atomic.Int64
	work   chan *Attempt
	done   sync.WaitGroup

	mu      sync.Mutex
	cancels map[*Attempt]context.CancelFunc
}

// NewFuncRunner starts goroutines that call handle, as many as calls may run at once. Close ends them.
func NewFuncRunner(concurrency int, handle func(context.Context, *Attempt) Result) *FuncRunner {
	f := &FuncRunner{handle: handle, work: make(chan *Attempt, concurrency), cancels: map[*Attempt]context.CancelFunc{}}
	f.free.Store(int64(concurrency))
	for range concurrency {
		f.done.Go(func() {
			for a := range f.work {
				f.call(a)
			}
		})
	}
	return f
}

// Slots is how many more calls may start.
func (f *FuncRunner) Slots() int { return int(f.free.Load()) }

// Run starts calls.
func (f *FuncRunner) Run(batch []*Attempt) {
	f.free.Add(-int64(len(batch)))
	for _, a := range batch {
		f.work <- a // has room: Slots said so
	}
}

// Cancel cancels the call's context.
func (f *FuncRunner) Cancel(a *Attempt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cancel := f.cancels[a]; cancel != nil {
		cancel()
	}
}

// Close waits for calls that run. The engine must have ended before.
func (f *FuncRunner) Close() {
	close(f.work)
	f.done.Wait()
}

func (f *FuncRunner) call(a *Attempt) {
	ctx, cancel := context.WithCancelCause(context.Background())
	f.mu.Lock()
	f.cancels[a] = func() { cancel(errCancelled) }
	f.mu.Unlock()
	r := f.protect(ctx, a)
	f.mu.Lock()
	delete(f.cancels, a)
	f.mu.Unlock()
	if context.Cause(ctx) == errCancelled && r.Outcome != task.Completed {
		r = Result{CutShort: true}
	}
	cancel(nil)
	f.free.Add(1)
	a.Finish(r)
}

type cancelled struct{}

func (cancelled) Error() string { return "the engine cancelled the attempt" }

var errCancelled error = cancelled{}

// protect calls the function with its deadline, and turns a panic into a crash.
func (f *FuncRunner) protect(ctx context.Context, a *Attempt) (r Result) {
	if a.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.Timeout)
		defer cancel()
	}
	defer func() {
		if p := recover(); p != nil {
			r = Result{Outcome: task.Crashed, Class: task.ClassCrash, Message: fmt.Sprintf("panic: %v", p), Traceback: string(debug.Stack())}
		}
	}()
	return f.handle(ctx, a)
}
