package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// Error is an error that says what becomes of its task. It is found in a handler's error by errors.As; one without is
// retried.
type Error struct {
	Class task.Class
	// RetryAfter is how long to leave the agent alone with the task, for class rate_limited. Defaults to the next of the
	// agent's retry delays.
	RetryAfter time.Duration
	Err        error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Class)
	}
	return e.Err.Error()
}

// Unwrap is Err.
func (e *Error) Unwrap() error { return e.Err }

// Permanent is an error that no further attempt can mend: the task is dead-lettered at once.
func Permanent(err error) error { return &Error{Class: task.ClassPermanent, Err: err} }

// InvalidInput says that the event can't be worked on as it is: the task is dead-lettered at once.
func InvalidInput(err error) error { return &Error{Class: task.ClassInvalidInput, Err: err} }

// IncompatibleTask says that the event is none for this agent: the task is dead-lettered at once.
func IncompatibleTask(err error) error { return &Error{Class: task.ClassIncompatibleTask, Err: err} }

// RateLimited says that somebody wants to be left alone for a while; 0 is the next of the agent's retry delays. No retry
// is used up.
func RateLimited(err error, after time.Duration) error {
	return &Error{Class: task.ClassRateLimited, RetryAfter: after, Err: err}
}

// Resource says that memory, space or the like ran out here: the task waits a retry delay, and no retry is used up.
func Resource(err error) error { return &Error{Class: task.ClassResource, Err: err} }

// Network is an error of a connection: the task is retried.
func Network(err error) error { return &Error{Class: task.ClassNetwork, Err: err} }

// Dependency says that something which the agent needs doesn't work: the task is retried.
func Dependency(err error) error { return &Error{Class: task.ClassDependency, Err: err} }

// resultOf is what an attempt's error says. expired says that its own deadline has passed.
func resultOf(err error, expired bool) worker.Result {
	r := worker.Result{Outcome: task.Failed, Message: err.Error(), Type: typeOf(err)}
	if own := (*Error)(nil); errors.As(err, &own) {
		r.Class, r.RetryAfter = own.Class, own.RetryAfter
	} else if expired {
		r.Class = task.ClassTimeout
	} else {
		r.Class = classOf(err)
	}
	if expired && r.Class == task.ClassTimeout {
		r.Outcome = task.TimedOut
	}
	return r
}

// Judge says how an attempt is recorded that ends with this error and its own context: the outcome and, of a failure, its
// class. For a Middleware. A panic is none of its: that is crashed.
func Judge(ctx context.Context, err error) (task.Outcome, task.Class) {
	if err == nil {
		return task.Completed, ""
	}
	r := resultOf(err, errors.Is(ctx.Err(), context.DeadlineExceeded))
	return r.Outcome, worker.Classify(r)
}

// classOf tells the class of an error that can mean nothing else; "" leaves it to the worker.
func classOf(err error) task.Class {
	var lookup *net.DNSError
	var operation *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), timedOut(err):
		return task.ClassTimeout
	case is(err, syscall.ENOMEM, syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE):
		return task.ClassResource
	case errors.As(err, &lookup), errors.As(err, &operation),
		is(err, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTUNREACH, syscall.EHOSTDOWN):
		return task.ClassNetwork
	}
	return ""
}

func timedOut(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func is(err error, causes ...error) bool {
	return slices.ContainsFunc(causes, func(cause error) bool { return errors.Is(err, cause) })
}

// typeOf names the type of an error as people know it; what only says where it came through isn't it.
func typeOf(err error) string {
	for {
		name, next := fmt.Sprintf("%T", err), errors.Unwrap(err)
		if next == nil || name != "*agent.Error" && name != "*fmt.wrapError" {
			return name
		}
		err = next
	}
}

// ErrCancelled is the error of a Handler's context whose task somebody has cancelled. Whatever the Handler returns as an
// error then, the task's outcome is cancelled; a result makes it completed all the same. It is a context.Canceled.
var ErrCancelled = worker.ErrCancelled
