package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/internal/version"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/control"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/registry/app"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testenv.Main{M: m}, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

// registry is one that runs, on a kfake and a schema of its own.
type registry struct {
	*testing.T
	cfg  config.Config
	url  string
	key  string
	opts []kgo.Opt
}

func configuration(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Default(config.Registry)
	cfg.Kafka.Brokers = strings.Split(testenv.Kfake(t).Address, ",")
	cfg.DatabaseURL, cfg.HTTPAddr, cfg.Node, cfg.Auth = testenv.Schema(t), "127.0.0.1:0", "r1", false
	return cfg
}

// patience is how long a test waits for one answer, of Reeve or of the broker: longer than Reeve itself takes to give up.
const patience = 45 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func start(t *testing.T, cfg config.Config) *registry {
	t.Helper()
	a, err := app.New(app.Config{Config: cfg, Logger: quiet(), CreateTopics: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			_ = pprof.Lookup("goroutine").WriteTo(t.Output(), 1) // what it waits for
			t.Fatal("it didn't stop within a minute")
		}
		http.DefaultClient.CloseIdleConnections()
	})
	select {
	case <-a.Ready():
	case err := <-done:
		done <- err
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("not ready")
	}
	return &registry{t, cfg, "http://" + a.Addr(), "", []kgo.Opt{kgo.SeedBrokers(cfg.Kafka.Brokers...), kgo.MetadataMinAge(50 * time.Millisecond)}}
}

// do sends a request and gives status and JSON.
func (r *registry) do(method, path, body string, headers ...string) (int, map[string]any) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, bytes.NewBufferString(body))
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if says := resp.Header.Get(version.Header); says != version.Number {
		r.Errorf("%s %s: the answer says version %q", method, path, says)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	var out map[string]any
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(raw, &out); err != nil {
			r.Fatalf("%s %s: %v: %s", method, path, err, raw)
		}
	} else {
		out = map[string]any{"text": string(raw)}
	}
	if resp.StatusCode >= 400 && resp.StatusCode != http.StatusServiceUnavailable {
		r.problem(method+" "+path, resp, out)
	}
	return resp.StatusCode, out
}

// problem checks that an error is one, whole.
func (r *registry) problem(what string, resp *http.Response, p map[string]any) {
	r.Helper()
	if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
		r.Errorf("%s: %d as %s", what, resp.StatusCode, ct)
	}
	for _, field := range []string{"type", "title", "status", "detail", "instance", "code", "remediation"} {
		if p[field] == nil || p[field] == "" {
			r.Errorf("%s: the problem has no %s: %v", what, field, p)
		}
	}
}

func (r *registry) want(code int, method, path, body string, headers ...string) map[string]any {
	r.Helper()
	got, out := r.do(method, path, body, headers...)
	if got != code {
		r.Fatalf("%s %s: %d %v, want %d", method, path, got, out, code)
	}
	return out
}

func (r *registry) waitFor(what string, ok func() bool) {
	r.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-limit:
			r.Fatalf("waited in vain for %s", what)
		}
	}
}

func (r *registry) produce(records ...*kgo.Record) {
	r.Helper()
	cl, err := kgo.NewClient(r.opts...)
	if err != nil {
		r.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		r.Fatal(err)
	}
}

const agent = `{"topic":"orders","name":"a","runtime":"python","callback":"callback:handle"}`

