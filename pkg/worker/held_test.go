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
		s := &slot{eng: e, part: p, ended: time.Now(), state: finished, result: Result{Outcome: task.Failed, Class: task.ClassInternal, Message: "KeyError: 'total'"}}
		s.attempt.Record = &kgo.Record{Topic: "tasks", Offset: int64(i)}
		s.attempt.started = s.ended
		e.finished = append(e.finished, s)
	}
	for i := range telling {
		e.outage.observe(time.Now(), uint64(i), failureOf(e.finished[0].result), false)
	}
	if tx := e.prepare(groupCommit); tx != nil || len(e.held) != n || len(e.finished) != 0 {
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
	for name, happens := range map[string]func(e *Engine) (settled int){
		"others succeed": func(e *Engine) int {
			e.outage.observe(time.Now(), 99, failure{}, false)
			return 5
		},
		"another failure": func(e *Engine) int {
			e.outage.observe(time.Now(), 99, failure{kind: 1, class: task.ClassNetwork}, false)
			return 5
		},
		"the time of some is over": func(e *Engine) int {
			for _, s := range e.held[:2] {
				s.ended = s.ended.Add(-patience)
			}
			return 2
		},
		"it is checked": func(e *Engine) int {
			e.outage.stage = checking
			return 0
		},
	} {
		e := holding(t, 5)
		want := happens(e)
		batch, _, _ := e.takeFinished(groupCommit)
		if len(batch) != want || len(e.held) != 5-want || e.outage.held != len(e.held) {
			t.Errorf("%s: %d settled, %d wait, want %d settled", name, len(batch), len(e.held), want)
		}
		for i, s := range batch {
			if s.offset() != int64(i) || s.verdict.Settled != task.SettledDLQ {
				t.Errorf("%s: number %d is task %d: %+v", name, i, s.offset(), s.verdict)
			}
		}
	}
}
