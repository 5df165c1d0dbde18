package app_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/status"
)

// eventOutcome is an outcome of an agent's task at orders/0/offset, of an event with an id.
func (r *registry) eventOutcome(agent, event string, offset, attempt int, outcome, settled, value string, headers ...string) *kgo.Record {
	rec := r.outcome(0, offset, attempt, outcome, settled, value, append(headers, "reeve-event", "1 "+event)...)
	rec.Headers[0].Value = []byte("orders/" + agent)
	return rec
}

// settled waits until a number of results and failures of agent a is known.
func (r *registry) settled(agent string, n float64) {
	r.Helper()
	r.waitFor("the outcomes", func() bool {
		m := r.want(200, "GET", "/v1/agents/orders/"+agent+"/metrics", "")
		return m["completed"].(float64)+m["dead_lettered"].(float64)+m["retried"].(float64) == n
	})
}

func TestAgentsUnderOmniDaemonsPaths(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	if a := r.want(200, "GET", "/agents", ""); len(a) != 0 {
		t.Errorf("%v", a)
	}
	for _, entry := range []string{agent, `{"topic":"orders","name":"b","command":"x"}`, `{"topic":"topic","name":"c","command":"x"}`} {
		r.want(201, "POST", "/v1/agents", entry)
	}
	all := r.want(200, "GET", "/agents", "")
	if orders := all["orders"].([]any); len(orders) != 2 || orders[0].(map[string]any)["name"] != "a" || orders[1].(map[string]any)["name"] != "b" {
		t.Errorf("%v", all)
	}
	if a := r.want(200, "GET", "/agents/orders/a", ""); a["topic"] != "orders" || a["config"].(map[string]any)["max_retries"] != 3.0 {
		t.Errorf("%v", a)
	}
	d := r.want(200, "DELETE", "/agents/orders/a", "")
	if c := d["cleanup"].(map[string]any); d["status"] != "deleted" || d["topic"] != "orders" || d["agent"] != "a" || c["storage_deleted"] != true ||
		c["consumer_group_deleted"] != false || c["dlq_deleted"] != false {
		t.Errorf("group and dead letters stay unless they are named: %v", d)
	}
	d = r.want(200, "DELETE", "/agents/orders/b?delete_group=true&delete_dlq=true", "")
	if c := d["cleanup"].(map[string]any); c["consumer_group_deleted"] != true || c["dlq_deleted"] != true {
		t.Errorf("%v", d)
	}
	r.want(404, "GET", "/agents/orders/a", "")
	r.want(404, "DELETE", "/agents/orders/a", "")
	r.want(404, "POST", "/agents/orders/a/unsubscribe", "")
	if d := r.want(200, "DELETE", "/agents/topic/topic", ""); d["status"] != "deleted" || d["topic"] != "topic" || d["agents_deleted"] != 1.0 {
		t.Errorf("%v", d)
	}
}

func TestAPublishedTaskKeepsWhatItsCallerSaid(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	p := r.want(200, "POST", "/publish-tasks", `{"id":"mine","topic":" orders ","payload":{"content":[1,"two"],"reply_to":"answers"},"tenant_id":"acme",
		"created_at":1701234567.89,"delivery_attempts":2}`)
	if p["task_id"] != "mine" || p["status"] != "published" || len(p) != 2 {
		t.Errorf("%v", p)
	}
	if p := r.want(200, "POST", "/publish-tasks", `{"topic":"orders","payload":{"content":"x"}}`); p["task_id"] == "" {
		t.Errorf("%v", p)
	}
	var events []map[string]any
	r.waitFor("the events", func() bool { events = r.list("/bus/inspect/orders"); return len(events) == 2 })
	for _, e := range events {
		d := e["data"].(map[string]any)
		if d["task_id"] != "mine" {
			continue
		}
		if d["tenant_id"] != "acme" || d["created_at"] != 1701234567.89 || d["delivery_attempts"] != 2.0 || d["reply_to"] != "answers" || fmt.Sprint(d["content"]) != "[1 two]" {
			t.Errorf("%v", d)
		}
	}
	for body, want := range map[string]int{
		``: 400, `{`: 400, `{"payload":{"content":1}}`: 422, `{"topic":"orders"}`: 422, `{"topic":"","payload":{"content":1}}`: 422, `{"topic":"orders","payload":{}}`: 422,
		`{"topic":"reeve.dlq.orders.a","payload":{"content":1}}`: 422, `{"topic":"a:dlq","payload":{"content":1}}`: 422,
		`{"topic":"orders","payload":{"content":1},"delivery_attempts":0}`: 422, `{"topic":"orders","payload":{"content":1},"delivery_attempts":2147483648}`: 422, `{"topic":"orders","payload":{"content":1},"tenant":"x"}`: 400,
		`{"topic":"orders","payload":{"content":1},"created_at":"now"}`: 400,
	} {
		if status, p := r.do("POST", "/publish-tasks", body); status != want {
			t.Errorf("%s: %d %v, want %d", body, status, p, want)
		}
	}
}

