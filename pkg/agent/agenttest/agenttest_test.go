package agenttest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// copier publishes what it gets, and fails where that is negative.
var copier = agent.Agent{Topic: "numbers", Name: "copier", Handler: agent.Handle(func(_ context.Context, e agent.Event[int]) (int, error) {
	if err := e.Publish(&kgo.Record{Topic: "copies", Key: []byte("one partition"), Value: fmt.Append(nil, e.Content)}); err != nil {
		return 0, err
	}
	switch {
	case e.Content < 0:
		return 0, errors.New("negative")
	case e.Content == 99:
		panic("ninety-nine")
	}
	return e.DeliveryAttempts(), nil
})}

func TestAHandlersAttemptIsToldWhole(t *testing.T) {
	in := agenttest.Event(7)
	in.Attempt = 3
	var n int
	got := agenttest.Run(t, copier.Handler, in)
	if got.Decode(t, &n); n != 3 || got.Settled != task.SettledDone || len(got.Published) != 1 || got.Published[0].Topic != "copies" {
		t.Errorf("%+v", got)
	}
	if got = agenttest.Run(t, copier.Handler, agenttest.Event(-1)); got.Outcome != task.Failed || got.Settled != task.SettledRetry || got.Published != nil || got.Error != "negative" {
		t.Errorf("%+v", got)
	}
	in = agenttest.Event(-1)
	in.Attempt = 4 // the retries are used up
	if got = agenttest.Run(t, copier.Handler, in); got.Settled != task.SettledDLQ {
		t.Errorf("%+v", got)
	}
	in.Agent.DLQEnabled = new(false)
	if got = agenttest.Run(t, copier.Handler, in); got.Settled != task.SettledFailed {
		t.Errorf("%+v", got)
	}
	if got = agenttest.Run(t, copier.Handler, agenttest.Event(99)); got.Outcome != task.Crashed || got.Class != task.ClassCrash || got.Traceback == "" {
		t.Errorf("%+v", got)
	}
}

func TestAnEventThatClaimsAFormatAndIsNotInItIsNotRun(t *testing.T) {
	in := agenttest.In{Record: &kgo.Record{Value: []byte("{"), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json")}}}}
	got := agenttest.Run(t, func(context.Context, *agent.Task) (json.RawMessage, error) { panic("called") }, in)
	if got.Outcome != task.Rejected || got.Class != task.ClassInvalidInput || got.Settled != task.SettledDLQ {
		t.Errorf("%+v", got)
	}
	in.Agent.DLQEnabled = new(false)
	if got = agenttest.Run(t, copier.Handler, in); got.Settled != task.SettledDropped {
		t.Errorf("%+v", got)
	}
}

func TestTheWholePathOfAnEvent(t *testing.T) {
	reeve := agenttest.Start(t)
	early := reeve.Publish("numbers", 1) // before anybody listens: not skipped
	r := reeve.Run(copier)
	var n int
	if early.Outcome("copier").Decode(t, &n); n != 1 {
		t.Error(n)
	}
	bad := reeve.Publish("numbers", -1).Attempts("copier")
	if len(bad) != 4 || bad[3].Settled != task.SettledDLQ || bad[3].Attempt != 4 || bad[0].Settled != task.SettledRetry {
		t.Errorf("%+v", bad)
	}
	if dead := reeve.DeadLetters("numbers", "copier", 1); len(dead) != 1 {
		t.Errorf("%d dead letters", len(dead))
	}
	reeve.Publish("numbers", 2).Outcome("copier")
	if copies := reeve.Records("copies", 2); string(copies[0].Value) != "1" || string(copies[1].Value) != "2" {
		t.Errorf("%s and %s are copies of what was completed", copies[0].Value, copies[1].Value)
	}

	ctx := t.Context()
	if as, err := r.Agents(ctx, "numbers"); err != nil || len(as) != 1 || as[0].Name != "copier" || as[0].Runtime != "sdk" {
		t.Errorf("%+v, %v", as, err)
	}
	if err := r.Unsubscribe(ctx, "numbers", "copier", true); err != nil {
		t.Fatal(err)
	}
	waiting := reeve.PublishRecord(&kgo.Record{Topic: "numbers", Key: []byte("k"), Value: []byte("5")})
	held := reeve.Run(copier) // another program: held is held
	if held.Figures()[0].Running > 0 {
		t.Error("a held agent runs")
	}
	if err := r.Resume(ctx, "numbers", "copier"); err != nil {
		t.Fatal(err)
	}
	waiting.Outcome("copier")
	if gone, err := r.DeleteTopic(ctx, "numbers", agent.DeleteOptions{Group: true}); err != nil || len(gone) != 1 || !gone[0].Cleanup.ConsumerGroupDeleted {
		t.Errorf("%+v, %v", gone, err)
	}
	if err := r.Resume(ctx, "numbers", "copier"); client.Code(err) != "agent_not_found" {
		t.Error(err)
	}
	if _, err := r.Health(ctx); client.Code(err) != "not_in_the_test_kit" {
		t.Errorf("what the kit doesn't have is said: %v", err)
	}
}

// Nothing waits for its retries in the kit, neither does a key of a strict agent.
func TestAStrictAgentsRetriesAreDueAtOnce(t *testing.T) {
	reeve := agenttest.Start(t)
	strict := copier
	strict.Ordering = agent.OrderingStrict
	reeve.Run(strict)
	bad := reeve.PublishRecord(&kgo.Record{Topic: "numbers", Key: []byte("k"), Value: []byte("-1")})
	reeve.PublishRecord(&kgo.Record{Topic: "numbers", Key: []byte("k"), Value: []byte("2")}).Outcome("copier")
	if got := bad.Attempts("copier"); len(got) != 4 || got[3].Settled != task.SettledDLQ || got[3].Attempt != 4 || got[0].Settled != task.SettledRetry {
		t.Errorf("%+v", got)
	}
}

func TestARunnerOfOnesOwnIsTestedByItsOptions(t *testing.T) {
	reeve := agenttest.Start(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, reeve.Options(), copier) }()
	reeve.Publish("numbers", 1).Outcome("copier")
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it doesn't end")
	}
}
