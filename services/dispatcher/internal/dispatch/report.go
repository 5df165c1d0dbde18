package dispatch

import (
	"log/slog"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
)

// tell sets the report, and sends it at once where state or error changed.
func (k *Keeper) tell(a *spec.Agent, state string, cause *spec.Cause) {
	k.set(func(r *status.AgentReport) {
		r.Generation, r.State, r.Error, r.TopicMissing = a.Generation, state, cause, false
	})
}

func (k *Keeper) tellMissing(a *spec.Agent) {
	if !k.env.CreateTopics && !k.Report().TopicMissing {
		k.env.Logger.Warn("the agent's topic doesn't exist: create it, its events are routed from then on", slog.String("agent", a.Ref()), slog.String("topic", a.Topic))
	}
	k.set(func(r *status.AgentReport) {
		r.Generation, r.State, r.Error, r.TopicMissing = a.Generation, status.ReportServing, nil, true
	})
}

func (k *Keeper) set(change func(r *status.AgentReport)) {
	k.mu.Lock()
	before := k.report
	change(&k.report)
	after := k.report
	k.mu.Unlock()
	if before.State != after.State || before.Error != after.Error || before.TopicMissing != after.TopicMissing || before.Generation != after.Generation {
		k.env.Reporter.Agent(k.Report())
	}
}

// Report is the agent's report with its figures.
func (k *Keeper) Report() status.AgentReport {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.report
	r.Lag = k.lag
	if k.lane != nil {
		r.Partitions = k.lane.Partitions()
	}
	if n := k.room.Unsettled(); k.carrier != nil || n > 0 {
		r.Unsettled = &n
	}
	return r
}

// positions gives where the lane stands; nil while there is none.
func (k *Keeper) positions() map[int32]int64 {
	k.mu.Lock()
	c := k.carrier
	k.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.Positions()
}

func (k *Keeper) setLag(lag *int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lag = lag
}
