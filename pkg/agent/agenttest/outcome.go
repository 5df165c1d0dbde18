package agenttest

import (
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
)

// outcomeOf reads a record of the outcomes topic; final says that it finishes its task.
func outcomeOf(r *kgo.Record) (o Outcome, final bool) {
	attempt, _ := strconv.Atoi(route.Header(r, task.HeaderAttempt)) // the worker writes a number
	o = Outcome{
		Agent: route.Header(r, task.HeaderAgent), Attempt: attempt, Outcome: task.Outcome(route.Header(r, task.HeaderOutcome)),
		Settled: task.Settled(route.Header(r, task.HeaderSettled)), Class: task.Class(route.Header(r, task.HeaderErrorClass)), Version: route.Header(r, task.HeaderVersion),
		Error: route.Header(r, task.HeaderErrorMessage), JSON: r.Value,
	}
	return o, route.Header(r, task.HeaderFinal) == "true"
}

// cutAgent takes topic/name apart.
func cutAgent(ref string) (topic, name string) {
	topic, name, _ = strings.Cut(ref, "/")
	return topic, name
}

// testLogger logs to a test while it runs.
func testLogger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.close)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSuffix(string(b), "\n"))
	}
	return len(b), nil
}

func (w *testWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}
