package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/agent/agenttest"
	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type order struct {
	ID     int
	Amount float64
}

type accepted struct {
	ID      int `json:"accepted"`
	Attempt int `json:"attempt"`
}

func accept(_ context.Context, e agent.Event[order]) (accepted, error) {
	switch {
	case e.Content.Amount < 0:
		return accepted{}, agent.InvalidInput(errors.New("a negative amount"))
	case e.Content.Amount == 0 && e.DeliveryAttempts() < 3:
		return accepted{}, errors.New("not yet")
	case e.Content.Amount > 1000:
		panic("too much")
	}
	return accepted{e.Content.ID, e.DeliveryAttempts()}, nil
}

func hello() agent.Agent {
	return agent.Agent{Topic: "orders", Name: "hello", Handler: agent.Handle(accept)}
}

func TestEachEventEndsAsItsFunctionSays(t *testing.T) {
	reeve := agenttest.Start(t)
	reeve.Run(hello())
	good, flaky := reeve.Publish("orders", order{17, 3}), reeve.Publish("orders", order{18, 0})
	bad, poison, odd := reeve.Publish("orders", order{19, -1}), reeve.Publish("orders", order{20, 2000}), reeve.Publish("orders", []byte("no JSON"))

	var a accepted
	if good.Outcome("hello").Decode(t, &a); a != (accepted{17, 1}) {
		t.Errorf("%+v", a)
	}
	if flaky.Outcome("hello").Decode(t, &a); a != (accepted{18, 3}) {
		t.Errorf("%+v", a)
	}
	for name, tt := range map[string]struct {
		event    agenttest.Published
		outcome  task.Outcome
		class    task.Class
		attempts int
		says     string
	}{
		"its input is invalid": {bad, task.Failed, task.ClassInvalidInput, 1, "a negative amount"},
		"its function panics":  {poison, task.Crashed, task.ClassCrash, 4, "panic: too much"},
		"it doesn't decode":    {odd, task.Failed, task.ClassInvalidInput, 1, "no JSON"},
	} {
		all := tt.event.Attempts("hello")
		last := all[len(all)-1]
		if len(all) != tt.attempts || last.Outcome != tt.outcome || last.Settled != task.SettledDLQ || last.Class != tt.class || !strings.Contains(last.Error, tt.says) {
			t.Errorf("%s: %+v", name, all)
		}
	}
	if n := len(reeve.DeadLetters("orders", "hello", 3)); n != 3 {
		t.Errorf("%d dead letters", n)
	}
}

func TestSeveralAgentsOfOneProgramEachGetEveryEvent(t *testing.T) {
	reeve := agenttest.Start(t)
	shout := agent.Agent{Topic: "orders", Name: "shout", Handler: agent.Handle(func(_ context.Context, e agent.Event[order]) (string, error) {
		topic, name := e.Agent()
		return fmt.Sprintf("%s/%s %d", topic, name, e.Content.ID), nil
	})}
	reeve.Run(hello(), shout)
	p := reeve.Publish("orders", order{1, 1})
	if got := string(p.Outcome("hello").JSON) + string(p.Outcome("shout").JSON); got != `{"accepted":1,"attempt":1}"orders/shout 1"` {
		t.Error(got)
	}
}

func TestWhatAnEventBringsAlongReachesTheFunctionAndTheReply(t *testing.T) {
	reeve := agenttest.Start(t)
	reeve.Run(agent.Agent{Topic: "orders", Name: "who", Handler: agent.Handle(func(_ context.Context, e agent.Event[string]) (string, error) {
		return strings.Join([]string{e.ID(), e.CorrelationID(), e.CausationID(), e.TenantID(), e.Source(), e.ReplyTo(), e.Webhook(), e.Type(), string(e.Key()), e.Topic(), e.TaskID(), e.Content,
			strconv.FormatInt(e.CreatedAt().Unix(), 10), e.Header("reeve-agent")}, " "), nil
	})})
	p := reeve.PublishMessage(agent.Message{Topic: "orders", Content: "hi", Key: []byte("k"), ID: "e1", Type: "ty", CorrelationID: "c", CausationID: "b", TenantID: "t", Source: "s",
		ReplyTo: "answers", Webhook: "http://w", CreatedAt: time.Unix(1700000000, 0)})
	want := "e1 c b t s answers http://w ty k orders " + p.TaskID + " hi 1700000000 orders/who"
	var got string
	if p.Outcome("who").Decode(t, &got); got != want {
		t.Errorf("%s\nnot %s", got, want)
	}
	if reply := string(reeve.Records("answers", 1)[0].Value); !strings.Contains(reply, want) || !strings.Contains(reply, `"correlation_id":"c"`) {
		t.Error(reply)
	}
	if hook := string(reeve.Records("reeve.webhooks", 1)[0].Value); !strings.Contains(hook, want) || !strings.Contains(hook, `"task_id":"e1"`) {
		t.Error(hook)
	}
}

