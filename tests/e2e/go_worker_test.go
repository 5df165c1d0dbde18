package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/tests/harness"
)

// goTask is a task of the Go worker as REST tells it.
type goTask struct {
	Status     string `json:"status"`
	Attempts   int    `json:"attempts"`
	ErrorClass string `json:"error_class"`
	Version    string `json:"version"`
	Result     struct {
		N, Attempt int
		By         string
	} `json:"result"`
}

// withGoWorkers makes the topics, starts registry and dispatcher, and Go workers by their nodes' names.
func withGoWorkers(t *testing.T, sys *harness.System, nodes ...string) (topic string, services, workers []*harness.Process) {
	t.Helper()
	topic = sys.Prefix + "-in"
	for _, name := range []string{topic, sys.Prefix + "-out"} {
		if err := harness.CreateTopic(t.Context(), sys.Brokers, name, 3, nil); err != nil {
			t.Fatal(err)
		}
	}
	services = start(t, sys, "registry.r0", "dispatcher.d0")
	for _, node := range nodes {
		workers = append(workers, goWorker(t, sys, node))
	}
	return topic, services, workers
}

func goWorker(t *testing.T, sys *harness.System, node string) *harness.Process {
	t.Helper()
	return runProgram(t, sys, []string{filepath.Join(binaries.Dir(t), "goworker"), sys.Prefix + "-in"}, "goworker."+node)
}

func ask(t *testing.T, sys *harness.System, topic, format string, args ...any) (place string) {
	t.Helper()
	return sendTo(t, sys, topic, fmt.Sprintf(format, args...))
}

func awaitGoTask(t *testing.T, sys *harness.System, topic, place, status string) goTask {
	t.Helper()
	var task goTask
	eventually(t, time.Minute, func() string {
		task = goTask{}
		if err := sys.Call(t.Context(), http.MethodGet, "/v1/tasks/"+topic+"/gopher/"+place, nil, &task); err != nil {
			return err.Error()
		}
		if task.Status != status {
			return fmt.Sprintf("%+v isn't %s", task, status)
		}
		return ""
	})
	return task
}

// awaitWorkers waits until so many live programs serve the agent.
func awaitWorkers(t *testing.T, sys *harness.System, topic string, n int) {
	t.Helper()
	eventually(t, time.Minute, func() string {
		var a struct {
			Runtime string
			Workers int
		}
		if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/gopher", nil, &a); err != nil {
			return err.Error()
		}
		if a.Runtime != "sdk" || a.Workers != n {
			return fmt.Sprintf("%+v, not %d workers", a, n)
		}
		return ""
	})
}

func TestAGoWorkersEventsEndAsItsFunctionSays(t *testing.T) {
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic, _, workers := withGoWorkers(t, sys, "g0")
		start(t, sys, "supervisor.s0") // which leaves the agent alone
		awaitWorkers(t, sys, topic, 1)
		var health struct {
			Status    string
			Consumers int `json:"active_consumers"`
		}
		if err := sys.Call(t.Context(), http.MethodGet, "/health", nil, &health); err != nil || health.Status != "running" || health.Consumers != 1 {
			t.Errorf("%+v, %v", health, err)
		}
		for _, tt := range []struct {
			event, status, class string
			attempts             int
		}{
			{`{"do":"ok","n":1}`, "completed", "", 1},
			{`{"do":"flaky","n":2}`, "completed", "", 2},
			{`{"do":"fail","n":3}`, "dead_lettered", "permanent", 1},
			{`{"do":"panic","n":4}`, "dead_lettered", "crash", 2},
			{`{"do":5}`, "dead_lettered", "invalid_input", 1},
			{fmt.Sprintf(`{"do":"publish","n":6,"to":%q}`, sys.Prefix+"-out"), "completed", "", 2},
			{fmt.Sprintf(`{"do":"publish","n":7,"to":%q}`, sys.Prefix+"-nowhere"), "dead_lettered", "dependency", 2},
			{`{"do":"publish","n":8,"to":"` + sys.Names().Control() + `"}`, "dead_lettered", "permanent", 1},
		} {
			task := awaitGoTask(t, sys, topic, sendTo(t, sys, topic, tt.event), tt.status)
			if task.Attempts != tt.attempts || task.ErrorClass != tt.class || task.Version != "2.0.0" {
				t.Errorf("%s: %+v", tt.event, task)
			}
		}
		// One more, in the same partition: what the failed attempts published would have come before it.
		awaitGoTask(t, sys, topic, ask(t, sys, topic, `{"do":"publish","n":9,"to":%q}`, sys.Prefix+"-out"), "completed")
		if got := contents(t, sys, sys.Prefix+"-out", 2); got != "2 2" {
			t.Errorf("published by the attempts %s, not by the second of each event alone", got)
		}
		select {
		case <-workers[0].Ended():
			t.Error("the program ended")
		default:
		}
	})
}