func TestAResultIsFoundByItsEvent(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	r.want(201, "POST", "/v1/agents", `{"topic":"orders","name":"b","command":"x"}`)
	r.want(404, "GET", "/tasks/one", "")
	r.produce(r.eventOutcome("a", "one", 1, 1, "completed", "done", `{"n":1}`),
		r.eventOutcome("a", "two", 2, 1, "completed", "done", `plain text`), r.eventOutcome("b", "two", 2, 1, "failed", "dlq", `{"error":"bad"}`, "reeve-error-class", "permanent", "reeve-error-message", "bad"),
		r.eventOutcome("a", "three", 3, 1, "failed", "retry", `{"error":"x"}`), r.eventOutcome("b", "orders:0:4", 4, 1, "completed", "done", `4`))
	r.settled("a", 3)
	r.settled("b", 2)
	one := r.want(200, "GET", "/tasks/one", "")
	if one["task_id"] != "one" || fmt.Sprint(one["result"]) != "map[n:1]" || one["saved_at"] == nil || one["status"] != "completed" || one["agent"] != "orders/a" || one["origin"] != "orders/0/1" {
		t.Errorf("%v", one)
	}
	two := r.list("/tasks/two")
	if len(two) != 2 || two[0]["agent"] != "orders/a" || two[0]["result"] != "plain text" || two[1]["status"] != "dead_lettered" || two[1]["result"] != nil ||
		two[1]["error"] != "bad" || two[1]["error_class"] != "permanent" {
		t.Errorf("two agents took it: %v", two)
	}
	if _, p := r.do("GET", "/tasks/three", ""); p["status"] != 404.0 || !strings.Contains(fmt.Sprint(p["detail"]), "tried again") {
		t.Errorf("%v", p)
	}
	for _, id := range []string{"orders%2F0%2F4", "orders:0:4"} {
		if four := r.want(200, "GET", "/tasks/"+id, ""); four["result"] != 4.0 {
			t.Errorf("%s: %v", id, four)
		}
	}
	r.produce(r.eventOutcome("a", "three", 3, 2, "completed", "done", `3`))
	r.waitFor("the retry", func() bool {
		code, three := r.do("GET", "/tasks/three", "")
		return code == 200 && three["attempts"] == 2.0
	})

	if all := r.list("/tasks"); len(all) != 4 {
		t.Errorf("those that completed: %v", all)
	}
	if last := r.list("/tasks?limit=1"); len(last) != 1 || last[0]["result"] != 3.0 || last[0]["task_id"] != "three" {
		t.Errorf("%v", last)
	}
	if d := r.want(200, "DELETE", "/tasks/one", ""); d["status"] != "deleted" || d["task_id"] != "one" {
		t.Errorf("%v", d)
	}
	r.want(404, "GET", "/tasks/one", "")
	r.want(404, "DELETE", "/tasks/one", "")
	if all := r.list("/tasks?limit=3"); len(all) != 3 {
		t.Errorf("a deleted one makes room: %v", all)
	}
	if h := r.want(200, "GET", "/storage/health", ""); h["results_count"] != 3.0 {
		t.Errorf("%v", h)
	}
	if task := r.want(200, "GET", "/v1/tasks/orders/a/0/1", ""); task["status"] != "completed" || task["result_state"] != "expired" {
		t.Errorf("the history stays: %v", task)
	}
	for _, limit := range []string{"0", "-1", "1001", "x"} {
		r.want(400, "GET", "/tasks?limit="+limit, "")
	}
	r.want(200, "DELETE", "/storage/results", "")
	r.want(404, "GET", "/tasks/two", "")
	if all := r.list("/tasks"); len(all) != 0 {
		t.Errorf("%v", all)
	}
}