func TestWhatAFunctionPublishesComesWithItsOutcomeOrNotAtAll(t *testing.T) {
	reeve := agenttest.Start(t)
	reeve.Run(agent.Agent{Topic: "orders", Name: "biller", Handler: agent.Handle(func(_ context.Context, e agent.Event[order]) (any, error) {
		r, err := agent.Message{Topic: "invoices", Key: []byte("one partition"), Content: e.Content.ID, CausationID: e.ID()}.Record()
		if err == nil {
			err = e.Publish(r)
		}
		if err == nil && e.DeliveryAttempts() < 2 {
			err = errors.New("after it has published")
		}
		return nil, err
	})})
	p := reeve.Publish("orders", order{7, 1})
	if all := p.Attempts("biller"); len(all) != 2 || string(all[1].JSON) != "null" {
		t.Errorf("%+v", all)
	}
	reeve.Publish("orders", order{8, 1}).Outcome("biller")
	for i, r := range reeve.Records("invoices", 2)[:2] { // one partition, so that one too many would be among the first
		if want := []string{`"content":7`, `"content":8`}[i]; !strings.Contains(string(r.Value), want) {
			t.Errorf("record %d is %s, not the one with %s", i, r.Value, want)
		}
	}
}

func many(n int, value []byte) []*kgo.Record {
	rs := make([]*kgo.Record, n)
	for i := range rs {
		rs[i] = &kgo.Record{Topic: "invoices", Value: value}
	}
	return rs
}

func TestWhatMayNotBePublishedIsRefused(t *testing.T) {
	got := agenttest.Run(t, agent.Handle(func(_ context.Context, e agent.Event[any]) (any, error) {
		return nil, e.Publish(&kgo.Record{Topic: "reeve.control"})
	}), agenttest.Event(1))
	if got.Class != task.ClassPermanent || !strings.Contains(got.Error, "reeve.control") || len(got.Published) > 0 {
		t.Errorf("%+v", got)
	}
	var late *agent.Task
	for says, rs := range map[string][]*kgo.Record{
		"at most 10000 records":  many(10_001, nil),
		"at most 33554432 bytes": many(33, make([]byte, 1<<20)),
		"1 to 249":               {{Topic: "no topic"}},
	} {
		got = agenttest.Run(t, agent.Handle(func(_ context.Context, e agent.Event[any]) (any, error) { late = e.Task; return nil, e.Publish(rs...) }), agenttest.Event(1))
		if got.Class != task.ClassPermanent || !strings.Contains(got.Error, says) {
			t.Errorf("%s: %+v", says, got)
		}
	}
	if err := late.Publish(many(1, nil)...); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Error(err)
	}
	r, err := agent.NewRunner(agent.Options{Environ: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Register(t.Context(), agent.Agent{Topic: "reeve.outcomes", Handler: hello().Handler}); err == nil || !strings.Contains(err.Error(), "Reeve's own") {
		t.Error(err)
	}
}

func TestPausedItGetsNothingAndResumedItGoesOn(t *testing.T) {
	reeve := agenttest.Start(t)
	r := reeve.Run(hello())
	reeve.Publish("orders", order{1, 1}).Outcome("hello")
	if err := r.Unsubscribe(t.Context(), "orders", "hello", false); err != nil {
		t.Fatal(err)
	}
	awaitState(t, r, "idle")
	p := reeve.Publish("orders", order{2, 1})
	if a, err := r.Agent(t.Context(), "orders", "hello"); err != nil || a.Phase != "paused" {
		t.Errorf("%+v, %v", a, err)
	}
	if err := r.Healthy(); err != nil {
		t.Errorf("a paused agent is no trouble: %v", err)
	}
	if err := r.Resume(t.Context(), "orders", "hello"); err != nil {
		t.Fatal(err)
	}
	p.Outcome("hello")
	if n := r.Figures()[0].Attempts[task.Completed]; n != 2 {
		t.Errorf("%d attempts, not 2", n)
	}
	if _, err := r.Delete(t.Context(), "orders", "hello", agent.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitState(t, r, "idle")
	if _, err := r.Agent(t.Context(), "orders", "hello"); client.Code(err) != "agent_not_found" {
		t.Error(err)
	}
}

// awaitState waits until the first agent of a Runner is in a state.
func awaitState(t *testing.T, r *agent.Runner, state string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for r.Figures()[0].State != state {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("it isn't %s but %s", state, r.Figures()[0].State)
		}
	}
}

func TestAStopLetsWhatRunsEndAndARestartRepeatsNothing(t *testing.T) {
	reeve := agenttest.Start(t)
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	var calls atomic.Int64
	slow := agent.Agent{Topic: "orders", Name: "slow", Handler: agent.Handle(func(_ context.Context, e agent.Event[order]) (any, error) {
		calls.Add(1)
		begun <- struct{}{}
		<-finish
		return e.Content.ID, nil
	})}
	o := reeve.Options()
	r := startRunner(t, o, slow)
	p := reeve.Publish("orders", order{1, 1})
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- r.Shutdown(context.Background()) }()
	select {
	case err := <-stopped:
		t.Fatalf("it stopped before the function had ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(finish)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if o := p.Outcome("slow"); o.Outcome != task.Completed {
		t.Errorf("%+v", o)
	}
	r = startRunner(t, o, slow) // under the same node, so that it finds its partitions at once
	reeve.Publish("orders", order{2, 1}).Outcome("slow")
	if err := r.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls of 2 events", n)
	}
}

