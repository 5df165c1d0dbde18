package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/tests/harness"
)

// An agent is paused and stopped again and again in the middle of its work, and services are restarted meanwhile: what was
// fetched and not started, what ran, and what waits for its retry is run once, and nothing runs before somebody says so.
func TestPausingStrandsNothingAndNothingUnpauses(t *testing.T) {
	onEachKafka(t, pausedAgainAndAgain)
}

func pausedAgainAndAgain(t *testing.T, sys *harness.System) {
	const events = 80 // a round
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	l := followLedger(t, sys)
	ps := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerBusy(t, sys, topic, "stock", sys.Prefix)
	registerBusy(t, sys, topic, "other", sys.Prefix+"-other")
	stock, other, agent := topic+"/stock", topic+"/other", "/v1/agents/"+topic+"/stock"

	for round, halt := range []struct{ end, begin, phase string }{{"unsubscribe", "resume", "paused"}, {"stop", "start", "initialized"}, {"unsubscribe", "resume", "paused"}} {
		await(t, l, 60, func() bool { return l.of(stock) >= round*events && l.of(other) >= round*events })
		gate := filepath.Join(t.TempDir(), "open")
		publishGated(t, sys, topic, events, gate)
		await(t, l, 60, func() bool {
			return l.of(stock) >= round*events+events/8 && l.retriesOf(stock) > round*events/4
		})
		call(t, sys, http.MethodPost, agent+"/"+halt.end, map[string]any{}, nil)
		eventually(t, time.Minute, func() string { return halting(t, sys, topic, "stock") })
		if err := os.WriteFile(gate, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, func() string { return differ(marked(t, sys), 0) })
		l.drain() // also retries fall due meanwhile
		if l.of(stock) >= (round+1)*events {
			t.Fatal("it was done before it was halted")
		}
		seen := l.all(stock)
		if round == 1 { // rolling: nobody un-pauses anything by starting
			for i, name := range []string{"dispatcher.d0", "supervisor.s0", "registry.r0"} {
				at := (i + 1) % len(ps)
				stop(t, ps[at])
				ps[at] = start(t, sys, name)[0]
			}
			l.drain()
		}
		await(t, l, 60, func() bool { return l.of(other) >= (round+1)*events }) // its retries don't wait behind those of a paused agent
		var a struct{ Phase string }
		call(t, sys, http.MethodGet, agent, nil, &a)
		if got := l.all(stock); got != seen || a.Phase != halt.phase {
			t.Errorf("round %d: %d outcomes came while it was %s; its phase is %s", round, got-seen, halt.phase, a.Phase)
		}
		call(t, sys, http.MethodPost, agent+"/"+halt.begin, nil, nil)
	}
	await(t, l, 120, func() bool { return l.of(stock) >= 3*events && l.of(other) >= 3*events })
	l.check(t)
	for _, name := range []string{"stock", "other"} {
		var m struct{ Received, Completed, Retried, Waiting, Running int }
		eventually(t, time.Minute, func() string {
			call(t, sys, http.MethodGet, "/v1/agents/"+topic+"/"+name+"/metrics", nil, &m)
			if m.Received != 3*events || m.Completed != 3*events || m.Retried != 3*events/4 || m.Waiting+m.Running != 0 {
				return fmt.Sprintf("%s: %+v", name, m)
			}
			return ""
		})
	}
}

