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

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
)

const inactive = `{"topic":"orders","name":"a","runtime":"python","callback":"callback:handle","activate":false}`

func TestAnAgentThatIsOnlyRegisteredIsMovedOnStepByStep(t *testing.T) {
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
