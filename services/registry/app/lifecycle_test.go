package app_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

const inactive = `{"topic":"orders","name":"a","runtime":"python","callback":"callback:handle","activate":false}`

func TestAnAgentThatIsOnlyRegisteredIsMovedOnStepByStep(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", inactive)
	r.controlHas("created")
	if a := r.want(200, "GET", "/v1/agents/orders/a", ""); a["phase"] != "created" || a["initialized_at"] != nil {
		t.Fatalf("%v", a)
	}
	if h := r.want(200, "GET", "/v1/agents/orders/a", ""); h["activate"] != nil {
		t.Errorf("activate is part of a registration, not of the agent: %v", h)
	}
	if c := r.want(200, "POST", "/v1/agents", inactive); c["action"] != "unchanged" {
		t.Errorf("%v", c)
	}
	if p := r.want(409, "POST", "/v1/agents/orders/a/start", ""); !slices.Equal(p["legal"].([]any), []any{"delete", "initialize", "register", "stop"}) {
		t.Errorf("%v", p)
	}
	for _, step := range []struct {
		verb, phase string
		changed     bool
		code        any
	}{
		{"stop", "created", false, "agent_not_running"},
		{"initialize", "initialized", true, nil},
		{"stop", "initialized", false, "agent_not_running"},
		{"start", "active", true, nil},
		{"start", "active", false, "agent_already_active"},
		{"stop", "initialized", true, nil},
		{"start", "active", true, nil},
		{"unsubscribe", "paused", true, nil},
		{"unsubscribe", "paused", false, "agent_already_paused"},
		{"stop", "paused", false, "agent_not_running"},
		{"resume", "active", true, nil},
	} {
		c := r.want(200, "POST", "/v1/agents/orders/a/"+step.verb+"?reason=because", "")
		if c["phase"] != step.phase || c["changed"] != step.changed || c["code"] != step.code {
			t.Fatalf("%s: %v", step.verb, c)
		}
		if step.changed {
			r.controlHas(spec.Phase(step.phase))
		}
	}
	if a := r.want(200, "GET", "/v1/agents/orders/a", ""); a["initialized_at"] == nil {
		t.Error("it has no initialized_at")
	}
	r.want(409, "POST", "/v1/agents/orders/a/initialize", "")
	if c := r.want(200, "POST", "/v1/agents", inactive); c["action"] != "unchanged" {
		t.Errorf("activate false moves no phase: %v", c)
	}
	h := r.want(200, "GET", "/v1/agents/orders/a/history", "")["items"].([]any)
	if first := h[0].(map[string]any); len(h) != 7 || first["action"] != "resume" || first["reason"] != "because" || first["actor"] != "admin" || first["old_phase"] != "paused" {
		t.Errorf("%d moves, the last %v", len(h), first)
	}
}

func TestAStopForAnOlderETagIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	r.want(412, "POST", "/v1/agents/orders/a/stop", "", "If-Match", `"2"`)
	r.want(200, "POST", "/v1/agents/orders/a/stop", "", "If-Match", `"1"`)
	r.want(412, "POST", "/v1/agents/orders/a/start", "", "If-Match", `"1"`)
	r.want(400, "POST", "/v1/agents/orders/a/start?reason="+fmt.Sprintf("%0501d", 1), "")
	if c := r.want(200, "POST", "/v1/agents", agent); c["action"] != "resume" {
		t.Errorf("registering starts a stopped agent: %v", c)
	}
}

func TestWhatRetentionWillRemoveIsToldBefore(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	cl, err := kgo.NewClient(append(r.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	week := 7 * 24 * time.Hour
	value := strconv.FormatInt(week.Milliseconds(), 10)
	if _, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "retention.ms", Value: &value}}, "orders"); err != nil {
		t.Fatal(err)
	}
	var at kadm.Offsets
	at.AddOffset("orders", 0, 1, -1)
	if err := adm.CommitAllOffsets(t.Context(), r.cfg.Kafka.Names().Group("orders", "a"), at); err != nil {
		t.Fatal(err)
	}
	oldest := time.Now().Add(-week * 9 / 10).UTC().Truncate(time.Second)
	err = cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("passed"), Timestamp: oldest.Add(-time.Hour)},
		&kgo.Record{Topic: "orders", Value: []byte("oldest"), Timestamp: oldest}, &kgo.Record{Topic: "orders", Value: []byte("later"), Timestamp: time.Now()}).FirstErr()
	if err != nil {
		t.Fatal(err)
	}
	r.waitFor("the outlook", func() bool { return r.want(200, "GET", "/v1/agents/orders/a", "")["expires_at"] != nil })
	if a := r.want(200, "GET", "/v1/agents/orders/a", ""); a["oldest_waiting_at"] != oldest.Format(time.RFC3339) || a["expires_at"] != oldest.Add(week).Format(time.RFC3339) {
		t.Errorf("%v %v", a["oldest_waiting_at"], a["expires_at"])
	}
	alerts := func() (out []any) {
		_, h := r.do("GET", "/health", "")
		all, _ := h["alerts"].([]any)
		for _, a := range all {
			if a.(map[string]any)["kind"] == "retention_near" {
				out = append(out, a)
			}
		}
		return out
	}
	r.waitFor("the alert", func() bool { return len(alerts()) == 1 })
	at.AddOffset("orders", 0, 3, -1)
	if err := adm.CommitAllOffsets(t.Context(), r.cfg.Kafka.Names().Group("orders", "a"), at); err != nil {
		t.Fatal(err)
	}
	r.waitFor("its end", func() bool {
		return len(alerts()) == 0 && r.want(200, "GET", "/v1/agents/orders/a", "")["expires_at"] == nil
	})
}

