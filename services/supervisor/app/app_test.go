package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// system is a broker with a supervisor on it.
type system struct {
	t      *testing.T
	cfg    config.Config
	client *kgo.Client
}

const handler = `
import os
async def handle(message):
    content = message["content"]
    if content == "die":
        os._exit(1)
    return {"got": content, "attempt": message["delivery_attempts"]}
`

func newSystem(t *testing.T) *system {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := config.Default(config.Supervisor)
	cfg.Kafka.Brokers, cfg.HTTPAddr, cfg.AgentsDir, cfg.Node = cluster.ListenAddrs(), "", t.TempDir(), "n"
	s := &system{t: t, cfg: cfg}
	s.write("echo/agent.py", handler)
	if s.client, err = kgo.NewClient(kgo.SeedBrokers(cfg.Kafka.Brokers...), kgo.MetadataMinAge(50*time.Millisecond), kgo.DisableClientMetrics()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	s.ensure(kafka.ControlTopic(cfg.Kafka.Names()), kafka.StatusTopic(cfg.Kafka.Names()))
	return s
}

func (s *system) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.cfg.AgentsDir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) ensure(ts ...kafka.Topic) {
	s.t.Helper()
	if err := kafka.EnsureTopics(s.t.Context(), s.client, 1, ts...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) agent(change func(*spec.Agent)) *spec.Agent {
	a := &spec.Agent{Topic: "events", Name: "echo", Runtime: spec.Python, Dir: "echo", Callback: "agent:handle", Config: spec.NewConfig(spec.Python),
		Process: spec.NewProcess(), Pool: spec.Pool{Min: 1, Max: 1}, Partitions: 2, Phase: spec.Active, Generation: 1}
	a.Process.DrainTimeout, a.Process.GracefulTimeoutSec, a.Process.SigtermTimeoutSec, a.Process.RestartBackoffSeconds = 2, 2, 1, 0.05
	if change != nil {
		change(a)
	}
	return a
}

// desire writes a spec to the control topic, as the registry does.
func (s *system) desire(a *spec.Agent) {
	s.t.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		s.t.Fatal(err)
	}
	s.ensure(kafka.TasksTopic(s.cfg.Kafka.Names(), a, 1<<20))
	s.produce(&kgo.Record{Topic: s.cfg.Kafka.Names().Control(), Key: []byte(a.Key()), Value: b})
}

// dispatch writes a task, as the dispatcher does.
func (s *system) dispatch(a *spec.Agent, offset int64, content string) {
	s.t.Helper()
	origin := task.Origin{Topic: a.Topic, Partition: 0, Offset: offset}
	s.produce(&kgo.Record{Topic: s.cfg.Kafka.Names().Tasks(a.Topic, a.Name), Value: []byte(content), Headers: []kgo.RecordHeader{
		{Key: task.HeaderAgent, Value: []byte(a.Ref())}, {Key: task.HeaderOrigin, Value: origin.AppendHeader(nil)}, {Key: task.HeaderAttempt, Value: []byte("1")},
	}})
}

func (s *system) produce(r *kgo.Record) {
	s.t.Helper()
	if err := s.client.ProduceSync(s.t.Context(), r).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

// run starts a supervisor. What it returns ends it and gives Run's error.
func (s *system) run(logger *slog.Logger) (end func() error) {
	s.t.Helper()
	a, err := New(Config{Config: s.cfg, Logger: logger})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var ended error
	over := false
	end = func() error {
		cancel()
		if !over {
			ended, over = <-done, true
		}
		return ended
	}
	s.t.Cleanup(func() { _ = end() })
	select {
	case <-a.Ready():
	case ended = <-done:
		over = true
		s.t.Fatalf("the supervisor ended: %v", ended)
	}
	return end
}

// records reads a topic from its start until ok.
func (s *system) records(topic, what string, ok func(*kgo.Record) bool) {
	s.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond), kgo.DisableClientMetrics())
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			s.t.Fatalf("waited for %s in vain", what)
		}
		for _, r := range fs.Records() {
			if ok(r) {
				return
			}
		}
	}
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// outcome waits for a task's outcome.
func (s *system) outcome(offset string, want task.Outcome) (value string) {
	s.t.Helper()
	s.records(s.cfg.Kafka.Names().Outcomes(), string(want)+" of "+offset, func(r *kgo.Record) bool {
		value = string(r.Value)
		return string(r.Key) == "events/0/"+offset && header(r, task.HeaderOutcome) == string(want)
	})
	return value
}