// contents reads n envelopes and gives their contents.
func contents(t *testing.T, sys *harness.System, topic string, n int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	var got []string
	if err := harness.Follow(ctx, sys.Brokers, []string{topic}, func(r *kgo.Record) {
		mu.Lock()
		defer mu.Unlock()
		var e struct {
			Payload struct{ Content json.RawMessage }
		}
		if err := json.Unmarshal(r.Value, &e); err != nil {
			t.Error(err)
		}
		if got = append(got, string(e.Payload.Content)); len(got) == n {
			cancel()
		}
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

func TestAGoWorkerNeedsNoRegistryOnceItsAgentIsKnown(t *testing.T) {
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic, services, workers := withGoWorkers(t, sys, "g0")
		awaitGoTask(t, sys, topic, ask(t, sys, topic, `{"do":"ok"}`), "completed")

		if err := services[0].End(); err != nil {
			t.Fatal(err)
		}
		seen := outcomes(t, sys)
		for n := range 10 {
			ask(t, sys, topic, `{"do":"ok","n":%d}`, n)
		}
		eventually(t, time.Minute, func() string { return differ(seen(), 11) })

		stop(t, workers...) // and started without a registry
		goWorker(t, sys, "g0")
		for n := range 10 {
			ask(t, sys, topic, `{"do":"ok","n":%d}`, n)
		}
		eventually(t, time.Minute, func() string { return differ(seen(), 21) })

		start(t, sys, "registry.r0")
		awaitWorkers(t, sys, topic, 1)
		var m map[string]any
		eventually(t, time.Minute, func() string {
			if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/gopher/metrics", nil, &m); err != nil || m["completed"] != 21.0 {
				return fmt.Sprint(m, err)
			}
			return ""
		})
	})
}

func TestGoWorkersShareTheWorkDrainAndTakeOver(t *testing.T) {
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic, _, workers := withGoWorkers(t, sys, "g0", "g1")
		awaitWorkers(t, sys, topic, 2)
		by := map[string]int{}
		var places []string
		for n := range 40 {
			places = append(places, ask(t, sys, topic, `{"do":"ok","n":%d}`, n))
		}
		for _, p := range places {
			by[awaitGoTask(t, sys, topic, p, "completed").Result.By]++
		}
		if by["g0"] == 0 || by["g1"] == 0 {
			t.Errorf("the work was not shared: %v", by)
		}

		// What runs at a SIGTERM is awaited and settled; what isn't begun is the other's.
		places = places[:0]
		for n := range 60 {
			places = append(places, ask(t, sys, topic, `{"do":"slow","millis":1500,"n":%d}`, n))
		}
		eventually(t, time.Minute, func() string {
			var m map[string]any
			if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/gopher/metrics", nil, &m); err != nil || m["running"].(float64) < 2 {
				return fmt.Sprint(m, err)
			}
			return ""
		})
		stop(t, workers[0])
		if err := workers[1].End(); err != nil { // killed: what it was running is run again
			t.Fatal(err)
		}
		goWorker(t, sys, "g2")
		first := 0
		for _, p := range places {
			if task := awaitGoTask(t, sys, topic, p, "completed"); task.Result.By == "g0" {
				first++
				if task.Attempts != 1 {
					t.Errorf("what g0 finished was repeated: %+v", task)
				}
			}
		}
		if first == 0 {
			t.Error("g0 settled nothing of what it was running")
		}
	})
}

