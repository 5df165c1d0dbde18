package agent_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestARunnerThatCantStartSaysWhy(t *testing.T) {
	for name, tt := range map[string]struct {
		options agent.Options
		environ []string
		says    string
	}{
		"a node with a space":      {agent.Options{Node: "a b"}, nil, "REEVE_NODE"},
		"a node of the variable":   {agent.Options{}, []string{"REEVE_NODE=/"}, "REEVE_NODE"},
		"a prefix with '_'":        {agent.Options{}, []string{"REEVE_TOPIC_PREFIX=a_b"}, `the prefix "a_b" is illegal`},
		"tiers that are none":      {agent.Options{}, []string{"REEVE_RETRY_TIERS=soon"}, `REEVE_RETRY_TIERS: "soon" is no duration`},
		"a replication of nothing": {agent.Options{}, []string{"REEVE_TOPIC_REPLICATION=0"}, "REEVE_TOPIC_REPLICATION"},
		"labels":                   {agent.Options{}, []string{"REEVE_LABELS=gpu"}, "REEVE_LABELS: this version doesn't carry it out"},
		"an URL that is none":      {agent.Options{URL: "localhost"}, nil, "is no URL of a registry"},
	} {
		tt.options.Environ = append([]string{}, tt.environ...)
		if _, err := agent.NewRunner(tt.options); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnAgentsSpec(t *testing.T) {
	a := agent.Agent{Topic: "file.uploaded", Description: "d", Version: "2.0.0", Tags: []string{"x"}, ID: "id", Type: "ty", Concurrency: 3, Ordering: agent.OrderingNone,
		RequestTimeout: agent.Infinite, DrainTimeout: 1500 * time.Millisecond, ReclaimIdle: time.Minute, MaxRetries: new(0), DLQEnabled: new(false), RetryDelays: []time.Duration{5 * time.Second}, Partitions: 2}
	s, err := a.Spec(topics.Names{}, topics.DefaultTiers())
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "file_uploaded_agent" || s.Runtime != spec.SDK || *s.Description != "d" || s.Version != "2.0.0" || s.ID != "id" || s.Type != "ty" || s.Partitions != 2 ||
		!s.Process.RequestTimeout.Infinite() || s.Process.DrainTimeout != 1.5 {
		t.Errorf("%+v", s)
	}
	if c := s.Config; c.Concurrency != 3 || c.Ordering != "none" || c.ReclaimIdleMS != 60_000 || c.MaxRetries != 0 || c.DLQEnabled || c.RetryDelays[0] != "5s" {
		t.Errorf("%+v", c)
	}
	s, err = agent.Agent{Topic: "orders", Ordering: agent.OrderingStrict, Backoff: &agent.Backoff{Base: time.Second, Factor: 5, Max: 5 * time.Second}}.Spec(topics.Names{}, topics.DefaultTiers())
	if err != nil || s.Config.Ordering != spec.OrderingStrict || !slices.Equal(s.Config.RetryDelays, []string{"1s", "5s"}) {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = agent.Agent{Topic: "orders", Inactive: true}.Spec(topics.Names{}, topics.DefaultTiers())
	if err != nil || !s.Inactive {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = agent.Agent{Topic: "orders", Name: "hello"}.Spec(topics.Names{}, topics.DefaultTiers())
	if err != nil || s.Config.MaxRetries != 3 || !s.Config.DLQEnabled || s.Version != "1.0.0" || s.Config.Concurrency != 16 || s.Process != spec.NewProcess() {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestAnAgentThatCantBeIsRefusedByName(t *testing.T) {
	r, err := agent.NewRunner(agent.Options{Environ: []string{}, Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	h := hello().Handler
	for says, a := range map[string]agent.Agent{
		"topic is missing":               {Handler: h},
		"its handler is missing":         {Topic: "orders"},
		`the name "a b" is illegal`:      {Topic: "orders", Name: "a b", Handler: h},
		"7s is no retry tier":            {Topic: "orders", RetryDelays: []time.Duration{7 * time.Second}, Handler: h},
		"config.max_retries -1":          {Topic: "orders", MaxRetries: new(-1), Handler: h},
		"config.concurrency -1 is out":   {Topic: "orders", Concurrency: -1, Handler: h},
		`config.ordering "sorted"`:       {Topic: "orders", Ordering: "sorted", Handler: h},
		"config.backoff.base 2s is no":   {Topic: "orders", Backoff: &agent.Backoff{Base: 2 * time.Second}, Handler: h},
		"characters, Kafka takes":        {Topic: "orders", Name: strings.Repeat("x", 240), Handler: h},
		"process.request_timeout":        {Topic: "orders", RequestTimeout: -1, Handler: h},
		"partitions 5000 is out of":      {Topic: "orders", Partitions: 5000, Handler: h},
		"is one of Reeve's own topics":   {Topic: "reeve.control", Handler: h},
		`the topic "a topic" is illegal`: {Topic: "a topic", Name: "a", Handler: h},
	} {
		if err := r.Register(t.Context(), a); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	if err := r.Register(t.Context(), hello()); err != nil {
		t.Error(err)
	}
	if err := r.Register(t.Context(), hello()); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Error(err)
	}
}