// OmniDaemon summed up the newest rows only.
func TestCountersAreExactBeyondAThousandTasks(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	records := make([]*kgo.Record, 0, 2500)
	for i := range 2400 {
		records = append(records, r.outcome(0, i, 1, "completed", "done", "1", "reeve-times", "1 2 1000 3"))
	}
	for i := range 100 {
		records = append(records, r.outcome(0, 3000+i, 1, "failed", "dlq", `{"error":"x"}`))
	}
	for _, rec := range records {
		rec.Timestamp = time.UnixMilli(1500) // settled: half a second after it started
	}
	r.produce(records...)
	r.settled("a", 2500)
	for _, query := range []string{"?topic=orders", "?limit=10", "?topic=orders&limit=1"} {
		a := r.want(200, "GET", "/metrics"+query, "")["orders"].(map[string]any)["a"].(map[string]any)
		if a["tasks_received"] != 2500.0 || a["tasks_processed"] != 2400.0 || a["tasks_failed"] != 100.0 || a["avg_processing_time_sec"] == 0.0 ||
			a["total_processing_time"].(float64)/2400 != a["avg_processing_time_sec"] {
			t.Errorf("%s: %v", query, a)
		}
	}
	if m := r.want(200, "GET", "/metrics", "", "Accept", "application/json"); m["orders"] == nil {
		t.Errorf("%v", m)
	}
	if m := r.want(200, "GET", "/metrics?topic=other", ""); len(m) != 0 {
		t.Errorf("%v", m)
	}
	if text := r.want(200, "GET", "/metrics", "")["text"]; !strings.Contains(fmt.Sprint(text), "reeve_tasks_completed_total") {
		t.Errorf("Prometheus as before: %.80s", text)
	}
	for _, query := range []string{"?limit=0", "?limit=-5", "?limit=x", "?topic=orders&lmit=1"} {
		r.want(400, "GET", "/metrics"+query, "")
	}
}

func TestSettingsAreKeptAsTheyWereSaved(t *testing.T) {
	t.Parallel()
	cfg := configuration(t)
	r := start(t, cfg)
	if c := r.want(200, "GET", "/config/colour", ""); c["key"] != "colour" || c["value"] != nil {
		t.Errorf("%v", c)
	}
	if c := r.want(200, "GET", "/config/colour?default=red", ""); c["value"] != "red" {
		t.Errorf("%v", c)
	}
	for _, value := range []string{`"blue"`, `{"a":[1,2.50,null]}`, `null`, `12345678901234567890`, `false`} {
		if c := r.want(200, "POST", "/config/colour", `{"value":`+value+`}`); c["status"] != "saved" || c["key"] != "colour" {
			t.Errorf("%v", c)
		}
		got, err := json.Marshal(r.want(200, "GET", "/config/colour?default=red", "")["value"])
		var want any
		if err != nil || json.Unmarshal([]byte(value), &want) != nil {
			t.Fatal(err)
		}
		if wanted, err := json.Marshal(want); err != nil || string(got) != string(wanted) {
			t.Errorf("%s came back as %s", value, got)
		}
	}
	for body, want := range map[string]int{``: 400, `{}`: 400, `{"valu":1}`: 400, `{"value":`: 400, `{"value":"` + strings.Repeat("x", 1<<20) + `"}`: 413} {
		if status, p := r.do("POST", "/config/colour", body); status != want {
			t.Errorf("%.20s: %d %v, want %d", body, status, p, want)
		}
	}
	r.want(400, "POST", "/config/"+strings.Repeat("k", 257), `{"value":1}`)
	r.want(400, "GET", "/config/a%00b", "")
	r.want(200, "POST", "/config/x%2Fy", `{"value":1}`)
	r.want(201, "POST", "/v1/agents", agent)
	c := r.want(200, "DELETE", "/storage/all", "")
	if n := c["deleted_counts"].(map[string]any); c["status"] != "cleared" || n["config"] != 2.0 || n["agents"] != 1.0 || n["results"] != 0.0 || n["metrics"] != 0.0 {
		t.Errorf("%v", c)
	}
	if c := r.want(200, "GET", "/config/colour", ""); c["value"] != nil {
		t.Errorf("%v", c)
	}
}

