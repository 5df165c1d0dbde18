package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/tests/harness"
)

func needsPython(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 isn't installed")
	}
}

// registerSteered registers the steered agent under a name, with a change to its entry.
func registerSteered(t *testing.T, sys *harness.System, topic, name string, change func(entry, config, process map[string]any)) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(sys.AgentsDir(), "steer-"+name), os.DirFS("testdata/steer")); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	config := map[string]any{"max_retries": 1, "retry_delays": []string{"5m"}, "dlq_enabled": false, "ordering": "none", "concurrency": 2}
	process := map[string]any{"graceful_timeout_sec": 0.5, "sigterm_timeout_sec": 0.5, "drain_timeout": 0.5, "request_timeout": 60}
	entry := map[string]any{"topic": topic, "name": name, "runtime": "python", "dir": "steer-" + name, "callback": "steer:handle", "partitions": 1, "config": config, "process": process}
	change(entry, config, process)
	if err := sys.Register(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
}

// published is an event that was published by REST.
type published struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Tasks     []struct {
		Agent  string `json:"agent"`
		Status string `json:"status"`
	} `json:"tasks"`
}

func publishContent(t *testing.T, sys *harness.System, topic string, content map[string]any, query string) published {
	t.Helper()
	var p published
	if err := sys.Call(t.Context(), http.MethodPost, "/v1/events"+query, map[string]any{"topic": topic, "payload": map[string]any{"content": content}}, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// steered is a task as REST gives it.
type steered struct {
	Status       string `json:"status"`
	Attempts     int    `json:"attempts"`
	Redrives     int    `json:"redrives"`
	ErrorMessage string `json:"error_message"`
	Progress     *struct {
		Fraction float64 `json:"fraction"`
		Message  string  `json:"message"`
	} `json:"progress"`
	History []struct {
		Attempt int    `json:"attempt"`
		Outcome string `json:"outcome"`
	} `json:"history"`
}

func (p published) path(name string) string {
	return fmt.Sprintf("/v1/tasks/%s/%s/%d/%d", p.Topic, name, p.Partition, p.Offset)
}

func taskOf(t *testing.T, sys *harness.System, p published, name, query string) (s steered) {
	t.Helper()
	if err := sys.Call(t.Context(), http.MethodGet, p.path(name)+query, nil, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (p published) await(t *testing.T, sys *harness.System, name, status string) (s steered) {
	t.Helper()
	eventually(t, time.Minute, func() string {
		if s = taskOf(t, sys, p, name, ""); s.Status != status {
			return fmt.Sprintf("the task is %s, not %s", s.Status, status)
		}
		return ""
	})
	return s
}

// steer asks something of a task, and gives the state, or the status code of a refusal.
func steer(t *testing.T, sys *harness.System, p published, name, verb string) string {
	t.Helper()
	var out struct {
		State   string `json:"state"`
		Changed bool   `json:"changed"`
	}
	err := sys.Call(t.Context(), http.MethodPost, p.path(name)+"/"+verb+"?reason=test&wait=15s", nil, &out)
	var refused *harness.StatusError
	switch {
	case errors.As(err, &refused):
		return fmt.Sprint(refused.Code)
	case err != nil:
		t.Fatal(err)
	case !out.Changed:
		return out.State + " before"
	}
	return out.State
}

// A task is cancelled while it runs (by itself, and by force), while it waits and between attempts; a finished one isn't.
// What was cancelled or has failed runs again when that is asked for, once, and one that waits runs at once.
func TestTasksAreCancelledAndRetried(t *testing.T) {
	needsPython(t)
	onEachKafka(t, cancelledAndRetried)
}

func cancelledAndRetried(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	services := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerSteered(t, sys, topic, "a", func(_, config, _ map[string]any) { config["concurrency"] = 1 })
	running := publishContent(t, sys, topic, map[string]any{"seconds": 50}, "")
	if s := running.await(t, sys, "a", "running"); s.Progress == nil || s.Progress.Fraction != 0.25 || s.Progress.Message != "a quarter" {
		// The position alone says running too; the progress comes with the attempt.
		eventually(t, time.Minute, func() string {
			if s := taskOf(t, sys, running, "a", ""); s.Progress == nil || s.Progress.Message != "a quarter" {
				return fmt.Sprintf("%+v", s)
			}
			return ""
		})
	}
	waiting := publishContent(t, sys, topic, map[string]any{"n": 1}, "")
	behind := publishContent(t, sys, topic, map[string]any{"n": 2}, "")
	check := func(what string, p published, verb, want string) {
		t.Helper()
		if got := steer(t, sys, p, "a", verb); got != want {
			t.Errorf("%s %s: %s, want %s", verb, what, got, want)
		}
	}
	check("a task that runs", running, "retry", "409")
	check("a task that waits", waiting, "cancel", "done")
	if s := taskOf(t, sys, waiting, "a", ""); s.Status != "cancelled" || s.Attempts != 0 || s.ErrorMessage != "cancelled by admin: test" {
		t.Errorf("it isn't seen at once: %+v", s)
	}
	check("a task that runs", running, "cancel", "done")
	if s := taskOf(t, sys, running, "a", ""); s.Status != "cancelled" || s.Attempts != 1 || s.Progress != nil {
		t.Errorf("%+v", s)
	}
	check("a cancelled task", running, "cancel", "done before")
	behind.await(t, sys, "a", "completed")
	check("a completed task", behind, "cancel", "409")
	check("a completed task", behind, "retry", "409")
	check("an event that isn't there", published{Topic: topic, Offset: 1000}, "cancel", "404")
	if got := steer(t, sys, behind, "nobody", "cancel"); got != "404" {
		t.Errorf("of an agent that isn't there: %s", got)
	}

	stubborn := publishContent(t, sys, topic, map[string]any{"seconds": 50, "stubborn": true}, "")
	stubborn.await(t, sys, "a", "running")
	check("a task that ignores it", stubborn, "cancel", "done")

	failing := publishContent(t, sys, topic, map[string]any{"fail": true}, "")
	failing.await(t, sys, "a", "retrying")
	check("a task that waits for minutes", failing, "retry", "done")
	if s := failing.await(t, sys, "a", "failed"); s.Attempts != 2 || s.Redrives != 0 {
		t.Errorf("%+v", s)
	}
	check("a failed task", failing, "retry", "done")
	eventually(t, time.Minute, func() string {
		if s := taskOf(t, sys, failing, "a", ""); s.Status != "retrying" || s.Redrives != 1 || s.Attempts != 1 || len(s.History) != 3 {
			return fmt.Sprintf("its next round: %+v", s)
		}
		return ""
	})
	check("a task between attempts", failing, "cancel", "done")
	if s := taskOf(t, sys, failing, "a", ""); s.Status != "cancelled" || s.Redrives != 1 || s.Attempts != 1 {
		t.Errorf("%+v", s)
	}
	check("a cancelled task", waiting, "retry", "done")
	if s := waiting.await(t, sys, "a", "completed"); s.Redrives != 1 || s.Attempts != 1 {
		t.Errorf("%+v", s)
	}
	registerSteered(t, sys, topic, "b", func(_, config, _ map[string]any) {
		config["dlq_enabled"], config["max_retries"], config["concurrency"] = true, 0, 16
	})
	eventually(t, time.Minute, func() string {
		if s := taskOf(t, sys, failing, "b", ""); s.Status != "dead_lettered" {
			return s.Status
		}
		return ""
	})
	if got := steer(t, sys, failing, "b", "retry"); got != "done" {
		t.Errorf("retry of a dead letter: %s", got)
	}
	eventually(t, time.Minute, func() string {
		if s := taskOf(t, sys, failing, "b", ""); s.Status != "dead_lettered" || s.Redrives != 1 || len(s.History) != 2 {
			return fmt.Sprintf("its next round: %+v", s)
		}
		return ""
	})
	if p := publishContent(t, sys, topic, map[string]any{"seconds": 0.2}, "?wait=15s"); len(p.Tasks) != 2 || p.Tasks[0].Status != "completed" || p.Tasks[1].Status != "completed" {
		t.Errorf("published and waited: %+v", p)
	}
	eventually(t, time.Minute, func() string {
		var m map[string]any
		if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/a/metrics", nil, &m); err != nil {
			return err.Error()
		}
		for name, want := range map[string]float64{"received": 6, "completed": 3, "cancelled": 3, "failed": 0, "retried": 2, "waiting": 0, "running": 0} {
			if m[name] != want {
				return fmt.Sprintf("%s is %v, not %v", name, m[name], want)
			}
		}
		return ""
	})
	stop(t, services...)
}

// An attempt that times out is ended, with all that it has started, before its retry begins: also where the agent ignores
// that it is to end.
func TestATimedOutAttemptIsEndedBeforeItsRetryBegins(t *testing.T) {
	needsPython(t)
	onEachKafka(t, timedOutAttemptIsEnded)
}

func timedOutAttemptIsEnded(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	services := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerSteered(t, sys, topic, "a", func(_, config, process map[string]any) {
		config["retry_delays"], process["request_timeout"] = []string{"1s"}, 1
	})
	trace := filepath.Join(t.TempDir(), "trace")
	p := publishContent(t, sys, topic, map[string]any{"seconds": 50, "stubborn": true, "trace": trace}, "")
	if s := p.await(t, sys, "a", "failed"); s.Attempts != 2 || s.History[0].Outcome != "timed_out" || s.History[1].Outcome != "timed_out" {
		t.Errorf("%+v", s)
	}
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	last, lines := 0, bufio.NewScanner(f)
	count := map[int]int{}
	for lines.Scan() {
		var what string
		var attempt int
		var at float64
		if _, err := fmt.Sscan(lines.Text(), &what, &attempt, &at); err != nil {
			continue // the kill has cut the line off
		}
		if attempt < last {
			t.Fatalf("attempt %d worked on after attempt %d had begun: %s", attempt, last, lines.Text())
		}
		last = attempt
		count[attempt]++
	}
	if count[1] < 10 || count[2] < 10 {
		t.Errorf("the attempts did nothing that could be seen: %v", count)
	}
	stop(t, services...)
}

// An attempt that ends when it is asked to costs no process, and its retry has twice the time.
func TestATimedOutAttemptThatEndsLeavesItsProcessAlone(t *testing.T) {
	needsPython(t)
	onEachKafka(t, timedOutAttemptLeavesItsProcess)
}

func timedOutAttemptLeavesItsProcess(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	services := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerSteered(t, sys, topic, "a", func(_, config, process map[string]any) {
		config["retry_delays"], process["request_timeout"] = []string{"1s"}, 4
		process["graceful_timeout_sec"], process["drain_timeout"] = 20, 0.01
	})
	publishContent(t, sys, topic, map[string]any{}, "").await(t, sys, "a", "completed")
	processes := func() (all []string) {
		var list struct {
			Items []struct {
				Instance, State string
				PID             int
			}
		}
		call(t, sys, http.MethodGet, "/v1/instances", nil, &list)
		for _, i := range list.Items {
			all = append(all, fmt.Sprint(i.Instance, " ", i.PID, " ", i.State))
		}
		return all
	}
	var before []string
	eventually(t, time.Minute, func() string {
		if before = processes(); len(before) != 1 || !strings.HasSuffix(before[0], " RUNNING") {
			return fmt.Sprint(before)
		}
		return ""
	})
	late := publishContent(t, sys, topic, map[string]any{"seconds": 6}, "")
	if s := late.await(t, sys, "a", "completed"); s.Attempts != 2 || len(s.History) != 2 || s.History[0].Outcome != "timed_out" || s.History[1].Outcome != "completed" {
		t.Errorf("%+v", s)
	}
	if after := processes(); !slices.Equal(after, before) {
		t.Errorf("%v became %v", before, after)
	}
	stop(t, services...)
}

// The attempt of an agent without a time limit goes on as long as it says how far it is, and is run again when it is
// silent for reclaim_idle_ms.
func TestASilentAttemptIsTakenBack(t *testing.T) {
	needsPython(t)
	onEachKafka(t, silentAttemptIsTakenBack)
}

func silentAttemptIsTakenBack(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	services := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerSteered(t, sys, topic, "a", func(_, config, process map[string]any) {
		config["retry_delays"], config["reclaim_idle_ms"], process["request_timeout"] = []string{"1s"}, 1000, "infinity"
	})
	trace := filepath.Join(t.TempDir(), "trace")
	p := publishContent(t, sys, topic, map[string]any{"seconds": 50, "trace": trace}, "")
	s := p.await(t, sys, "a", "failed")
	if s.Attempts != 2 || s.History[0].Outcome != "timed_out" || s.ErrorMessage != "the attempt gave neither an answer nor a sign of progress for 1s" {
		t.Errorf("%+v", s)
	}
	stop(t, services...)
}
