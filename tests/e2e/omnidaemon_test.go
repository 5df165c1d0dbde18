package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/reeve-run/reeve/tests/harness"
)

// omni calls Reeve as a client of OmniDaemon does: its paths, its fields.
type omni struct {
	*testing.T
	sys   *harness.System
	topic string
}

// get calls until the answer is as check wants it.
func get[A any](o omni, path string, check func(A) bool) A {
	o.Helper()
	var a A
	eventually(o.T, time.Minute, func() string {
		var fresh A
		if err := o.sys.Call(o.Context(), http.MethodGet, path, nil, &fresh); err != nil {
			return err.Error()
		}
		if a = fresh; !check(a) {
			return fmt.Sprintf("GET %s: %+v", path, a)
		}
		return ""
	})
	return a
}

func (o omni) do(method, path string, body, out any) {
	o.Helper()
	if err := o.sys.Call(o.Context(), method, path, body, out); err != nil {
		o.Fatal(err)
	}
}

func (o omni) gone(path string) {
	o.Helper()
	var status *harness.StatusError
	err := o.sys.Call(o.Context(), http.MethodGet, path, nil, nil)
	if !errors.As(err, &status) || status.Code != http.StatusNotFound {
		o.Errorf("GET %s: %v, want 404", path, err)
	}
}

type omniResult struct {
	TaskID string         `json:"task_id"`
	Result map[string]any `json:"result"`
	Saved  string         `json:"saved_at"`
	Status string         `json:"status"`
}

type omniCounters struct {
	Received  int     `json:"tasks_received"`
	Processed int     `json:"tasks_processed"`
	Failed    int     `json:"tasks_failed"`
	Total     float64 `json:"total_processing_time"`
	Average   float64 `json:"avg_processing_time_sec"`
}

type omniGroup struct {
	Name      string `json:"name"`
	Consumers int    `json:"consumers"`
	Pending   int    `json:"pending"`
	Last      string `json:"last_delivered_id"`
	DLQ       int    `json:"dlq"`
}

// The whole way of OmniDaemon's documentation over HTTP: agents, events, results, figures, the bus, the storage. What is
// wrong there in practice is right here: what the caller says of an event reaches the agent, counters are exact, dead
// letters are counted and parsed, and health knows of a killed runner.
func TestOmniDaemonsCallsOneByOne(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 isn't installed")
	}
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		o := omni{t, sys, sys.Prefix + "-in"}
		if err := harness.CreateTopic(t.Context(), sys.Brokers, o.topic, 3, nil); err != nil {
			t.Fatal(err)
		}
		ps := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
		registerStock(t, sys, o.topic)
		get(o, "/agents", func(a map[string][]map[string]any) bool {
			return len(a[o.topic]) == 1 && a[o.topic][0]["name"] == "stock"
		})
		get(o, "/agents/"+o.topic+"/stock", func(a map[string]any) bool { return a["topic"] == o.topic })
		o.events()
		o.figures()
		o.bus()
		o.health(ps[2])
		o.storage()
	})
}

func (o omni) events() {
	var p struct {
		TaskID string `json:"task_id"`
		Status string `json:"status"`
	}
	o.do("POST", "/publish-tasks", map[string]any{"id": "good", "topic": o.topic, "payload": map[string]any{"content": map[string]any{"n": 1}}, "tenant_id": "acme",
		"created_at": 1701234567.89, "delivery_attempts": 3, "correlation_id": "c-1", "causation_id": "b-1", "source": "test"}, &p)
	if p.TaskID != "good" || p.Status != "published" {
		o.Errorf("%+v", p)
	}
	good := get(o, "/tasks/good", func(r omniResult) bool { return r.Status == "completed" })
	for field, want := range map[string]any{"task_id": "good", "topic": o.topic, "tenant_id": "acme", "created_at": 1701234567.89, "delivery_attempts": 3.0, "correlation_id": "c-1",
		"causation_id": "b-1", "source": "test", "agent": "stock"} {
		if good.Result[field] != want {
			o.Errorf("the agent got %s as %v, want %v", field, good.Result[field], want)
		}
	}
	o.do("POST", "/publish-tasks", map[string]any{"id": "bad", "topic": o.topic, "payload": map[string]any{"content": map[string]any{"do": "fail"}}}, nil)
	if bad := get(o, "/tasks/bad", func(r omniResult) bool { return r.Status == "dead_lettered" }); bad.Result != nil {
		o.Errorf("%+v", bad)
	}
	if all := get(o, "/tasks?limit=100", func(r []omniResult) bool { return len(r) == 1 }); all[0].TaskID != "good" || all[0].Saved == "" {
		o.Errorf("%+v", all)
	}
}

func (o omni) figures() {
	all := get(o, "/metrics?topic="+o.topic, func(m map[string]map[string]omniCounters) bool { return m[o.topic]["stock"].Received == 2 })
	if c := all[o.topic]["stock"]; c.Processed != 1 || c.Failed != 1 || c.Total != c.Average {
		o.Errorf("%+v", c)
	}
}