func TestAnAgentsLife(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	if h := r.want(200, "GET", "/health", ""); h["status"] != "ready" {
		t.Errorf("health: %v", h)
	}
	if c := r.want(200, "POST", "/v1/agents?dry_run=true", agent); c["action"] != "create" || c["dry_run"] != true {
		t.Errorf("dry run: %v", c)
	}
	r.want(404, "GET", "/v1/agents/orders/a", "")
	if c := r.want(201, "POST", "/v1/agents", agent); c["action"] != "create" {
		t.Errorf("%v", c)
	}
	r.controlHas("active")
	if c := r.want(200, "POST", "/v1/agents", agent); c["action"] != "unchanged" {
		t.Errorf("%v", c)
	}
	if c := r.want(200, "POST", "/v1/agents/orders/a/unsubscribe", ""); c["changed"] != true || c["phase"] != "paused" {
		t.Errorf("%v", c)
	}
	r.controlHas("paused")
	if c := r.want(200, "POST", "/v1/agents/orders/a/unsubscribe", `{}`); c["changed"] != false || c["code"] != "agent_already_paused" {
		t.Errorf("%v", c)
	}
	if c := r.want(200, "POST", "/agents/orders/a/unsubscribe", ""); c["status"] != "unsubscribed" || c["agent"] != "a" || c["topic"] != "orders" || c["message"] == "" {
		t.Errorf("alias: %v", c)
	}
	if c := r.want(200, "POST", "/v1/agents", agent); c["action"] != "resume" {
		t.Errorf("%v", c)
	}
	r.want(412, "POST", "/v1/agents/orders/a/unsubscribe", "", "If-Match", `"1"`)
	if c := r.want(200, "DELETE", "/v1/agents/orders/a?delete_group=true", ""); c["status"] != "deleted" {
		t.Errorf("%v", c)
	}
	r.controlHas("terminated")
	r.want(404, "GET", "/v1/agents/orders/a", "")
	r.want(404, "POST", "/v1/agents/orders/a/resume", "")
	if m := r.want(200, "GET", "/v1/agents/orders/a/metrics", ""); m["received"] != 0.0 {
		t.Errorf("%v", m)
	}
	if l := r.want(200, "GET", "/v1/agents?all=true", ""); len(l["items"].([]any)) != 1 {
		t.Errorf("%v", l)
	}
}

// controlHas waits until the control topic has the agent in a phase.
func (r *registry) controlHas(phase spec.Phase) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	w := watcher{phase, cancel, false}
	_ = control.Follow(ctx, r.opts, r.cfg.Kafka.Names(), quiet(), &w)
	if !w.seen {
		r.Fatalf("the control topic never had the agent as %s", phase)
	}
}

type watcher struct {
	phase spec.Phase
	stop  func()
	seen  bool
}

func (w *watcher) Ready(all map[string]*spec.Agent) {
	for key, a := range all {
		w.Changed(key, a)
	}
}

func (w *watcher) Changed(_ string, a *spec.Agent) {
	if a != nil && a.Phase == w.phase {
		w.seen = true
		w.stop()
	}
}

