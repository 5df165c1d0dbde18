package dispatch

import (
	"cmp"
	"log/slog"
	"slices"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
)

// tell sets the report, and sends it at once where state or error changed.
func (k *Keeper) tell(a *spec.Agent, state string, cause *spec.Cause) {
	k.set(func(r *status.AgentReport) {
		r.Generation, r.State, r.Error, r.TopicMissing, r.Cleaned = a.Generation, state, cause, false, nil
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
	if before.State != after.State || before.Error != after.Error || before.TopicMissing != after.TopicMissing || before.Generation != after.Generation || before.Cleaned != after.Cleaned {
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
	if n, ok := k.room.Unsettled(); ok {
		r.Unsettled = &n
	}
	return r
}

// Dispatched gives the counts of tasks that have changed since it was last called, or all.
func (k *Keeper) Dispatched(all bool) []status.Dispatched {
	k.mu.Lock()
	c, counted := k.carrier, k.counted
	k.mu.Unlock()
	if c != nil {
		counted = c.Passed()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []status.Dispatched
	for p, count := range counted {
		if count.N+count.Over > 0 && (all || k.told[p] != count) {
			out = append(out, status.Dispatched{Partition: p, Since: count.Since, N: count.N, Filtered: count.Over})
		}
	}
	slices.SortFunc(out, func(a, b status.Dispatched) int { return cmp.Compare(a.Partition, b.Partition) })
	k.told = counted
	return out
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