func startRunner(t *testing.T, o agent.Options, agents ...agent.Agent) *agent.Runner {
	t.Helper()
	r, err := agent.NewRunner(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range agents {
		if err := r.Register(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAStopIsBoundedByItsContextAndTheFunctionSeesIt(t *testing.T) {
	reeve := agenttest.Start(t)
	begun := make(chan struct{}, 1)
	var cut atomic.Bool
	r := startRunner(t, reeve.Options(), agent.Agent{Topic: "orders", Name: "endless", Handler: agent.Handle(func(ctx context.Context, _ agent.Event[order]) (any, error) {
		begun <- struct{}{}
		<-ctx.Done()
		cut.Store(errors.Is(ctx.Err(), context.Canceled))
		return nil, ctx.Err()
	})})
	reeve.Publish("orders", order{1, 1})
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Shutdown(ctx); err != nil || !cut.Load() {
		t.Errorf("%v, cut short: %t", err, cut.Load())
	}
	<-r.Done()
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

func TestAnAgentMayBeAddedToARunnerThatRuns(t *testing.T) {
	reeve := agenttest.Start(t)
	r := reeve.Run()
	if err := r.Register(t.Context(), hello()); err != nil {
		t.Fatal(err)
	}
	reeve.Publish("orders", order{1, 1}).Outcome("hello")
	if err := r.Register(t.Context(), hello()); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("a second of its name: %v", err)
	}
	if p, err := r.Publish(t.Context(), agent.Message{Topic: "orders", Content: order{2, 1}}); err != nil || p.EventId == "" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := r.Publish(t.Context(), agent.Message{Topic: "nowhere"}); err == nil || !strings.Contains(err.Error(), "create it") {
		t.Error(err)
	}
}

func TestMiddlewareSeesEveryAttempt(t *testing.T) {
	reeve := agenttest.Start(t)
	var seen atomic.Int64
	o := reeve.Options()
	o.Middleware = []agent.Middleware{func(next agent.Handler) agent.Handler {
		return func(ctx context.Context, t *agent.Task) (r json.RawMessage, err error) {
			defer func() {
				if err != nil {
					seen.Add(100)
				}
				seen.Add(1)
			}()
			return next(ctx, t)
		}
	}}
	r, err := agent.NewRunner(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	if err := r.Register(ctx, hello()); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- r.Run(ctx) }()
	reeve.Publish("orders", order{1, 0}).Outcome("hello") // completed by its third attempt
	if n := seen.Load(); n != 203 {
		t.Errorf("%d", n)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
