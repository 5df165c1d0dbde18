package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/agent/agenttest"
	"github.com/reeve-run/reeve/pkg/task"
)

// failing is a handler that fails with an error.
func failing(err error) agent.Handler {
	return func(context.Context, *agent.Task) (json.RawMessage, error) { return nil, err }
}

func TestAnErrorsClassDecidesWhatBecomesOfTheTask(t *testing.T) {
	cause := errors.New("so it is")
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for name, tt := range map[string]struct {
		err     error
		class   task.Class
		settled task.Settled
		kind    string
		after   time.Duration
	}{
		"no class":                          {cause, task.ClassInternal, task.SettledRetry, "*errors.errorString", 0},
		"permanent":                         {agent.Permanent(cause), task.ClassPermanent, task.SettledDLQ, "*errors.errorString", 0},
		"invalid input":                     {agent.InvalidInput(cause), task.ClassInvalidInput, task.SettledDLQ, "*errors.errorString", 0},
		"incompatible":                      {agent.IncompatibleTask(cause), task.ClassIncompatibleTask, task.SettledDLQ, "*errors.errorString", 0},
		"rate limited":                      {agent.RateLimited(cause, time.Minute), task.ClassRateLimited, task.SettledRetry, "*errors.errorString", time.Minute},
		"resource":                          {agent.Resource(cause), task.ClassResource, task.SettledRetry, "*errors.errorString", 0},
		"network":                           {agent.Network(cause), task.ClassNetwork, task.SettledRetry, "*errors.errorString", 0},
		"dependency":                        {agent.Dependency(cause), task.ClassDependency, task.SettledRetry, "*errors.errorString", 0},
		"wrapped":                           {fmt.Errorf("bill: %w", agent.Permanent(cause)), task.ClassPermanent, task.SettledDLQ, "*errors.errorString", 0},
		"a refused dial":                    {fmt.Errorf("ask: %w", refused), task.ClassNetwork, task.SettledRetry, "*net.OpError", 0},
		"no such host":                      {&net.DNSError{Err: "no such host"}, task.ClassNetwork, task.SettledRetry, "*net.DNSError", 0},
		"a full disk":                       {fmt.Errorf("write: %w", syscall.ENOSPC), task.ClassResource, task.SettledRetry, "syscall.Errno", 0},
		"a child's timeout":                 {fmt.Errorf("ask: %w", context.DeadlineExceeded), task.ClassTimeout, task.SettledRetry, "context.deadlineExceededError", 0},
		"a class of its own beats the rest": {agent.Permanent(refused), task.ClassPermanent, task.SettledDLQ, "*net.OpError", 0},
		"a class that nobody knows":         {&agent.Error{Class: "odd", Err: cause}, task.ClassInternal, task.SettledRetry, "*errors.errorString", 0},
		"nothing but a class":               {&agent.Error{Class: task.ClassPermanent}, task.ClassPermanent, task.SettledDLQ, "*agent.Error", 0},
		"an URL that is none":               {badURL(), task.ClassInternal, task.SettledRetry, "*url.Error", 0},
	} {
		got := agenttest.Run(t, failing(tt.err), agenttest.Event(1))
		if got.Outcome != task.Failed || got.Class != tt.class || got.Settled != tt.settled || got.ErrorType != tt.kind || got.RetryAfter != tt.after || got.Error != tt.err.Error() {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func badURL() error {
	_, err := http.NewRequest(http.MethodGet, "http://a b/", nil)
	return err
}

func TestAnAttemptBeyondItsDeadlineTimesOut(t *testing.T) {
	in := agenttest.Event(1)
	in.Timeout = time.Millisecond
	wait := func(ctx context.Context, _ *agent.Task) (json.RawMessage, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if got := agenttest.Run(t, wait, in); got.Outcome != task.TimedOut || got.Class != task.ClassTimeout {
		t.Errorf("%+v", got)
	}
	finished := func(ctx context.Context, _ *agent.Task) (json.RawMessage, error) {
		<-ctx.Done()
		return json.RawMessage("1"), nil
	}
	if got := agenttest.Run(t, finished, in); got.Outcome != task.Completed {
		t.Errorf("work that was done all the same: %+v", got)
	}
}

func TestWhatIsNoJSONIsNoResult(t *testing.T) {
	raw := func(context.Context, *agent.Task) (json.RawMessage, error) { return json.RawMessage("{"), nil }
	if got := agenttest.Run(t, raw, agenttest.Event(1)); got.Class != task.ClassPermanent || got.Settled != task.SettledDLQ {
		t.Errorf("%+v", got)
	}
	typed := agent.Handle(func(context.Context, agent.Event[any]) (any, error) { return func() {}, nil })
	if got := agenttest.Run(t, typed, agenttest.Event(1)); got.Class != task.ClassPermanent {
		t.Errorf("%+v", got)
	}
}

func TestContentIsTakenAsTheFunctionWantsIt(t *testing.T) {
	for name, tt := range map[string]struct {
		handler agent.Handler
		content any
		result  string
		class   task.Class
	}{
		"an object":            {agent.Handle(echo[order]), map[string]any{"id": 1, "amount": 2}, `{"ID":1,"Amount":2}`, ""},
		"a number":             {agent.Handle(echo[int]), 7, "7", ""},
		"JSON that isn't read": {agent.Handle(echo[json.RawMessage]), []byte(`{"a": 1.50}`), `{"a":1.50}`, ""},
		"bytes as they came":   {agent.Handle(echo[[]byte]), []byte{0xff}, `"/w=="`, ""},
		"nothing":              {agent.Handle(echo[*order]), []byte(nil), "null", ""},
		"anything":             {agent.Handle(echo[any]), []string{"a"}, `["a"]`, ""},
		"what doesn't fit":     {agent.Handle(echo[int]), "x", "", task.ClassInvalidInput},
		"what is no JSON":      {agent.Handle(echo[int]), []byte("x"), "", task.ClassInvalidInput},
	} {
		got := agenttest.Run(t, tt.handler, agenttest.Event(tt.content))
		if string(got.JSON) != tt.result || got.Class != tt.class {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func echo[T any](_ context.Context, e agent.Event[T]) (T, error) { return e.Content, nil }

func TestAMiddlewareLearnsWhatIsRecorded(t *testing.T) {
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for name, tt := range map[string]struct {
		ctx     context.Context
		err     error
		outcome task.Outcome
		class   task.Class
	}{
		"nothing":                        {t.Context(), nil, task.Completed, ""},
		"an error":                       {t.Context(), errors.New("odd"), task.Failed, task.ClassInternal},
		"one of a class":                 {t.Context(), fmt.Errorf("charge: %w", agent.Permanent(errors.New("blocked"))), task.Failed, task.ClassPermanent},
		"one after the deadline":         {expired, errors.New("odd"), task.TimedOut, task.ClassTimeout},
		"a success after the deadline":   {expired, nil, task.Completed, ""},
		"somebody else's deadline":       {t.Context(), context.DeadlineExceeded, task.Failed, task.ClassTimeout},
		"a class that nobody knows":      {t.Context(), &agent.Error{Class: "odd", Err: errors.New("odd")}, task.Failed, task.ClassInternal},
		"a message that says what it is": {t.Context(), errors.New("no resources"), task.Failed, task.ClassResource},
	} {
		if outcome, class := agent.Judge(tt.ctx, tt.err); outcome != tt.outcome || class != tt.class {
			t.Errorf("%s: %s %q", name, outcome, class)
		}
	}
}
