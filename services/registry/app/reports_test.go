package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/pkg/status"
)

// reported puts a record on the status topic.
func (r *registry) reported(v any) {
	r.Helper()
	value, err := json.Marshal(v)
	if err != nil {
		r.Fatal(err)
	}
	r.produce(&kgo.Record{Topic: r.cfg.Kafka.Names().Status(), Value: value})
}

// health is what /health says, and the kinds of its alerts.
func (r *registry) health() (answer map[string]any, kinds string) {
	r.Helper()
	_, answer = r.do(http.MethodGet, "/health", "")
	alerts, _ := answer["alerts"].([]any)
	for _, a := range alerts {
		kinds += fmt.Sprint(a.(map[string]any)["kind"], " ")
	}
	return answer, kinds
}

// What the database doesn't tell in time is named, and keeps nothing else from being told; what was reported meanwhile is
// there afterwards.
func TestHealthNamesWhatTheDatabaseDoesNotTell(t *testing.T) {
	t.Parallel()
	cfg := configuration(t)
	r := start(t, cfg)
	now := status.Seconds(time.Now())
	alert := func(kind string) status.Alert {
		return status.Alert{Event: status.EventAlert, Topic: "orders", AgentName: "bill", Kind: kind, Subject: "orders/bill", Service: "supervisor", Node: "s0", Severity: "critical", Message: "m", Since: now, Timestamp: now}
	}
	r.reported(status.StateChange{Event: status.EventStateChange, Topic: "orders", AgentName: "bill", Instance: "s0-1", Node: "s0", NewState: "RUNNING", PID: 7, Timestamp: now})
	r.reported(status.Node{Event: status.EventNode, Service: "supervisor", Node: "s0", PID: 1, StartedAt: now - 1, Timestamp: now})
	r.reported(alert("first"))
	r.waitFor("the alert", func() bool { _, kinds := r.health(); return kinds == "first " })

	db, err := postgres.Open(t.Context(), cfg.DatabaseURL, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tx, err := db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE alerts IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	r.reported(alert("second"))
	code, answer := r.do(http.MethodGet, "/health", "")
	unread, _ := answer["unread"].([]any)
	if len(unread) != 1 || unread[0] != "alerts: Postgres gave no answer within 2s" || code != http.StatusServiceUnavailable || answer["status"] != "degraded" ||
		!strings.Contains(fmt.Sprint(answer["detail"]), "alerts: Postgres gave no answer") {
		t.Errorf("while alerts can't be read: %d %v", code, answer)
	}
	if nodes, _ := answer["nodes"].([]any); len(nodes) != 1 {
		t.Errorf("nodes %v", nodes)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	r.waitFor("what was told meanwhile", func() bool {
		_, kinds := r.health()
		return strings.Contains(kinds, "first") && strings.Contains(kinds, "second")
	})
	if answer, _ := r.health(); answer["unread"] != nil || strings.Contains(fmt.Sprint(answer["detail"]), "not whole") {
		t.Errorf("afterwards %v", answer)
	}
}

func TestWhatIsFilteredIsCountedForPrometheusAndThePage(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(http.StatusCreated, http.MethodPost, "/v1/agents", `{"topic":"orders","name":"bill","command":"x"}`)
	now := status.Seconds(time.Now())
	r.reported(status.Node{Event: status.EventNode, Service: "dispatcher", Node: "d0", PID: 1, StartedAt: now - 1, Timestamp: now,
		Agents: []status.AgentReport{{Topic: "orders", AgentName: "bill", State: status.ReportServing, Dispatched: []status.Dispatched{{Partition: 0, Since: 1, N: 2, Filtered: 5}, {Partition: 1, Since: 1, Filtered: 7}}}}})
	r.waitFor("the count in /metrics", func() bool {
		resp, err := http.Get(r.url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		return err == nil && strings.Contains(string(text), `reeve_events_filtered_total{agent="bill",topic="orders"} 12`)
	})
	o := r.want(http.StatusOK, http.MethodGet, "/v1/overview", "")
	if a := o["agents"].([]any)[0].(map[string]any); fmt.Sprint(a["metrics"].(map[string]any)["filtered"]) != "12" {
		t.Errorf("%v", a["metrics"])
	}
}