func TestBadRequestsGetProblems(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/nothing", "", 404, "route_not_found"},
		{"PATCH", "/v1/agents", "", 405, "method_not_allowed"},
		{"POST", "/v1/agents", "", 400, "invalid_json"},
		{"POST", "/v1/agents", "{", 400, "invalid_json"},
		{"POST", "/v1/agents", `{"topic":"orders","filter":"x"}`, 422, "invalid_agent"},
		{"POST", "/v1/agents", `{"topic":"reeve.control","command":"x"}`, 422, "invalid_agent"},
		{"POST", "/v1/agents", `{"topic":"orders","name":"a","command":"x","partitions":3}`, 409, "partitions_fixed"},
		{"POST", "/v1/agents", `{"topic":"` + strings.Repeat("x", 240) + `","name":"a","command":"x"}`, 422, "invalid_agent"},
		{"PUT", "/v1/agents/orders/b", agent, 400, "invalid_request"},
		{"POST", "/v1/apply", `{"agents":[` + agent + `,{"topic":"x","command":"y","dir":"../z"}]}`, 422, "invalid_agent"},
		{"POST", "/v1/apply", `{"agent":[]}`, 400, "unknown_key"},
		{"POST", "/v1/apply", `{"prune":true}`, 400, "invalid_request"},
		{"POST", "/v1/apply", `{"agents":null,"prune":true}`, 400, "invalid_request"},
		{"POST", "/v1/apply", `{"agents":[null]}`, 422, "invalid_agent"},
		{"POST", "/v1/apply", `{"agents":[],"prune":true,"keep":["a"]}`, 400, "invalid_request"},
		{"GET", "/v1/tasks?agent=orders/a/0", "", 400, "invalid_request"},
		{"POST", "/v1/agents", `{"topic":"orders","name":"a","command":"x","description":"\u0000"}`, 422, "invalid_agent"},
		{"GET", "/v1/agents?phase=asleep", "", 400, "invalid_request"},
		{"GET", "/v1/agents/%00/a", "", 400, "invalid_request"},
		{"GET", "/v1/dlq/orders/a/orders/%ff", "", 400, "invalid_request"},
		{"POST", "/v1/webhooks/dlq/redrive", `{"webhook_id":"\u0000"}`, 404, "not_found"},
		{"POST", "/v1/apply", `{"agents":[],"keep":["orders/a"]}`, 400, "invalid_request"},
		{"GET", "/v1/agents?tpic=x", "", 400, "unknown_key"},
		{"GET", "/v1/tasks?status=lost", "", 400, "invalid_request"},
		{"GET", "/v1/tasks?since=yesterday", "", 400, "invalid_request"},
		{"GET", "/v1/tasks?page_size=0", "", 400, "invalid_request"},
		{"GET", "/v1/tasks?page_size=x", "", 400, "invalid_request"},
		{"GET", "/v1/tasks?page_token=!", "", 400, "invalid_page_token"},
		{"GET", "/v1/agents/orders/a/logs?limit=0", "", 400, "invalid_request"},
		{"GET", "/v1/agents/orders/a/logs?limit=1001", "", 400, "invalid_request"},
		{"GET", "/v1/agents/orders/a/logs?limit=x", "", 400, "invalid_request"},
		{"GET", "/v1/agents/orders/a/logs?after=-1", "", 400, "invalid_request"},
		{"GET", "/v1/agents/orders/a/logs?tail=5", "", 400, "unknown_key"},
		{"GET", "/v1/agents/orders/nobody/logs", "", 404, "agent_not_found"},
		{"GET", "/v1/tasks/orders/a/0/99", "", 404, "not_found"},
		{"GET", "/v1/tasks/orders/a/x/99", "", 400, "invalid_request"},
		{"POST", "/v1/tasks/orders/a/0/0/cancel?reason=" + strings.Repeat("x", 501), "", 400, "invalid_request"},
		{"POST", "/v1/tasks/orders/a/0/0/retry?reason=two%0Alines", "", 400, "invalid_request"},
		{"GET", "/v1/dlq/orders/nobody", "", 404, "agent_not_found"},
		{"POST", "/v1/agents/orders/nobody/reset", "", 404, "agent_not_found"},
		{"POST", "/v1/agents/orders/a/unsubscribe", `{"hodl":true}`, 400, "unknown_key"},
		{"POST", "/v1/events", `{"topic":"orders"}`, 422, "invalid_event"},
		{"POST", "/v1/events", `{"topic":"reeve.tasks.x","payload":{"content":1}}`, 422, "invalid_event"},
		{"POST", "/v1/events", `{"topic":"orders","payload":{"content":1,"reply_to":"reeve.control"}}`, 422, "invalid_event"},
		{"POST", "/v1/events", `{"topic":"orders","payload":{"content":1,"webhook":"file:///etc/passwd"}}`, 422, "invalid_event"},
		{"POST", "/v1/events", `{"topic":"orders","payload":{"content":1,"webhook":"example.com/hook"}}`, 422, "invalid_event"},
		{"POST", "/v1/events", `{"topic":"orders","payload":{"content":1},"correlation_id":"` + strings.Repeat("c", 5000) + `"}`, 422, "invalid_event"},
		{"POST", "/v1/events/batch", `{"events":[{"topic":"orders","payload":{"content":1,"webhook":"ftp://x"}}]}`, 422, "invalid_event"},
		{"POST", "/v1/events", strings.Repeat(" ", 33<<20), 413, "too_large"},
		{"GET", "/v1/bus/groups", "", 400, "invalid_request"},
	} {
		status, p := r.do(c.method, c.path, c.body)
		if status != c.status || p["code"] != c.code {
			t.Errorf("%s %s %.80s: got %d %v, want %d %s", c.method, c.path, c.body, status, p, c.status, c.code)
		}
	}
	if l := r.want(200, "GET", "/v1/agents", ""); len(l["items"].([]any)) != 1 {
		t.Errorf("something was half applied: %v", l)
	}
}

