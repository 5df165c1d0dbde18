package agenttest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

// In is an event for a handler, and the circumstances of the attempt.
type In struct {
	// Message is the event, in Reeve's envelope. Its topic defaults to "events".
	Message agent.Message
	// Record is the event as it stands on its topic, instead of Message.
	Record *kgo.Record
	// Attempt is the attempt's number. Defaults to 1.
	Attempt int
	// Timeout is when the attempt's context ends. Defaults to that of the agent, 120 s.
	Timeout time.Duration
	// Agent is whose handler it is, for what becomes of a failure. Defaults to one with the defaults of all.
	Agent agent.Agent
}

// Event is an event with a content and nothing else; []byte is a record with that value.
func Event(content any) In {
	if raw, ok := content.([]byte); ok {
		return In{Record: &kgo.Record{Value: raw}}
	}
	return In{Message: agent.Message{Content: content}}
}

// Result is how an attempt ended.
type Result struct {
	// Outcome is completed, failed, timed_out, crashed or, for an event that claims a format and isn't in it, whose filter can't
	// be evaluated, or whose type the agent doesn't take, rejected.
	Outcome task.Outcome
	// Filtered says that the event isn't the agent's, by its filter or by its type: nothing becomes of it, and there is no
	// outcome.
	Filtered bool
	// JSON is the result of a completed attempt.
	JSON json.RawMessage
	// Published is what becomes visible with the outcome; nothing unless it is completed.
	Published []*kgo.Record
	// Class, Error, ErrorType, RetryAfter and Traceback tell of a failure. Class is the one that was decided by.
	Class      task.Class
	Error      string
	ErrorType  string
	RetryAfter time.Duration
	Traceback  string
	// Settled is what becomes of the task then: done, retry, dlq, failed or dropped. Retries that an earlier attempt used up count
	// as if each of them had failed.
	Settled task.Settled
}

// Decode decodes the result of a completed attempt.
func (r Result) Decode(t testing.TB, v any) {
	t.Helper()
	if r.Outcome != task.Completed {
		t.Fatalf("the attempt isn't completed but %s: %s", r.Outcome, r.Error)
	}
	if err := json.Unmarshal(r.JSON, v); err != nil {
		t.Fatalf("decode the result %s: %v", r.JSON, err)
	}
}

// Run calls a handler once, as a Runner would, without a broker. A panic of the handler is a crash of the attempt.
func Run(t testing.TB, h agent.Handler, in In) Result {
	t.Helper()
	a := in.agent(t)
	record, filtered := in.record(t, a)
	if filtered {
		return Result{Filtered: true}
	}
	if route.Header(record, task.HeaderOutcome) != "" { // it is rejected without a worker
		return Result{Outcome: task.Rejected, Settled: task.SettledDropped, Class: task.Class(route.Header(record, task.HeaderErrorClass)), Error: route.Header(record, task.HeaderErrorMessage)}
	}
	if class := route.Header(record, task.HeaderErrorClass); class != "" {
		return result(a, in.Attempt, worker.Result{Outcome: task.Rejected, Class: task.Class(class), Message: route.Header(record, task.HeaderErrorMessage)})
	}
	ended := make(chan worker.Result, 1)
	calls := worker.NewFuncRunner(1, agent.Func(h, a, topics.Names{}))
	defer calls.Close()
	timeout := in.Timeout
	if timeout == 0 {
		timeout = worker.AttemptTimeout(a, 0)
	}
	number := max(in.Attempt, 1)
	calls.Run([]*worker.Attempt{worker.NewAttempt(record, number, timeout, false, func(r worker.Result) { ended <- r })})
	return result(a, number, <-ended)
}

func (in In) topic() string {
	for _, topic := range []string{in.Agent.Topic, in.Message.Topic} {
		if topic != "" {
			return topic
		}
	}
	if in.Record != nil && in.Record.Topic != "" {
		return in.Record.Topic
	}
	return "events"
}

// agent is the agent's spec.
func (in In) agent(t testing.TB) *spec.Agent {
	t.Helper()
	in.Agent.Topic = in.topic()
	a, err := in.Agent.Spec(topics.Names{}, topics.DefaultTiers())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// record is the event as the dispatcher would put it on the task topic, or on that of outcomes where it is rejected.
func (in In) record(t testing.TB, a *spec.Agent) (_ *kgo.Record, filtered bool) {
	t.Helper()
	r := in.Record
	if r == nil {
		m := in.Message
		m.Topic = in.topic()
		var err error
		if r, err = m.Record(); err != nil {
			t.Fatal(err)
		}
	}
	gate, err := route.NewGate(a, compile)
	if err != nil {
		t.Fatal(err)
	}
	outs := through(topics.Names{}, a, gate, &route.Spread{}, []*kgo.Record{r})
	if len(outs) == 0 {
		return nil, true
	}
	return outs[0], false
}

// result adds what becomes of the task.
func result(a *spec.Agent, number int, r worker.Result) Result {
	v := worker.Judge(worker.NewPolicy(a, topics.DefaultTiers()), worker.Tries{Number: number, Burnt: number - 1}, r)
	out := Result{Outcome: r.Outcome, JSON: r.Value, Class: v.Class, Error: r.Message, ErrorType: r.Type, RetryAfter: r.RetryAfter, Traceback: r.Traceback, Settled: v.Settled}
	if v.Settled == task.SettledDone {
		out.Published = r.Publish
	}
	return out
}
