package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/agent/agenttest"
	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/task"
)

// nobody is an address where nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestAStartWithoutKafkaOrRegistrySaysWhatToDoAndLeavesNothing(t *testing.T) {
	reeve := agenttest.Start(t)
	expired, stop := context.WithCancel(t.Context())
	stop()
	for name, tt := range map[string]struct {
		change func(*agent.Options)
		says   string
	}{
		"no Kafka":      {func(o *agent.Options) { o.Brokers = []string{nobody(t)} }, "REEVE_KAFKA_BROKERS"},
		"no registry":   {func(o *agent.Options) { o.URL = "http://" + nobody(t) }, "REEVE_URL"},
		"another thing": {func(o *agent.Options) { o.URL = other(t, 200, "text/html", "hello") }, "doesn't answer as a registry"},
		"a wrong key": {func(o *agent.Options) {
			o.URL = other(t, 401, "application/problem+json", `{"code":"unauthorized","status":401,"detail":"no key"}`)
		}, "no key"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		o := reeve.Options()
		tt.change(&o)
		r, err := agent.NewRunner(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Register(ctx, hello()); err != nil {
			t.Fatal(err)
		}
		if err := r.Start(ctx); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
		<-r.Done()
		if err := agent.Run(expired, o, hello()); err != nil {
			t.Errorf("%s, a stop before it has started is none: %v", name, err)
		}
		if err := r.Start(ctx); !errors.Is(err, agent.ErrStarted) {
			t.Errorf("%s, a second start: %v", name, err)
		}
		if err := errors.Join(r.Shutdown(ctx), r.Err()); err != nil {
			t.Errorf("%s, shutdown: %v", name, err)
		}
		if err := r.Register(ctx, agent.Agent{Topic: "t", Handler: hello().Handler}); !errors.Is(err, agent.ErrStopped) {
			t.Errorf("%s, a registration after: %v", name, err)
		}
	}
}

// other is a server that is no registry.
func other(t *testing.T, status int, kind, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// gate is a registry that may be away.
type gate struct {
	http.RoundTripper
	away  atomic.Bool
	calls atomic.Int64
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	g.calls.Add(1)
	if g.away.Load() {
		return nil, errors.New("away")
	}
	return g.RoundTripper.RoundTrip(r)
}

func TestARunnerStartsWithoutTheRegistryWhereItsAgentIsKnownAndRegistersLater(t *testing.T) {
	reeve := agenttest.Start(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	g := &gate{RoundTripper: transport}
	o := reeve.Options()
	o.HTTP = &http.Client{Transport: g}
	r := startRunner(t, o, hello())
	reeve.Publish("orders", order{1, 1}).Outcome("hello")
	if err := r.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}

	g.away.Store(true)
	newer := hello()
	newer.Version = "2.0.0"
	r = startRunner(t, o, newer)
	reeve.Publish("orders", order{2, 1}).Outcome("hello")
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := r.Register(soon, agent.Agent{Topic: "orders", Name: "unheard", Handler: hello().Handler}); err == nil || !strings.Contains(err.Error(), "REEVE_URL") {
		t.Errorf("an agent that was never registered: %v", err)
	}
	if err := r.Unsubscribe(t.Context(), "orders", "hello", false); err == nil {
		t.Error("unsubscribed without a registry")
	}
	g.away.Store(false)
	eventually(t, func() bool {
		a, err := r.Agent(t.Context(), "orders", "hello")
		return err == nil && a.Version == "2.0.0"
	})
	if err := r.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it didn't come about")
		}
	}
}

