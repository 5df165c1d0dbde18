package dispatch

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reeve-run/reeve/pkg/spec"
)

// A later life may begin before the keeper of the former one has ended. Two of them would be one member of the agent's groups.
func TestAnAgentThatComesBackHasOneKeeper(t *testing.T) {
	a := &spec.Agent{Topic: "orders", Name: "bill", Partitions: 1, Phase: spec.Active, Generation: 1}
	f := &Fleet{env: &Environment{Metrics: NewMetrics(prometheus.NewRegistry())}, keepers: map[string]*Keeper{}}
	k := newKeeper(f.env, a, nil, nil)
	f.keepers[a.Key()] = k
	f.Changed(a.Key(), nil)
	if f.spec(a.Ref()) != nil {
		t.Error("an agent is known whose record is gone")
	}
	f.Changed(a.Key(), a)
	if f.keeper(a.Ref()) != k || f.retire(t.Context(), a.Key(), k) || f.spec(a.Ref()) != a {
		t.Error("its keeper doesn't go on")
	}
	f.Changed(a.Key(), nil)
	if !f.retire(t.Context(), a.Key(), k) || len(f.keepers) != 0 {
		t.Error("its keeper is remembered")
	}
}