func TestWhatRetentionTookIsInTheAgentsHistoryOnce(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	lost := func(first, next int64) *kgo.Record {
		value, err := json.Marshal(status.Lost{Event: status.EventLost, Topic: "orders", AgentName: "a", TopicID: "u", Partition: 2, From: first, To: next, Timestamp: 1.7e9})
		if err != nil {
			t.Fatal(err)
		}
		return &kgo.Record{Topic: r.cfg.Kafka.Names().Status(), Key: []byte("orders/a"), Value: value}
	}
	r.produce(lost(10, 25), lost(10, 25), lost(40, 40))
	r.waitFor("the range", func() bool { return r.want(200, "GET", "/v1/agents/orders/a", "")["lost"] != nil })
	r.produce(lost(10, 25), lost(-1, 60))
	r.waitFor("the second", func() bool { return len(r.want(200, "GET", "/v1/agents/orders/a", "")["lost"].([]any)) == 2 })
	for _, l := range r.want(200, "GET", "/v1/agents/orders/a", "")["lost"].([]any) {
		if l := l.(map[string]any); l["partition"] != 2.0 || l["last"] != 24.0 && l["last"] != 59.0 || l["last"] == 24.0 && l["first"] != 10.0 || l["last"] == 59.0 && l["first"] != nil {
			t.Errorf("%v", l)
		}
	}
	said := 0
	for _, m := range r.want(200, "GET", "/v1/agents/orders/a/history", "")["items"].([]any) {
		if m := m.(map[string]any); m["action"] == "events_lost" {
			said++
			if m["phase"] != "active" || m["generation"] != 1.0 || !strings.Contains(m["reason"].(string), "of partition 2") {
				t.Errorf("%v", m)
			}
		}
	}
	if said != 2 {
		t.Errorf("%d lines of the history tell of a loss", said)
	}
}

func TestADeletionSaysBeforeWhatGoes(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	names := r.cfg.Kafka.Names()
	cl, err := kgo.NewClient(append(r.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if _, err := adm.CreateTopics(t.Context(), 2, 1, nil, names.Tasks("orders", "a"), names.Retry(time.Second), names.DLQ("orders", "a")); err != nil {
		t.Fatal(err)
	}
	of := func(topic, agent string) *kgo.Record {
		return &kgo.Record{Topic: topic, Headers: []kgo.RecordHeader{{Key: task.HeaderAgent, Value: []byte(agent)}}}
	}
	tasks := names.Tasks("orders", "a")
	err = cl.ProduceSync(t.Context(), of(tasks, "orders/a"), of(tasks, "orders/a"), of(tasks, "orders/a"), of(tasks, "orders/a"),
		of(names.Retry(time.Second), "orders/a"), of(names.Retry(time.Second), "orders/other"), of(names.DLQ("orders", "a"), "orders/a")).FirstErr()
	if err != nil {
		t.Fatal(err)
	}
	var done offsets.Set
	done.Add(2) // offset 3
	m := offsets.Metadata{Settled: done}
	var at kadm.Offsets
	at.Add(kadm.Offset{Topic: tasks, Partition: 0, At: 1, LeaderEpoch: -1, Metadata: m.Encode(1)})
	if err := adm.CommitAllOffsets(t.Context(), names.WorkGroup("orders", "a"), at); err != nil {
		t.Fatal(err)
	}
	r.produce(&kgo.Record{Topic: "orders"}, &kgo.Record{Topic: "orders"})
	for query, want := range map[string]map[string]any{
		"?dry_run=true": {"storage_deleted": true, "consumer_group_deleted": false, "dlq_deleted": false, "discards": 0.0, "unread": nil, "dead_letters": nil},
		"?dry_run=true&delete_group=true&delete_dlq=true": {"storage_deleted": true, "consumer_group_deleted": true, "dlq_deleted": true, "discards": 3.0, "unread": 2.0, "dead_letters": 1.0},
	} {
		d := r.want(200, "DELETE", "/v1/agents/orders/a"+query, "")
		got := d["cleanup"].(map[string]any)
		for field, value := range want {
			if got[field] != value {
				t.Errorf("%s: %s is %v, not %v", query, field, got[field], value)
			}
		}
		if d["changed"] != false || d["status"] != "dry_run" {
			t.Errorf("%s: %v", query, d)
		}
	}
	r.want(200, "GET", "/v1/agents/orders/a", "")
	r.want(412, "DELETE", "/v1/agents/orders/a?dry_run=true", "", "If-Match", `"2"`)
	if d := r.want(200, "DELETE", "/v1/topics/orders/agents?dry_run=true&delete_dlq=true", ""); d["agents_deleted"] != 1.0 || d["items"].([]any)[0].(map[string]any)["status"] != "dry_run" {
		t.Errorf("%v", d)
	}
	if d := r.want(200, "DELETE", "/v1/topics/orders/agents", ""); d["agents_deleted"] != 1.0 || d["items"].([]any)[0].(map[string]any)["changed"] != true {
		t.Errorf("%v", d)
	}
	r.want(404, "DELETE", "/v1/agents/orders/a?dry_run=true", "")
}