func (o omni) bus() {
	get(o, "/bus/streams", func(streams []map[string]any) bool {
		for _, s := range streams {
			if s["stream"] == o.topic {
				return s["length"] == 2.0
			}
		}
		return false
	})
	type inspected struct {
		ID   string         `json:"id"`
		Data map[string]any `json:"data"`
	}
	if events := get(o, "/bus/inspect/"+o.topic+"?limit=10", func(e []inspected) bool { return len(e) == 2 }); events[0].Data["task_id"] != "bad" || events[1].Data["tenant_id"] != "acme" {
		o.Errorf("the latest first, parsed: %+v", events)
	}
	get(o, "/bus/groups/"+o.topic, func(g []omniGroup) bool {
		return len(g) == 1 && g[0].Consumers == 1 && g[0].Pending == 0 && g[0].Last != ""
	})
	dead := get(o, "/bus/dlq/"+o.topic, func(d []inspected) bool { return len(d) == 1 })[0].Data
	if m, ok := dead["failed_message"].(map[string]any); !ok || m["task_id"] != "bad" || fmt.Sprint(m["content"]) != "map[do:fail]" || dead["retry_count"] != 1.0 || dead["error"] == "" {
		o.Errorf("%v", dead)
	}
	type stats struct {
		Snapshot struct {
			Topics map[string]struct {
				DLQ    int         `json:"dlq_total"`
				Groups []omniGroup `json:"groups"`
			} `json:"topics"`
		} `json:"snapshot"`
	}
	got := get(o, "/bus/stats", func(s stats) bool { return s.Snapshot.Topics[o.topic].DLQ == 1 })
	if g := got.Snapshot.Topics[o.topic].Groups; len(g) != 1 || g[0].DLQ != 1 {
		o.Errorf("%+v", got)
	}
}

func (o omni) health(supervisor *harness.Process) {
	type health struct {
		Status    string `json:"status"`
		Runner    bool   `json:"runner_running"`
		Consumers int    `json:"active_consumers"`
		Agents    map[string]struct {
			State   string `json:"state"`
			Healthy bool   `json:"healthy"`
			PID     int    `json:"pid"`
		} `json:"agent_health"`
	}
	ref := o.topic + "/stock"
	get(o, "/health", func(h health) bool {
		return h.Status == "running" && h.Runner && h.Consumers == 1 && h.Agents[ref].Healthy && h.Agents[ref].PID > 0
	})
	if err := supervisor.End(); err != nil {
		o.Fatal(err)
	}
	eventually(o.T, time.Minute, func() string {
		err := o.sys.Call(o.Context(), http.MethodGet, "/health", nil, nil)
		var status *harness.StatusError
		if !errors.As(err, &status) || status.Code != http.StatusServiceUnavailable {
			return fmt.Sprintf("the runner was killed, and health says %v", err)
		}
		return ""
	})
	start(o.T, o.sys, "supervisor.s0")
	get(o, "/health", func(h health) bool { return h.Status == "running" && h.Agents[ref].PID > 0 })
}

func (o omni) storage() {
	type stock struct {
		Agents  int `json:"agents_count"`
		Results int `json:"results_count"`
		Metrics int `json:"metrics_count"`
	}
	get(o, "/storage/health", func(s stock) bool { return s == stock{1, 1, 1} })
	o.do("POST", "/config/limits", map[string]any{"value": map[string]any{"per_hour": 5}}, nil)
	get(o, "/config/limits", func(c map[string]any) bool { return fmt.Sprint(c["value"]) == "map[per_hour:5]" })

	o.do("DELETE", "/tasks/good", nil, nil)
	o.gone("/tasks/good")
	o.do("DELETE", "/storage/results", nil, nil)
	o.gone("/tasks/bad")
	o.do("DELETE", "/storage/metrics", nil, nil)
	get(o, "/metrics?topic="+o.topic, func(m map[string]map[string]omniCounters) bool { return len(m) == 0 })
	o.do("POST", "/publish-tasks", map[string]any{"id": "later", "topic": o.topic, "payload": map[string]any{"content": "x"}}, nil)
	get(o, "/tasks/later", func(r omniResult) bool { return r.Status == "completed" })
	get(o, "/metrics?topic="+o.topic, func(m map[string]map[string]omniCounters) bool {
		c := m[o.topic]["stock"]
		return c.Received == 1 && c.Processed == 1 && c.Failed == 0
	})

	o.do("POST", "/agents/"+o.topic+"/stock/unsubscribe", nil, nil)
	o.do("DELETE", "/agents/topic/"+o.topic, nil, nil)
	o.gone("/agents/" + o.topic + "/stock")
	get(o, "/bus/dlq?topic="+o.topic, func(d []map[string]any) bool { return len(d) == 1 })
	o.do("DELETE", "/storage/all", nil, nil)
	get(o, "/storage/health", func(s stock) bool { return s == stock{} })
}
