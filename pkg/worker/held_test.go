package worker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// holding is an engine in whose beginning outage n tasks have failed for good, and wait.
func holding(t *testing.T, n int) *Engine {
	t.Helper()
	a := &spec.Agent{Topic: "orders", Name: "biller", Version: "1", Runtime: spec.SDK, Config: spec.NewConfig(spec.SDK), Process: spec.NewProcess()}
	a.Config.MaxRetries = 0
	e := New(Config{Spec: a, Node: "n", Tiers: []time.Duration{time.Second}})
	e.member = loneMember(t)
	p := &partition{named: map[int64]*slot{}}
	for i := range n {
		s := &slot{eng: e, part: p, ended: time.Now(), state: finished, result: Result{Outcome: task.Failed, Class: task.ClassNetwork, Message: "connection refused"}}
		s.attempt.Record = &kgo.Record{Topic: "tasks", Offset: int64(i)}
		s.attempt.started = s.ended
		e.finished = append(e.finished, s)
	}
	for i := range telling {
		e.outage.observe(time.Now(), result{failure: failureOf(e.finished[0].result), task: uint64(i), began: time.Now(), first: time.Now()})
	}
	if tx := e.prepare(tidyUp); tx != nil || len(e.held) != n || len(e.finished) != 0 {
		t.Fatalf("%d of %d wait", len(e.held), n)
	}
	return e
}

// However many wait for the outage rule: while it has nothing to say, a commit does nothing about them.
func TestWhatWaitsForTheOutageRuleCostsACommitNothing(t *testing.T) {
	few, many := holding(t, 1), holding(t, heldLimit)
	cost := func(e *Engine) float64 { return testing.AllocsPerRun(100, func() { e.prepare(groupCommit) }) }
	if a, b := cost(few), cost(many); a != b {
		t.Errorf("a commit allocates %v times while one waits, and %v while %d do", a, b, heldLimit)
	}
}

// They go on as soon as the rule sees things otherwise, or when their time is over, in their order.
func TestWhatWaitsForTheOutageRuleIsJudgedInTime(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(e *Engine)
		on      int
		settled task.Settled
	}{
		"others succeed": {func(e *Engine) {
			e.outage.observe(time.Now(), result{task: 99, began: time.Now()})
		}, 5, task.SettledRetry},
		"others have succeeded, who had begun before": {func(e *Engine) {
			e.outage.observe(time.Now(), result{task: 99, began: time.Now().Add(-time.Minute)})
		}, 0, ""},
		"another failure": {func(e *Engine) {
			e.outage.observe(time.Now(), result{failure: failure{kind: 1, class: task.ClassNetwork}, task: 99, began: time.Now(), first: time.Now()})
		}, 0, ""},
		"nothing is heard": {func(e *Engine) {
			e.outage.last = time.Now().Add(-patience)
		}, 5, task.SettledRetry},
		"nothing is heard, but something runs": {func(e *Engine) {
			e.outage.last, e.running = time.Now().Add(-patience), 1
		}, 0, ""},
		"for long": {func(e *Engine) {
			e.held[0].ended, e.running = time.Now().Add(-longest), 1
		}, 5, task.SettledRetry},
		"it is checked": {func(e *Engine) {
			e.outage.check(time.Now())
		}, 0, ""},
		"they have been tried again twice": {func(e *Engine) {
			for _, s := range e.held {
				s.header.remember().spared = []byte("2 1700000000000")
			}
			e.outage.observe(time.Now(), result{task: 99, began: time.Now()})
		}, 5, task.SettledDLQ},
	} {
		e := holding(t, 5)
		c.happens(e)
		batch, _, _ := e.takeFinished(groupCommit)
		if len(batch) != c.on || len(e.held) != 5-c.on || e.outage.held != len(e.held) {
			t.Errorf("%s: %d go on, %d wait, want %d to go on", name, len(batch), len(e.held), c.on)
		}
		for i, s := range batch {
			if s.offset() != int64(i) || s.verdict.Settled != c.settled || s.verdict.Burns {
				t.Errorf("%s: number %d is task %d: %+v", name, i, s.offset(), s.verdict)
			}
		}
	}
}
