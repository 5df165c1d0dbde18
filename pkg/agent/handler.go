package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

// A Handler runs one attempt of a task and gives its result, which is JSON; nil is null. The context ends at the attempt's
// deadline, when somebody cancels the task (its error is ErrCancelled then), and when the attempt is given up, for a stop
// that took too long or a partition that went to another program.
// An error says what becomes of the task, see Error. It is called from several goroutines at a time.
type Handler func(ctx context.Context, t *Task) (json.RawMessage, error)

// Middleware wraps the handlers of a Runner: for tracing, figures, logging. What it returns is called for every attempt.
type Middleware func(Handler) Handler

// Event is a task for a function that takes its content as a T. Everything else about it is asked of the Task.
type Event[T any] struct {
	Content T
	*Task
}

// Handle makes a Handler of a typed function. The event's content is decoded into T as JSON, and what doesn't fit is
// dead-lettered as invalid_input without a call. As []byte it is taken as it came, whatever it is. The result is encoded
// as JSON.
func Handle[T, R any](f func(context.Context, Event[T]) (R, error)) Handler {
	return func(ctx context.Context, t *Task) (json.RawMessage, error) {
		e := Event[T]{Task: t}
		if err := t.Decode(&e.Content); err != nil {
			return nil, err
		}
		result, err := f(ctx, e)
		if err != nil {
			return nil, err
		}
		raw, err := json.Marshal(result)
		if err != nil { // the work is done, and doing it again would give the same
			return nil, Permanent(fmt.Errorf("the result can't be written as JSON: %w", err))
		}
		t.encoded = true
		return raw, nil
	}
}

// Func is a Handler as a worker.FuncRunner calls it, for the agent of a spec. A Runner does that itself; this is for those
// who drive an engine, or a test, by hand.
func Func(h Handler, a *spec.Agent, names topics.Names) func(context.Context, *worker.Attempt) worker.Result {
	return func(ctx context.Context, at *worker.Attempt) worker.Result {
		t := &Task{agent: a, names: names, record: at.Record, attempt: at.Number, run: at}
		value, err := h(ctx, t)
		published := t.end()
		if err == nil && len(value) > 0 && !t.encoded && !json.Valid(value) {
			err = Permanent(errors.New("the handler's result is no JSON"))
		}
		if err != nil {
			return resultOf(err, errors.Is(ctx.Err(), context.DeadlineExceeded))
		}
		return worker.Result{Outcome: task.Completed, Value: value, Publish: published}
	}
}