func TestEventsOutcomesAndWhatIsSaidOfThem(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	p := r.want(202, "POST", "/v1/events", `{"topic":"orders","key":"k","payload":{"content":{"n":1}},"correlation_id":"c-1"}`)
	if p["event_id"] == "" || p["topic"] != "orders" || p["offset"] == nil {
		t.Fatalf("%v", p)
	}
	partition, offset := int(p["partition"].(float64)), int(p["offset"].(float64))
	path := fmt.Sprintf("/v1/tasks/orders/a/%d/%d", partition, offset)
	if task := r.want(200, "GET", path, ""); task["status"] != "queued" {
		t.Errorf("before its outcome: %v", task)
	}
	batch := r.want(202, "POST", "/v1/events/batch", `{"events":[{"topic":"orders","payload":{"content":1}},{"topic":"fresh.topic","payload":{"content":2}}]}`)
	if batch["published"] != 2.0 {
		t.Errorf("%v", batch)
	}
	r.produce(r.outcome(partition, offset, 1, "failed", "retry", `{"error":"no luck"}`, "reeve-error-class", "network", "reeve-error-message", "no luck"),
		r.outcome(partition, offset, 2, "completed", "done", `{"ok":true}`, "reeve-correlation-id", "c-1"),
		r.outcome(partition, offset+1000, 1, "failed", "dlq", `{"error":"bad","error_type":"ValueError","traceback":"line 1"}`, "reeve-error-class", "permanent"))
	r.waitFor("the outcomes", func() bool {
		m := r.want(200, "GET", "/v1/agents/orders/a/metrics", "")
		return m["completed"] == 1.0 && m["retried"] == 1.0 && m["dead_lettered"] == 1.0 && m["received"] == 2.0 && m["waiting"] == 0.0
	})
	task := r.want(200, "GET", path, "")
	if task["status"] != "completed" || len(task["history"].([]any)) != 2 || fmt.Sprint(task["result"]) != "map[ok:true]" || task["result_state"] != "available" {
		t.Errorf("%v", task)
	}
	if l := r.want(200, "GET", "/v1/tasks?correlation_id=c-1", ""); len(l["items"].([]any)) != 1 {
		t.Errorf("%v", l)
	}
	first := r.want(200, "GET", "/v1/tasks?page_size=1&agent=orders/a", "")
	second := r.want(200, "GET", "/v1/tasks?page_size=1&agent=orders/a&page_token="+fmt.Sprint(first["next_page_token"]), "")
	if len(second["items"].([]any)) != 1 || second["next_page_token"] != nil {
		t.Errorf("second page: %v", second)
	}
	dead := r.want(200, "GET", fmt.Sprintf("/v1/tasks/orders/a/%d/%d", partition, offset+1000), "")
	if dead["status"] != "dead_lettered" || dead["error_type"] != "ValueError" || dead["error_message"] != "bad" || dead["traceback"] != "line 1" {
		t.Errorf("%v", dead)
	}
	if text := r.want(200, "GET", "/metrics", "")["text"]; !strings.Contains(fmt.Sprint(text), `reeve_tasks_completed_total{agent="a",topic="orders",version="1.0.0"} 1`) {
		t.Errorf("%v", text)
	}
	if m := r.want(200, "GET", "/metrics?topic=orders", ""); fmt.Sprint(m["orders"].(map[string]any)["a"].(map[string]any)["tasks_processed"]) != "1" {
		t.Errorf("%v", m)
	}
	if o := r.want(200, "GET", "/v1/overview", ""); len(o["tasks"].([]any)) != 2 || len(o["dead_letters"].([]any)) != 1 {
		t.Errorf("%v", o)
	}
}

func (r *registry) outcome(partition, offset, attempt int, outcome, settled, value string, headers ...string) *kgo.Record {
	origin := fmt.Sprintf("orders/%d/%d", partition, offset)
	all := append([]string{"reeve-agent", "orders/a", "reeve-origin", origin, "reeve-attempt", strconv.Itoa(attempt), "reeve-outcome", outcome, "reeve-settled", settled,
		"reeve-version", "1.0.0", "reeve-times", "1 2 3 4"}, headers...)
	rec := &kgo.Record{Topic: r.cfg.Kafka.Names().Outcomes(), Key: []byte(origin), Value: []byte(value)}
	for i := 0; i+1 < len(all); i += 2 {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: all[i], Value: []byte(all[i+1])})
	}
	return rec
}

