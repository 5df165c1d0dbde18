package app_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/reeve-run/reeve/pkg/spec"
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