func TestAGoWorkerFollowsPauseResumeAndDelete(t *testing.T) {
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic, _, workers := withGoWorkers(t, sys, "g0")
		awaitGoTask(t, sys, topic, ask(t, sys, topic, `{"do":"ok"}`), "completed")
		path := "/v1/agents/" + topic + "/gopher"

		running := ask(t, sys, topic, `{"do":"slow","millis":5000}`)
		eventually(t, time.Minute, func() string {
			var a struct{ Running int }
			if err := sys.Call(t.Context(), http.MethodGet, path, nil, &a); err != nil || a.Running != 1 {
				return fmt.Sprint(a, err)
			}
			return ""
		})
		call(t, sys, http.MethodPost, path+"/unsubscribe", map[string]any{"hold": true}, nil)
		awaitGoTask(t, sys, topic, running, "completed") // a pause lets it end
		awaitWorkers(t, sys, topic, 0)
		waiting := ask(t, sys, topic, `{"do":"ok","n":2}`)

		stop(t, workers[0]) // held: a restart doesn't resume it
		p := goWorker(t, sys, "g0")
		eventually(t, time.Minute, func() string {
			if !strings.Contains(p.Log(), "stays paused") {
				return p.Log()
			}
			return ""
		})
		var a struct{ Phase string }
		if call(t, sys, http.MethodGet, path, nil, &a); a.Phase != "paused" {
			t.Errorf("%+v", a)
		}
		call(t, sys, http.MethodPost, path+"/resume", nil, nil)
		awaitGoTask(t, sys, topic, waiting, "completed")

		call(t, sys, http.MethodDelete, path, nil, nil)
		var status *harness.StatusError
		if err := sys.Call(t.Context(), http.MethodGet, path, nil, nil); !errors.As(err, &status) || status.Code != http.StatusNotFound {
			t.Errorf("get after delete: %v", err)
		}
		stop(t, p)
		after := ask(t, sys, topic, `{"do":"ok","n":3}`)
		goWorker(t, sys, "g0") // a program that starts registers its agent again
		awaitGoTask(t, sys, topic, after, "completed")
	})
}

// What a program asks of its Runner is what the registry tells and does.
func TestAGoProgramAsksAndSteersThroughItsRunner(t *testing.T) {
	t.Parallel()
	sys := system(t, testenv.Kfake(t), testenv.Unique())
	topic, _, _ := withGoWorkers(t, sys)
	r, err := agent.NewRunner(agent.Options{Brokers: sys.Brokers, URL: sys.URL, Prefix: sys.Prefix, Node: "test", Environ: []string{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	echo := agent.Handle(func(_ context.Context, e agent.Event[int]) (int, error) { return e.Content, nil })
	ctx := t.Context()
	for _, name := range []string{"one", "two"} {
		if err := r.Register(ctx, agent.Agent{Topic: topic, Name: name, Handler: echo, Description: name, Tags: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	<-r.Ready()
	p, err := r.Publish(ctx, agent.Message{Topic: topic, Content: 7, CorrelationID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, func() string {
		ms, err := r.Metrics(ctx, topic)
		if err != nil || len(ms) != 2 || ms[0].Completed != 1 || ms[1].Completed != 1 {
			return fmt.Sprintf("%+v, %v", ms, err)
		}
		return ""
	})
	task, err := r.Registry().GetTaskWithResponse(ctx, topic, "one", p.Partition, p.Offset, &client.GetTaskParams{})
	if err != nil || string(task.JSON200.Result) != "7" {
		t.Errorf("%+v, %v", task, err)
	}
	if as, err := r.Agents(ctx, topic); err != nil || len(as) != 2 || *as[1].Description != "two" || as[0].Runtime != "sdk" {
		t.Errorf("%+v, %v", as, err)
	}
	if err := errors.Join(r.Unsubscribe(ctx, topic, "one", false), r.Unsubscribe(ctx, topic, "one", false)); err != nil {
		t.Errorf("to pause twice is no error: %v", err)
	}
	eventually(t, time.Minute, func() string {
		h, err := r.Health(ctx)
		if err != nil || h.RegisteredAgents != 2 || h.ActiveConsumers != 1 {
			return fmt.Sprintf("%+v, %v", h, err)
		}
		return ""
	})
	if err := r.Resume(ctx, topic, "one"); err != nil {
		t.Error(err)
	}
	if d, err := r.Delete(ctx, topic, "one", agent.DeleteOptions{Group: true, DLQ: true}); err != nil || !d.Cleanup.ConsumerGroupDeleted || !d.Cleanup.DlqDeleted {
		t.Errorf("%+v, %v", d, err)
	}
	if gone, err := r.DeleteTopic(ctx, topic, agent.DeleteOptions{}); err != nil || len(gone) != 1 || gone[0].Agent != "two" {
		t.Errorf("%+v, %v", gone, err)
	}
	if _, err := r.Agent(ctx, topic, "two"); client.Code(err) != "agent_not_found" {
		t.Error(err)
	}
}
