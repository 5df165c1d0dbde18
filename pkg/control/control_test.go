package control

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type call struct {
	ready map[string]*spec.Agent
	key   string
	agent *spec.Agent
}

type calls chan call

func (c calls) Ready(all map[string]*spec.Agent)  { c <- call{ready: all} }
func (c calls) Changed(key string, a *spec.Agent) { c <- call{key: key, agent: a} }
func (c calls) next(t *testing.T) call {
	t.Helper()
	select {
	case got := <-c:
		return got
	case <-time.After(time.Minute):
		t.Fatal("the handler heard nothing")
		return call{}
	}
}

func cluster(t *testing.T) []kgo.Opt {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}
}

func follow(t *testing.T, opts []kgo.Opt) calls {
	t.Helper()
	heard := make(calls, 100)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, opts, topics.Names{}, slog.New(slog.DiscardHandler), heard)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow returned %v", err)
		}
	})
	return heard
}

func producer(t *testing.T, opts []kgo.Opt, create bool, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(append([]kgo.Opt{kgo.DefaultProduceTopic(topics.Names{}.Control())}, opts...), more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if create {
		createTopic(t, cl)
	}
	return cl
}

func createTopic(t *testing.T, cl *kgo.Client) {
	t.Helper()
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, topics.Names{}.Control()); err != nil {
		t.Fatal(err)
	}
}

func produce(t *testing.T, cl *kgo.Client, key, value string) {
	t.Helper()
	r := &kgo.Record{Key: []byte(key)}
	if value != "" {
		r.Value = []byte(value)
	}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

const (
	a1 = `{"topic":"t","name":"a","phase":"active","partitions":8,"generation":1}`
	a2 = `{"topic":"t","name":"a","phase":"paused","partitions":8,"generation":2}`
	b1 = `{"topic":"t","name":"b","phase":"active","partitions":8,"generation":1}`
)

func TestNothingIsSaidBeforeTheEndWasRead(t *testing.T) {
	opts := cluster(t)
	cl := producer(t, opts, true)
	produce(t, cl, "agent/t/a", a1)
	produce(t, cl, "agent/t/b", b1)
	produce(t, cl, "var/x", `1`)
	produce(t, cl, "agent/t/a", a2)
	produce(t, cl, "agent/t/b", "")
	heard := follow(t, opts)
	first := heard.next(t)
	if len(first.ready) != 1 || first.ready["agent/t/a"].Generation != 2 {
		t.Fatalf("ready with %+v", first.ready)
	}
	produce(t, cl, "agent/t/b", b1)
	if got := heard.next(t); got.key != "agent/t/b" || got.agent.Phase != spec.Active {
		t.Errorf("%+v", got)
	}
	produce(t, cl, "agent/t/a", "")
	if got := heard.next(t); got.key != "agent/t/a" || got.agent != nil {
		t.Errorf("%+v", got)
	}
}

func TestABadRecordIsSkippedAndTheAgentKeepsItsState(t *testing.T) {
	opts := cluster(t)
	cl := producer(t, opts, true)
	produce(t, cl, "agent/t/a", a1)
	for _, bad := range []string{"{", "[]", "null", b1, `{"topic":"t","name":"a","partitions":8}`, `{"topic":"t","name":"a","phase":"active"}`} {
		produce(t, cl, "agent/t/a", bad)
	}
	heard := follow(t, opts)
	if got := heard.next(t); got.ready["agent/t/a"].Generation != 1 {
		t.Errorf("%+v", got)
	}
}

func TestATransactionsMarkerAtTheEndIsNotWaitedFor(t *testing.T) {
	opts := cluster(t)
	cl := producer(t, opts, true, kgo.TransactionalID("relay"))
	for _, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		value := a1
		if commit == kgo.TryAbort {
			value = a2
		}
		produce(t, cl, "agent/t/a", value)
		if err := cl.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	heard := follow(t, opts)
	if got := heard.next(t); got.ready["agent/t/a"].Generation != 1 {
		t.Errorf("%+v", got)
	}
}

func TestATopicThatIsMadeLaterIsFound(t *testing.T) {
	opts := cluster(t)
	heard := follow(t, opts)
	cl := producer(t, opts, true)
	if got := heard.next(t); got.ready == nil || len(got.ready) != 0 {
		t.Fatalf("%+v", got)
	}
	produce(t, cl, "agent/t/a", a1)
	if got := heard.next(t); got.agent == nil || got.agent.Generation != 1 {
		t.Errorf("%+v", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("agent/t/a"), []byte(a1))
	f.Add([]byte("agent/t/a"), []byte("{"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		a, err := Decode(&kgo.Record{Key: key, Value: value})
		if err == nil && a != nil && (a.Key() != string(key) || a.Partitions < 1) {
			t.Errorf("accepted %q under %q", value, key)
		}
	})
}