func TestOfTwoProgramsOfOneNodeTheNewerWinsAndTheOlderSaysSo(t *testing.T) {
	reeve := agenttest.Start(t)
	o := reeve.Options()
	older := startRunner(t, o, hello())
	<-older.Ready()
	ended := make(chan error, 1)
	go func() {
		<-older.Failed()
		ended <- errors.Join(older.Err(), older.Shutdown(context.Background()))
	}()
	newer := startRunner(t, o, hello())
	if err := <-ended; !errors.Is(err, hop.ErrReplaced) || !strings.Contains(err.Error(), "REEVE_NODE") {
		t.Errorf("%v", err)
	}
	if err := older.Healthy(); !errors.Is(err, hop.ErrReplaced) {
		t.Errorf("healthy: %v", err)
	}
	reeve.Publish("orders", order{1, 1}).Outcome("hello")
	if err := newer.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOfTwoProgramsOfOneNodeTheNewerWinsAlsoWithOtherAgents(t *testing.T) {
	reeve := agenttest.Start(t)
	o := reeve.Options()
	older := startRunner(t, o, hello())
	<-older.Ready()
	newer := startRunner(t, o, agent.Agent{Topic: "invoices", Name: "hello", Handler: agent.Handle(accept)})
	eventually(t, func() bool { return errors.Is(older.Err(), hop.ErrReplaced) })
	reeve.Publish("invoices", order{1, 1}).Outcome("hello")
	for _, r := range []*agent.Runner{older, newer} {
		if err := r.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := newer.Err(); err != nil {
		t.Error(err)
	}
}

func TestAFunctionThatIgnoresItsContextIsLeftBehindAndNamed(t *testing.T) {
	reeve := agenttest.Start(t)
	begun, release := make(chan struct{}, 1), make(chan struct{})
	r := startRunner(t, reeve.Options(), agent.Agent{Topic: "orders", Name: "deaf", Handler: func(context.Context, *agent.Task) (json.RawMessage, error) {
		begun <- struct{}{}
		<-release
		return nil, nil
	}})
	defer close(release)
	reeve.Publish("orders", order{1, 1})
	<-begun
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Shutdown(now); err == nil || !strings.Contains(err.Error(), "orders/deaf") {
		t.Errorf("%v", err)
	}
}

func TestAFunctionThatTakesTwiceItsTimeIsAlertedAndThatIsTakenBack(t *testing.T) {
	reeve := agenttest.Start(t)
	release, alerts := make(chan struct{}), make(chan agent.Alert, 8)
	o := reeve.Options()
	o.OnAlert = func(a agent.Alert) { alerts <- a }
	r := startRunner(t, o, agent.Agent{Topic: "orders", Name: "deaf", RequestTimeout: 10 * time.Millisecond, Handler: func(context.Context, *agent.Task) (json.RawMessage, error) {
		<-release
		return nil, nil
	}})
	p := reeve.Publish("orders", order{1, 1})
	for _, resolved := range []bool{false, true} {
		select {
		case a := <-alerts:
			if a.Kind != "attempts_overdue" || a.Name != "deaf" || a.Resolved != resolved {
				t.Errorf("%+v", a)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no alert, resolved: %t", resolved)
		}
		if !resolved {
			close(release)
			if out := p.Outcome("deaf"); out.Outcome != task.Completed {
				t.Errorf("work that was done all the same: %+v", out)
			}
		}
	}
	if err := r.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAStopIsBoundedAlsoWhereOnAlertDoesNotReturn(t *testing.T) {
	reeve := agenttest.Start(t)
	called, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o := reeve.Options()
	o.OnAlert = func(agent.Alert) {
		once.Do(func() { close(called) })
		<-release
	}
	r := startRunner(t, o, agent.Agent{Topic: "orders", Name: "slow", RequestTimeout: 10 * time.Millisecond, Handler: func(context.Context, *agent.Task) (json.RawMessage, error) {
		<-called
		return nil, nil
	}})
	reeve.Publish("orders", order{1, 1})
	<-called
	stopped := make(chan error, 1)
	go func() { stopped <- r.Shutdown(t.Context()) }()
	select {
	case err := <-stopped:
		if err == nil || !strings.Contains(err.Error(), "OnAlert") {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the stop waits for OnAlert")
	}
	close(release)
}

func TestAChangedSpecCountsForARunningProgram(t *testing.T) {
	reeve := agenttest.Start(t)
	r := reeve.Run(hello())
	changed := hello()
	changed.MaxRetries, changed.Concurrency, changed.Version = new(0), 1, "2.0.0"
	o := reeve.Options()
	other := startRunner(t, o, changed) // another program registers the agent anew
	if err := other.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		all := reeve.Publish("orders", order{1, 0}).Attempts("hello") // flaky
		if all[0].Version != "1.0.0" {
			t.Errorf("an attempt of this program is recorded as version %s", all[0].Version)
		}
		return len(all) == 1 && all[0].Settled == task.SettledDLQ
	})
	if err := r.Healthy(); err != nil {
		t.Error(err)
	}
	if _, err := r.Metrics(t.Context(), ""); client.Code(err) != "not_in_the_test_kit" {
		t.Errorf("%v", err)
	}
}