func TestDeadLettersAreListedWithTheirBytes(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	if l := r.want(200, "GET", "/v1/dlq/orders/a", ""); len(l["items"].([]any)) != 0 {
		t.Errorf("before the first: %v", l)
	}
	names := r.cfg.Kafka.Names()
	cl, err := kgo.NewClient(r.opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r.want(202, "POST", "/v1/events", `{"topic":"orders","payload":{"content":1}}`)
	if err := kafka.EnsureTopics(t.Context(), cl, -1, kafka.DLQTopic(names, &spec.Agent{Topic: "orders", Name: "a"}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	for i, value := range []string{"plain", "\xff\x00"} {
		r.produce(&kgo.Record{Topic: names.DLQ("orders", "a"), Key: []byte("k"), Value: []byte(value), Headers: []kgo.RecordHeader{
			{Key: "reeve-origin", Value: []byte(fmt.Sprintf("orders/0/%d/UUID", i))}, {Key: "reeve-error-class", Value: []byte("permanent")},
			{Key: "reeve-attempts", Value: []byte("4")}, {Key: "reeve-first-failed-at", Value: []byte("2026-01-02T03:04:05.678Z")}}})
	}
	var page map[string]any
	r.waitFor("the client's view of the topics to be fresh", func() bool {
		page = r.want(200, "GET", "/v1/dlq/orders/a?page_size=1", "")
		return len(page["items"].([]any)) > 0
	})
	first := page["items"].([]any)[0].(map[string]any)
	if first["origin"] != "orders/0/0" || first["value"] != "plain" || first["value_encoding"] != "utf-8" || first["attempts"] != 4.0 || first["first_failed_at"] == nil {
		t.Errorf("%v", first)
	}
	page = r.want(200, "GET", "/v1/dlq/orders/a?page_size=1&page_token="+fmt.Sprint(page["next_page_token"]), "")
	if second := page["items"].([]any)[0].(map[string]any); second["value"] != "/wA=" || second["value_encoding"] != "base64" {
		t.Errorf("%v", second)
	}
	if l := r.want(200, "GET", "/v1/dlq?topic=orders", ""); l["items"].([]any)[0].(map[string]any)["records"] != 2.0 {
		t.Errorf("%v", l)
	}
}

func TestReportsMoveAnAgentToErrorAndAResetBringsItBack(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	beat := func(generation int64) {
		report := status.AgentReport{Topic: "orders", AgentName: "a", Generation: generation, State: status.ReportError,
			Error: &spec.Cause{Type: "AgentCallbackNotFoundError", Message: "callback.py has no handle", Remediation: "define it"}}
		value, err := json.Marshal(status.Node{Event: status.EventNode, Service: "supervisor", Node: "s", StartedAt: 1, Agents: []status.AgentReport{report}, Timestamp: float64(time.Now().Unix())})
		if err != nil {
			t.Fatal(err)
		}
		change, err := json.Marshal(status.StateChange{Event: status.EventStateChange, Topic: "orders", AgentName: "a", Instance: "s-1", Node: "s", NewState: "CRASHED", Timestamp: float64(time.Now().Unix())})
		if err != nil {
			t.Fatal(err)
		}
		topic := r.cfg.Kafka.Names().Status()
		r.produce(&kgo.Record{Topic: topic, Key: []byte("s"), Value: value}, &kgo.Record{Topic: topic, Key: []byte("orders/a"), Value: change})
	}
	beat(1)
	r.waitFor("the error", func() bool { return r.want(200, "GET", "/v1/agents/orders/a", "")["phase"] == "error" })
	a := r.want(200, "GET", "/v1/agents/orders/a", "")
	if cause := a["cause"].(map[string]any); cause["error_type"] != "AgentCallbackNotFoundError" || cause["remediation"] != "define it" {
		t.Errorf("%v", a)
	}
	if _, p := r.do("POST", "/v1/agents/orders/a/resume", ""); p["code"] != "illegal_transition" || fmt.Sprint(p["legal"]) != "[delete initialize register reset restart stop]" {
		t.Errorf("%v", p)
	}
	r.waitFor("the instance", func() bool { return len(r.want(200, "GET", "/v1/instances", "")["items"].([]any)) == 1 })
	if c := r.want(200, "POST", "/v1/agents/orders/a/reset", ""); c["phase"] != "active" {
		t.Errorf("%v", c)
	}
}

func TestAnAgentsLogIsToldFromItsEndAndOnFromALine(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	at := time.Unix(time.Now().Unix(), 500_000_000).UTC() // of what is older than a day, tidying up leaves nothing
	for i, line := range []string{"one", "two", "nul \x00 and \u2028", "four"} {
		value, err := json.Marshal(status.LogLine{Event: status.EventLog, Topic: "orders", AgentName: "a", Instance: fmt.Sprintf("s-%d", i%2), Line: line, Timestamp: status.Seconds(at)})
		if err != nil {
			t.Fatal(err)
		}
		r.produce(&kgo.Record{Topic: r.cfg.Kafka.Names().Status(), Key: []byte("orders/a"), Value: value})
	}
	lines := func(query string) (text []string, last string) {
		for _, item := range r.want(200, "GET", "/v1/agents/orders/a/logs"+query, "")["items"].([]any) {
			l := item.(map[string]any)
			text, last = append(text, l["line"].(string)), fmt.Sprintf("%.0f", l["id"])
			if l["at"] != at.Format(time.RFC3339Nano) {
				t.Errorf("%v", l)
			}
		}
		return text, last
	}
	r.waitFor("the log", func() bool { all, _ := lines(""); return len(all) == 4 })
	if all, _ := lines("?limit=3"); fmt.Sprintf("%q", all) != `["two" "nul � and \u2028" "four"]` {
		t.Errorf("the last three: %q", all)
	}
	if all, _ := lines("?instance=s-1"); fmt.Sprint(all) != "[two four]" {
		t.Errorf("one instance: %q", all)
	}
	_, first := lines("?limit=4&instance=s-0")
	if all, _ := lines("?after=" + first); fmt.Sprint(all) != "[four]" {
		t.Errorf("behind the third: %q", all)
	}
}

func TestTheKey(t *testing.T) {
	t.Parallel()
	cfg := configuration(t)
	cfg.Auth, cfg.AdminKey = true, "s3cret"
	r := start(t, cfg)
	for _, path := range []string{"/health", "/livez", "/readyz", "/metrics", "/openapi.yaml", "/", "/page.css", "/page.js", "/letters.js"} {
		r.want(200, "GET", path, "")
	}
	for _, path := range []string{"/v1/agents", "/v1/overview", "/nothing"} {
		for _, header := range []string{"", "Bearer ", "Bearer wrong", "s3cret", "Basic s3cret"} {
			r.want(401, "GET", path, "", "Authorization", header)
		}
	}
	r.want(200, "GET", "/v1/agents", "", "Authorization", "Bearer s3cret")
}

// Another program that keeps its schema in the same database by goose, whose usual lock this is, doesn't keep a registry
// from starting.
func TestAMigrationElsewhereInTheDatabaseKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	cfg := configuration(t)
	db, err := postgres.Open(t.Context(), cfg.DatabaseURL, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), `SELECT pg_advisory_lock(4097083626)`); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the pool closes it for good, and with it goes the lock
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := migrations.Up(ctx, db.DB); err != nil {
		t.Error(err)
	}
}

func TestTwoRegistriesSideBySide(t *testing.T) {
	t.Parallel()
	cfg := configuration(t)
	one := start(t, cfg)
	cfg.Node = "r2"
	two := start(t, cfg) // migrates a database that is migrated
	two.want(201, "POST", "/v1/agents", agent)
	two.controlHas("active") // published by whichever leads
	two.produce(two.outcome(0, 1, 1, "completed", "done", `{}`))
	for _, r := range []*registry{one, two} {
		r.waitFor("the outcome", func() bool { return r.want(200, "GET", "/v1/agents/orders/a/metrics", "")["completed"] == 1.0 })
		if task := r.want(200, "GET", "/v1/tasks/orders/a/0/1", ""); task["status"] != "completed" {
			t.Errorf("%v", task)
		}
	}
}

func TestResultsGoWithTheOutcomesThatAreKeptNoLonger(t *testing.T) {
	t.Parallel()
	cfg := configuration(t)
	r := start(t, cfg)
	r.want(201, "POST", "/v1/agents", agent)
	r.produce(r.outcome(0, 1, 1, "completed", "done", `{"n":1}`))
	r.waitFor("the outcome", func() bool { return r.want(200, "GET", "/v1/agents/orders/a/metrics", "")["completed"] == 1.0 })
	if task := r.want(200, "GET", "/v1/tasks/orders/a/0/1", ""); task["result_state"] != "available" {
		t.Errorf("%v", task)
	}
	cfg.OutcomesKeep = time.Nanosecond
	short := start(t, cfg) // a new life of the same name takes over, and tidies up
	short.waitFor("the outcome to go", func() bool { return short.want(200, "GET", "/v1/tasks/orders/a/0/1", "")["result_state"] == "expired" })
	if task := short.want(200, "GET", "/v1/tasks/orders/a/0/1", ""); task["status"] != "completed" || task["result"] != nil {
		t.Errorf("%v", task)
	}
}

func TestWithoutKafkaTheSystemIsDownAndSaysSo(t *testing.T) {
	t.Parallel()
	cfg := configuration(t)
	broker, err := testenv.StartKfake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Kafka.Brokers = strings.Split(broker.Address, ",")
	r := start(t, cfg)
	r.want(201, "POST", "/v1/agents", agent)
	if err := broker.Stop(); err != nil {
		t.Fatal(err)
	}
	r.waitFor("the health to show it", func() bool {
		code, h := r.do("GET", "/health", "")
		return code == 503 && h["status"] == "down" && h["event_bus_connected"] == false
	})
	if code, p := r.do("POST", "/v1/events", `{"topic":"orders","payload":{"content":1}}`); code != 503 || p["code"] != "kafka_unavailable" {
		t.Errorf("%d %v", code, p)
	}
	if a := r.want(200, "POST", "/v1/agents/orders/a/unsubscribe", ""); a["phase"] != "paused" { // published when Kafka is back
		t.Errorf("%v", a)
	}
}

func TestAStartThatCannotBeSaysWhatWhereAndWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := free.Addr().String()
	_ = free.Close()
	for name, c := range map[string]struct {
		change func(c *config.Config)
		want   []string
	}{
		"a port in use":    {func(c *config.Config) { c.HTTPAddr = taken.Addr().String() }, []string{taken.Addr().String(), "REEVE_HTTP_ADDR"}},
		"Postgres away":    {func(c *config.Config) { c.DatabaseURL = "postgres://u:hunter2@" + nobody + "/db" }, []string{nobody, "REEVE_DATABASE_URL"}},
		"Kafka away":       {func(c *config.Config) { c.Kafka.Brokers = []string{nobody} }, []string{nobody, "REEVE_KAFKA_BROKERS"}},
		"no such database": {func(c *config.Config) { c.DatabaseURL = elsewhere(c.DatabaseURL) }, []string{"/nowhere", "create the role or the database", "REEVE_DATABASE_URL"}},
		"no Postgres URL":  {func(c *config.Config) { c.DatabaseURL = "mysql://u:hunter2@x/y" }, []string{"REEVE_DATABASE_URL"}},
		"no key":           {func(c *config.Config) { c.Auth = true }, []string{"REEVE_ADMIN_KEY"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := configuration(t)
			c.change(&cfg)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			a, err := app.New(app.Config{Config: cfg, Logger: quiet()})
			if err == nil {
				err = a.Run(ctx)
			}
			if err == nil {
				t.Fatal("it runs")
			}
			for _, text := range c.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v lacks %s", err, text)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password shows: %v", err)
			}
		})
	}
}

// elsewhere is the URL of a database that isn't there, on a server that is.
func elsewhere(databaseURL string) string {
	u, err := url.Parse(databaseURL)
	if err != nil {
		panic(err) // it comes from the test's own environment
	}
	u.Path = "/nowhere"
	return u.String()
}