// report waits for a record of the status topic that ok accepts.
func (s *system) report(what string, ok func(status.AgentReport) bool) {
	s.t.Helper()
	s.records(s.cfg.Kafka.Names().Status(), what, func(r *kgo.Record) bool {
		var a status.AgentReport
		return json.Unmarshal(r.Value, &a) == nil && a.Event == status.EventAgent && ok(a)
	})
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestATaskIsRunAndSettled(t *testing.T) {
	s := newSystem(t)
	a := s.agent(nil)
	s.desire(a)
	end := s.run(quiet())
	s.dispatch(a, 0, `"hello"`)
	if v := s.outcome("0", task.Completed); v != `{"got": "hello", "attempt": 1}` {
		t.Errorf("the result is %s", v)
	}
	s.report("serving", func(r status.AgentReport) bool { return r.State == status.ReportServing && r.Generation == 1 })
	if err := end(); err != nil {
		t.Errorf("the stop: %v", err)
	}
	s.records(s.cfg.Kafka.Names().Status(), "the last heartbeat", func(r *kgo.Record) bool {
		return strings.Contains(string(r.Value), `"leaving":true`)
	})
}

func TestAnAgentThatCantStartIsReportedAndPutRight(t *testing.T) {
	s := newSystem(t)
	broken := s.agent(func(a *spec.Agent) { a.Callback = "agent:nope" })
	s.desire(broken)
	s.run(quiet())
	s.report("the typed error", func(r status.AgentReport) bool {
		return r.State == status.ReportError && r.Error != nil && r.Error.Type == "AgentCallbackNotFoundError" && strings.Contains(r.Error.Message, "handle")
	})
	fixed := s.agent(func(a *spec.Agent) { a.Generation = 2 })
	s.desire(fixed)
	s.dispatch(fixed, 0, `1`)
	s.outcome("0", task.Completed)
}

func TestAPausedAgentsProcessesEnd(t *testing.T) {
	s := newSystem(t)
	a := s.agent(nil)
	s.desire(a)
	s.run(quiet())
	s.report("serving", func(r status.AgentReport) bool { return r.State == status.ReportServing })
	s.desire(s.agent(func(a *spec.Agent) { a.Phase, a.Generation = spec.Paused, 2 }))
	s.report("idle", func(r status.AgentReport) bool {
		return r.State == status.ReportIdle && r.Generation == 2 && r.Instances == 0
	})
	s.desire(s.agent(func(a *spec.Agent) { a.Generation = 3 }))
	s.report("serving again", func(r status.AgentReport) bool { return r.State == status.ReportServing && r.Generation == 3 })
	s.dispatch(a, 0, `1`)
	s.outcome("0", task.Completed)
}

// A deleted agent's record goes in the end, and with it the agent from all that a supervisor tells. It may come back.
func TestAnAgentWhoseRecordIsGoneIsToldOfNoMore(t *testing.T) {
	s := newSystem(t)
	a := s.agent(nil)
	s.desire(a)
	s.run(quiet())
	s.report("serving", func(r status.AgentReport) bool { return r.State == status.ReportServing })
	heartbeat := func(what string, is func(agents, before int) bool) {
		before := 0
		s.records(s.cfg.Kafka.Names().Status(), what, func(r *kgo.Record) bool {
			var n status.Node
			if json.Unmarshal(r.Value, &n) != nil || n.Event != status.EventNode {
				return false
			}
			before = max(before, len(n.Agents))
			return is(len(n.Agents), before)
		})
	}
	heartbeat("a heartbeat with the agent", func(agents, _ int) bool { return agents == 1 })
	for range 2 { // with processes, and without
		s.produce(&kgo.Record{Topic: s.cfg.Kafka.Names().Control(), Key: []byte(a.Key())})
	}
	heartbeat("a heartbeat without it", func(agents, before int) bool { return agents == 0 && before == 1 })
	s.desire(s.agent(func(a *spec.Agent) { a.Generation = 3 }))
	s.report("serving again", func(r status.AgentReport) bool { return r.State == status.ReportServing && r.Generation == 3 })
	s.dispatch(a, 0, `1`)
	s.outcome("0", task.Completed)
}

func TestAnOpenCircuitLeavesAndAResetCloses(t *testing.T) {
	s := newSystem(t)
	s.write("echo/agent.py", "raise SystemExit(3)\n")
	crashing := func(generation, reset int64) *spec.Agent {
		return s.agent(func(a *spec.Agent) {
			a.Process.MaxRestartAttempts, a.Generation, a.ResetNonce = 1, generation, reset
		})
	}
	s.desire(crashing(1, 0))
	s.run(quiet())
	s.report("the error", func(r status.AgentReport) bool { return r.State == status.ReportError && r.Error != nil })
	s.write("echo/agent.py", handler)
	s.desire(crashing(2, 1))
	s.report("serving", func(r status.AgentReport) bool { return r.State == status.ReportServing })
}

// While the circuit is open tasks wait: none is settled for it, and all are run once it is closed.
func TestTasksWaitWhileTheCircuitIsOpen(t *testing.T) {
	s := newSystem(t)
	s.write("echo/agent.py", `import asyncio, os
n = 0
async def handle(message):
    global n
    n += 1
    if n == 2:
        os._exit(3)
    await asyncio.sleep(60)
`)
	a := s.agent(func(a *spec.Agent) { a.Process.MaxRestartAttempts, a.Config.MaxRetries = 0, 0 })
	s.desire(a)
	s.run(quiet())
	s.dispatch(a, 1, `"one of two that run when the process dies"`)
	s.dispatch(a, 2, `"the other one"`)
	s.report("the open circuit", func(r status.AgentReport) bool { return r.State == status.ReportCircuitOpen })
	for n := int64(3); n <= 5; n++ {
		s.dispatch(a, n, `"later"`)
	}
	s.write("echo/agent.py", handler)
	closed := time.Now()
	mended := *a
	mended.Generation, mended.ResetNonce = a.Generation+1, 1
	s.desire(&mended)
	left := 5
	s.records(s.cfg.Kafka.Names().Outcomes(), "five outcomes", func(r *kgo.Record) bool {
		times := strings.Fields(header(r, task.HeaderTimes))
		if started, err := strconv.ParseInt(times[2], 10, 64); err != nil || started < closed.UnixMilli() || header(r, task.HeaderSettled) != string(task.SettledDone) {
			t.Errorf("%s is settled as %s, times %v", r.Key, header(r, task.HeaderSettled), times)
		}
		left--
		return left == 0
	})
}

func TestACrashIsTheTasksOwnAndOthersGoOn(t *testing.T) {
	s := newSystem(t)
	a := s.agent(func(a *spec.Agent) { a.Config.MaxRetries = 0 })
	s.desire(a)
	s.run(quiet())
	s.dispatch(a, 0, `"die"`)
	for n := int64(1); n <= 5; n++ {
		s.dispatch(a, n, `"live"`)
	}
	s.outcome("0", task.Crashed)
	for _, n := range []string{"1", "2", "3", "4", "5"} {
		s.outcome(n, task.Completed)
	}
}

func TestMissingThingsAreRefusedAtTheStart(t *testing.T) {
	cfg := config.Default(config.Supervisor)
	cfg.AgentsDir = "/nonexistent/agents"
	if _, err := New(Config{Config: cfg}); err == nil || !strings.Contains(err.Error(), "REEVE_AGENTS_DIR") {
		t.Errorf("got %v", err)
	}
	cfg.AgentsDir, cfg.Kafka.Brokers, cfg.HTTPAddr = t.TempDir(), []string{"127.0.0.1:1"}, ""
	a, err := New(Config{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.Run(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		t.Errorf("got %v", err)
	}
}

func TestTwoNodesShareThePool(t *testing.T) {
	s := newSystem(t)
	s.desire(s.agent(func(a *spec.Agent) { a.Pool = spec.Pool{Min: 4, Max: 4} }))
	s.run(quiet())
	s.cfg.Node = "m"
	s.run(quiet())
	seen := map[string]bool{}
	s.records(s.cfg.Kafka.Names().Status(), "two instances on each node", func(r *kgo.Record) bool {
		var n status.Node
		if json.Unmarshal(r.Value, &n) == nil && n.Event == status.EventNode && len(n.Agents) == 1 {
			seen[n.Node] = n.Agents[0].Partitions == 1 && n.Agents[0].Instances == 2
		}
		return seen["n"] && seen["m"]
	})
}

func TestARestartReplacesTheInstances(t *testing.T) {
	s := newSystem(t)
	s.desire(s.agent(nil))
	s.run(quiet())
	s.report("serving", func(r status.AgentReport) bool { return r.State == status.ReportServing })
	s.desire(s.agent(func(a *spec.Agent) { a.Generation, a.RestartNonce = 2, 1 }))
	s.report("the new generation", func(r status.AgentReport) bool { return r.State == status.ReportServing && r.Generation == 2 })
	var states []string
	s.records(s.cfg.Kafka.Names().Status(), "the old instance's end", func(r *kgo.Record) bool {
		var c status.StateChange
		if json.Unmarshal(r.Value, &c) == nil && c.Event == status.EventStateChange {
			states = append(states, c.Instance+" "+c.NewState)
		}
		return len(states) > 0 && states[len(states)-1] == "n-1 STOPPED"
	})
	if !slices.Contains(states, "n-2 RUNNING") || slices.Index(states, "n-2 RUNNING") > slices.Index(states, "n-1 STOPPING") {
		t.Errorf("the old instance went before the new one ran: %v", states)
	}
}