// publishGated publishes events, a quarter of them flaky. Half of them have one key, so they run in their order; the one in
// their middle goes on once there is a file, and what a process has got behind it waits with it. That is less than what
// stands behind it.
func publishGated(t *testing.T, sys *harness.System, topic string, n int, file string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var records []*kgo.Record
	for i := range n {
		r := &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: []byte(`{"do":"work"}`)}
		if i < n/2 {
			r.Key = []byte("gated")
		}
		switch {
		case i%4 == 0:
			r.Value = []byte(`{"do":"flaky"}`)
		case i == n/4+1:
			r.Value = fmt.Appendf(nil, `{"do":"gate","file":%q}`, file)
		}
		records = append(records, r)
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// halting says "" once an agent's process drains, or has ended.
func halting(t *testing.T, sys *harness.System, topic, name string) string {
	t.Helper()
	var list struct {
		Items []struct{ Instance, State string }
	}
	call(t, sys, http.MethodGet, "/v1/instances?topic="+topic+"&name="+name, nil, &list)
	for _, i := range list.Items {
		if i.State == "STOPPING" {
			return ""
		}
	}
	if marked(t, sys) == 0 {
		return ""
	}
	return fmt.Sprintf("it goes on: %+v", list.Items)
}

// Services that get SIGTERM in the middle of work finish and settle what runs, say that they leave, and orphan nothing.
func TestAStopInTheMiddleOfWorkSettlesWhatRunsAndLeavesNothing(t *testing.T) {
	onEachKafka(t, stoppedInTheMiddle)
}

func stoppedInTheMiddle(t *testing.T, sys *harness.System) {
	const events = 1200
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	l := followLedger(t, sys)
	ps := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerBusy(t, sys, topic, "stock", sys.Prefix)
	publishFlaky(t, sys, topic, events)
	await(t, l, 60, func() bool { return l.done >= events/8 })
	stop(t, ps[2], ps[1]) // the supervisor first: each with exit code 0
	if n := marked(t, sys); n != 0 {
		t.Errorf("%d processes of the agent are left", n)
	}
	l.drain()
	if l.done >= events {
		t.Fatal("it was done before it was stopped")
	}
	eventually(t, time.Minute, func() string {
		var status *harness.StatusError
		err := sys.Call(t.Context(), http.MethodGet, "/health", nil, nil)
		if errors.As(err, &status) && strings.Contains(status.Body, `"status":"stopped"`) && strings.Contains(status.Body, `"uptime_seconds":0`) {
			return ""
		}
		return fmt.Sprint(err)
	})
	start(t, sys, "dispatcher.d0", "supervisor.s0")
	l.await(t, events)
	l.check(t)
	for key, outcomes := range l.seen {
		for _, o := range outcomes {
			if o.Attempt > 2 || o.Outcome == task.Crashed {
				t.Errorf("%s: an orderly stop repeats nothing: %+v", key, o)
			}
		}
	}
}

// registerBusy registers an agent that has several tasks at a time.
func registerBusy(t *testing.T, sys *harness.System, topic, name, mark string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(sys.AgentsDir(), name), os.DirFS("testdata/stock")); err != nil {
		t.Fatal(err)
	}
	err := sys.Register(t.Context(), map[string]any{
		"topic": topic, "name": name, "runtime": "command", "dir": name, "command": []string{"python3", "adapter.py"},
		"env": map[string]string{"E2E_MARK": mark}, "config": map[string]any{"max_retries": 2, "retry_delays": []string{"1s"}, "concurrency": 8},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// of counts an agent's finished tasks, all its outcomes, and retriesOf the attempts that sent a task to a retry.
func (l *ledger) of(agent string) int {
	return l.countOf(agent, func(o harness.Outcome) bool { return o.Final })
}

func (l *ledger) all(agent string) int {
	return l.countOf(agent, func(harness.Outcome) bool { return true })
}

func (l *ledger) retriesOf(agent string) int {
	return l.countOf(agent, func(o harness.Outcome) bool { return o.Settled == task.SettledRetry })
}

func (l *ledger) countOf(agent string, what func(harness.Outcome) bool) int {
	return l.count(func(o harness.Outcome) bool { return o.Agent == agent && what(o) })
}

// What retention takes from a paused agent is seen at once, and reported exactly when it goes on.
func TestWhatRetentionTakesFromAPausedAgentIsReportedExactly(t *testing.T) {
	onEachKafka(t, overtakenWhilePaused)
}

func overtakenWhilePaused(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	l := followLedger(t, sys)
	start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)
	publish(t, sys, topic, 10)
	l.await(t, 10)
	agent := "/v1/agents/" + topic + "/stock"
	call(t, sys, http.MethodPost, agent+"/unsubscribe", map[string]any{}, nil)
	eventually(t, time.Minute, func() string { return differ(marked(t, sys), 0) })
	publish(t, sys, topic, 30)
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := kafka.Trim(t.Context(), cl, map[string]map[int32]int64{topic: {0: 25}}); err != nil {
		t.Fatal(err)
	}
	type lost struct{ Partition, First, Last int }
	var a struct {
		Overtaken int
		OldestAt  *time.Time `json:"oldest_waiting_at"`
		Lost      []lost
	}
	eventually(t, time.Minute, func() string {
		call(t, sys, http.MethodGet, agent, nil, &a)
		if a.Overtaken != 15 || a.OldestAt == nil {
			return fmt.Sprintf("%+v", a)
		}
		return ""
	})
	call(t, sys, http.MethodPost, agent+"/resume", nil, nil)
	l.await(t, 25)
	eventually(t, time.Minute, func() string {
		call(t, sys, http.MethodGet, agent, nil, &a)
		if len(a.Lost) != 1 || a.Lost[0] != (lost{0, 10, 24}) {
			return fmt.Sprintf("%+v", a.Lost)
		}
		return ""
	})
	var h struct {
		Alerts []struct{ Kind, Message string }
	}
	call(t, sys, http.MethodGet, "/health", nil, &h)
	told := slices.ContainsFunc(h.Alerts, func(a struct{ Kind, Message string }) bool {
		return a.Kind == "records_lost" && strings.Contains(a.Message, "15 records") && strings.Contains(a.Message, "offsets 10 to 24")
	})
	if !told {
		t.Errorf("%+v", h.Alerts)
	}
	l.check(t)
}