func TestHealthSpeaksOfEachAgentsProcesses(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	h := func() map[string]any { _, h := r.do("GET", "/health", ""); return h }
	if first := h(); first["runner_id"] != "r1" || first["runner_running"] != false || first["healthy_agents_count"] != 0.0 || first["unhealthy_agents_count"] != 1.0 ||
		first["agent_health"].(map[string]any)["orders/a"].(map[string]any)["state"] != "IDLE" {
		t.Errorf("%v", first)
	}
	began := float64(time.Now().UnixMilli())/1000 - 10
	topic := r.cfg.Kafka.Names().Status()
	report := func(key string, v any) {
		value, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		r.produce(&kgo.Record{Topic: topic, Key: []byte(key), Value: value})
	}
	heard := func() { // again and again, since a node that is silent is dead
		now := float64(time.Now().UnixMilli()) / 1000
		report("s", status.Node{Event: status.EventNode, Service: "supervisor", Node: "s", StartedAt: began, Timestamp: now,
			Agents: []status.AgentReport{{Topic: "orders", AgentName: "a", Generation: 1, State: status.ReportServing, Instances: 1}}})
		report("orders/a", status.StateChange{Event: status.EventStateChange, Topic: "orders", AgentName: "a", Instance: "s-1", Node: "s", NewState: "RUNNING", PID: 42, Timestamp: now})
		report("orders/a", status.HealthCheck{Event: status.EventHealthCheck, Topic: "orders", AgentName: "a", Instance: "s-1", Node: "s", State: "RUNNING", Health: "healthy",
			CPUPercent: 1.5, MemoryMB: 20, RestartCount: 2, Timestamp: now})
	}
	r.waitFor("the process", func() bool {
		heard()
		got := h()
		return got["runner_running"] == true && got["agent_health"].(map[string]any)["orders/a"].(map[string]any)["memory_mb"] == 20.0
	})
	got := h()
	a := got["agent_health"].(map[string]any)["orders/a"].(map[string]any)
	if a["pid"] != 42.0 || a["state"] != "RUNNING" || a["healthy"] != true || a["cpu_percent"] != 1.5 || a["memory_mb"] != 20.0 || a["restart_count"] != 2.0 || a["last_heartbeat"] == nil {
		t.Errorf("%v", a)
	}
	if got["runner_running"] != true || got["healthy_agents_count"] != 1.0 || got["unhealthy_agents_count"] != 0.0 {
		t.Errorf("%v", got)
	}
}

func TestOmniDaemonsPathsAskForTheKey(t *testing.T) {
	t.Parallel()
	cfg := configuration(t)
	cfg.Auth, cfg.AdminKey = true, "s3cret"
	r := start(t, cfg)
	for _, path := range []string{"GET /agents", "DELETE /agents/topic/x", "POST /publish-tasks", "GET /tasks", "GET /tasks/x", "DELETE /tasks/x", "GET /bus/streams", "GET /bus/inspect/x",
		"GET /bus/stats", "GET /storage/health", "DELETE /storage/agents", "DELETE /storage/results", "DELETE /storage/metrics", "DELETE /storage/all", "GET /config/x", "POST /config/x"} {
		method, path, _ := strings.Cut(path, " ")
		r.want(401, method, path, "")
	}
	r.want(200, "GET", "/agents", "", "Authorization", "Bearer s3cret")
}
