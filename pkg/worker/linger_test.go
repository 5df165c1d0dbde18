package worker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// idleEngine is one that nobody has started.
func idleEngine() *Engine {
	return New(Config{Spec: &spec.Agent{Topic: "orders", Name: "biller", Config: spec.NewConfig(spec.SDK)}, Node: "n", Tiers: []time.Duration{time.Second}})
}

// What has failed or was retried waits a moment for others to be settled with; nobody waits for it, and it never waits for long.
func TestWhoWaitsForCompany(t *testing.T) {
	type ended struct {
		outcome task.Outcome
		attempt int
		ago     time.Duration
	}
	fails, again := ended{task.Failed, 1, 5 * time.Millisecond}, ended{task.Completed, 2, time.Millisecond}
	for name, c := range map[string]struct {
		finished []ended
		change   func(e *Engine, p *partition)
		wait     time.Duration
	}{
		"nothing":                          {},
		"a failure":                        {finished: []ended{fails}, wait: linger - 5*time.Millisecond},
		"one that was retried":             {finished: []ended{again}, wait: linger - time.Millisecond},
		"as long as the first":             {finished: []ended{fails, again}, wait: linger - 5*time.Millisecond},
		"whose time is over":               {finished: []ended{{task.Failed, 1, linger}, fails}},
		"a success at once takes all":      {finished: []ended{fails, {task.Completed, 1, 0}}},
		"somebody waits for a cancel":      {finished: []ended{{task.Cancelled, 2, 0}}},
		"what didn't run":                  {finished: []ended{{task.Rejected, 1, 0}}},
		"the process died":                 {finished: []ended{{task.Crashed, 1, 0}}},
		"nothing more starts before":       {finished: []ended{fails}, change: func(e *Engine, _ *partition) { e.full = true }},
		"the worker stops":                 {finished: []ended{fails}, change: func(e *Engine, _ *partition) { e.draining = true }},
		"its partition goes":               {finished: []ended{fails}, change: func(_ *Engine, p *partition) { p.leaving = true }},
		"the next of its key waits for it": {finished: []ended{fails}, change: func(e *Engine, _ *partition) { e.spec.Config.Ordering = spec.OrderingStrict }},
		"a reservation is wanted":          {finished: []ended{fails}, change: func(_ *Engine, p *partition) { p.wanted = 7 }},
		"a name is wanted":                 {finished: []ended{fails}, change: func(_ *Engine, p *partition) { p.tried = []*slot{{}} }},
	} {
		e := idleEngine()
		p := newPartition(hop.Assignment{}, 1, false)
		e.order = []*partition{p}
		now := time.Now()
		for i, f := range c.finished {
			s := &slot{eng: e, part: p, ended: now.Add(-f.ago), state: finished, result: Result{Outcome: f.outcome}}
			s.attempt.Record, s.attempt.Number = &kgo.Record{Offset: int64(i)}, f.attempt
			e.finished = append(e.finished, s)
		}
		if c.change != nil {
			c.change(e, p)
		}
		if got := max(e.unhurried(now), 0); got != c.wait {
			t.Errorf("%s: waits %s, want %s", name, got, c.wait)
		}
	}
}

// So many at once fill a transaction by themselves.
func TestManyWaitForNobody(t *testing.T) {
	e := idleEngine()
	now := time.Now()
	for range lingerMost {
		e.finished = append(e.finished, &slot{ended: now, result: Result{Outcome: task.Failed}})
	}
	if e.unhurried(now) <= 0 {
		t.Error("a hundred don't wait")
	}
	e.finished = append(e.finished, &slot{ended: now, result: Result{Outcome: task.Failed}})
	if e.unhurried(now) > 0 {
		t.Error("more than a hundred wait")
	}
}
