package app_test

import (
	"testing"

	"github.com/reeve-run/reeve/pkg/spec"
)

func TestClearingTheStorageOfAgentsDeletesRegistrationsOnly(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	r.want(201, "POST", "/v1/agents", `{"topic":"other","name":"b","command":"x"}`)
	if h := r.want(200, "GET", "/storage/health", ""); h["status"] != "healthy" || h["connected"] != true || h["agents_count"] != 2.0 || h["backend"] != "postgres" {
		t.Errorf("%v", h)
	}
	if c := r.want(200, "DELETE", "/storage/agents", ""); c["status"] != "cleared" || c["agents_deleted"] != 2.0 {
		t.Errorf("%v", c)
	}
	r.controlHas(spec.Terminated)
	if h := r.want(200, "GET", "/storage/health", ""); h["agents_count"] != 0.0 {
		t.Errorf("%v", h)
	}
	if a := r.want(200, "GET", "/v1/agents/orders/a/history", ""); a["items"].([]any)[0].(map[string]any)["reason"] != "the storage of agents was cleared" {
		t.Errorf("%v", a)
	}
	if c := r.want(200, "DELETE", "/storage/agents", ""); c["agents_deleted"] != 0.0 {
		t.Errorf("again: %v", c)
	}
}

func TestClearingResultsDeletesThemAndNothingElse(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	r.produce(r.outcome(0, 1, 1, "completed", "done", `{"n":1}`), r.outcome(0, 2, 1, "completed", "done", `{"n":2}`), r.outcome(0, 3, 1, "failed", "dlq", `{"error":"bad"}`))
	r.waitFor("the outcomes", func() bool { return r.want(200, "GET", "/v1/agents/orders/a/metrics", "")["received"] == 3.0 })
	if h := r.want(200, "GET", "/storage/health", ""); h["results_count"] != 2.0 || h["results_cleared_at"] != nil {
		t.Errorf("%v", h)
	}
	if c := r.want(200, "DELETE", "/storage/results", ""); c["status"] != "cleared" || c["results_deleted"] != 2.0 {
		t.Errorf("%v", c)
	}
	if h := r.want(200, "GET", "/storage/health", ""); h["results_count"] != 0.0 || h["results_cleared_at"] == nil {
		t.Errorf("%v", h)
	}
	for _, path := range []string{"/v1/tasks/orders/a/0/1", "/v1/tasks/orders/a/0/2"} {
		if task := r.want(200, "GET", path, ""); task["status"] != "completed" || task["result"] != nil || task["result_state"] != "expired" {
			t.Errorf("%v", task)
		}
	}
	if m := r.want(200, "GET", "/v1/agents/orders/a/metrics", ""); m["completed"] != 2.0 || m["dead_lettered"] != 1.0 {
		t.Errorf("%v", m)
	}
	r.produce(r.outcome(0, 4, 1, "completed", "done", `{"n":4}`))
	r.waitFor("a later result", func() bool { return r.want(200, "GET", "/storage/health", "")["results_count"] == 1.0 })
	if task := r.want(200, "GET", "/v1/tasks/orders/a/0/4", ""); task["result_state"] != "available" {
		t.Errorf("%v", task)
	}
}

// A task that was tried before the counters were cleared counts, when more comes of it, as one that was received after.
func TestClearedCountersNeverFallBelowZeroNorCountTwice(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	metrics := func() map[string]any { return r.want(200, "GET", "/v1/agents/orders/a/metrics", "") }
	r.produce(r.outcome(0, 1, 1, "completed", "done", `1`), r.outcome(0, 2, 1, "failed", "retry", `{"error":"x"}`), r.outcome(0, 3, 1, "failed", "dlq", `{"error":"x"}`))
	r.waitFor("the outcomes", func() bool { return metrics()["received"] == 3.0 })
	if m := metrics(); m["since"] != nil {
		t.Errorf("%v", m)
	}
	if c := r.want(200, "DELETE", "/storage/metrics", ""); c["status"] != "cleared" || c["metrics_deleted"] != 1.0 {
		t.Errorf("%v", c)
	}
	m := metrics()
	for _, figure := range []string{"received", "completed", "failed", "retried", "dead_lettered", "waiting", "running"} {
		if m[figure] != 0.0 {
			t.Errorf("%s is %v", figure, m[figure])
		}
	}
	if m["since"] == nil {
		t.Errorf("the moment is not said: %v", m)
	}
	// The retry of 2 completes; 1 and 3 are redriven, and 3 is retried in its new round.
	r.produce(r.outcome(0, 2, 2, "completed", "done", `2`), r.outcome(0, 1, 1, "failed", "dlq", `{"error":"x"}`, "reeve-redrives", "1"),
		r.outcome(0, 3, 1, "failed", "retry", `{"error":"x"}`, "reeve-redrives", "1"), r.outcome(0, 3, 2, "completed", "done", `3`, "reeve-redrives", "1"))
	r.waitFor("what came after", func() bool { return metrics()["completed"] == 2.0 })
	m = metrics()
	for figure, want := range map[string]float64{"received": 3, "completed": 2, "dead_lettered": 1, "retried": 1, "failed": 0, "waiting": 0, "running": 0} {
		if m[figure] != want {
			t.Errorf("%s is %v, want %v", figure, m[figure], want)
		}
	}
	r.produce(r.outcome(0, 1, 1, "completed", "done", `1`, "reeve-redrives", "2"))
	r.waitFor("another round", func() bool { return metrics()["completed"] == 3.0 })
	if m = metrics(); m["received"] != 3.0 || m["dead_lettered"] != 0.0 {
		t.Errorf("a task counts by its latest round only: %v", m)
	}
}
