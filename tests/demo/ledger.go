package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

// taskKey names a task: one event for one agent.
type taskKey struct{ agent, origin string }

// history is what the outcomes topic said of a task.
type history struct {
	retries int
	finals  int
	settled task.Settled // of the last final
	seen    time.Time    // when the first final was read
}

// ledger folds the records of the outcomes topic. It isn't safe for concurrent use.
type ledger struct {
	tasks map[taskKey]*history
	// interrupted leaves out of the comparison how often tasks were retried.
	interrupted bool
}

func newLedger() *ledger { return &ledger{tasks: map[taskKey]*history{}} }

// outcome is a record of the outcomes topic, as far as the demo reads it.
type outcome struct {
	taskKey
	outcome task.Outcome
	settled task.Settled
	final   bool
	attempt int
	class   string
	message string
	summary string
}

// readOutcome takes a record apart.
func readOutcome(r *kgo.Record) (outcome, error) {
	o := outcome{taskKey: taskKey{origin: string(r.Key)}}
	for _, h := range r.Headers {
		switch v := string(h.Value); h.Key {
		case task.HeaderAgent:
			o.agent = v
		case task.HeaderOutcome:
			o.outcome = task.Outcome(v)
		case task.HeaderSettled:
			o.settled = task.Settled(v)
		case task.HeaderFinal:
			o.final = v == "true"
		case task.HeaderAttempt:
			o.attempt, _ = strconv.Atoi(v)
		case task.HeaderErrorClass:
			o.class = v
		case task.HeaderErrorMessage:
			o.message = v
		}
	}
	if o.agent == "" || o.settled == "" {
		return o, fmt.Errorf("record %d of partition %d is no outcome: it lacks %s or %s", r.Offset, r.Partition, task.HeaderAgent, task.HeaderSettled)
	}
	var result struct {
		Summary string `json:"summary"`
	}
	if json.Unmarshal(r.Value, &result) == nil {
		o.summary = result.Summary
	}
	return o, nil
}

func (l *ledger) add(o outcome, at time.Time) {
	h := l.tasks[o.taskKey]
	if h == nil {
		h = &history{}
		l.tasks[o.taskKey] = h
	}
	if o.settled == task.SettledRetry {
		h.retries++
	}
	if o.final {
		if h.finals == 0 {
			h.seen = at
		}
		h.finals++
		h.settled = o.settled
	}
}

// figures are the counters of one agent, under the names that the registry gives them.
type figures struct {
	Received     int `json:"received"`
	Completed    int `json:"completed"`
	Retried      int `json:"retried"`
	DeadLettered int `json:"dead_lettered"`
}

func (f *figures) add(retries int, settled task.Settled) {
	f.Received++
	f.Retried += retries
	switch settled {
	case task.SettledDone:
		f.Completed++
	case task.SettledDLQ:
		f.DeadLettered++
	}
}

// totals counts everything on the outcomes topic, agent by agent: what the registry must have counted too.
func (l *ledger) totals() map[string]figures {
	sum := map[string]figures{}
	for k, h := range l.tasks {
		f := sum[k.agent]
		f.add(h.retries, h.settled)
		sum[k.agent] = f
	}
	return sum
}

// published is a delivery that Kafka has accepted.
type published struct {
	delivery
	origin string
	at     time.Time
}

// finished counts the tasks of the published deliveries that have a final outcome.
func (l *ledger) finished(ps []published, as []agent) int {
	n := 0
	for _, p := range ps {
		for _, a := range as {
			if h := l.tasks[taskKey{a.ref(), p.origin}]; a.Topic == p.topic() && h != nil && h.finals > 0 {
				n++
			}
		}
	}
	return n
}

// row is an agent's line in the closing table.
type row struct {
	agent     agent
	want, got figures
	latencies []time.Duration // from publish to outcome, sorted
}

// settle compares what became of every task with what had to. Faults are sentences for people.
func (l *ledger) settle(ps []published, as []agent) (rows []row, faults []string) {
	for _, a := range as {
		r := row{agent: a}
		for _, p := range ps {
			if p.topic() != a.Topic {
				continue
			}
			want := a.fate(p.delivery)
			r.want.add(want.Retries, want.Settled)
			h := l.tasks[taskKey{a.ref(), p.origin}]
			if fault := l.compare(want, h); fault != "" {
				faults = append(faults, fmt.Sprintf("%s, task %s (delivery %s): %s", a.ref(), p.origin, p.ID, fault))
			}
			if h != nil && h.finals > 0 {
				r.got.add(h.retries, h.settled)
				r.latencies = append(r.latencies, h.seen.Sub(p.at))
			}
		}
		slices.Sort(r.latencies)
		rows = append(rows, r)
	}
	return rows, faults
}

// compare says what is wrong with a task's history, or "".
func (l *ledger) compare(want fate, h *history) string {
	switch {
	case h == nil:
		return "no outcome"
	case h.finals == 0:
		return fmt.Sprintf("not finished after %d retries", h.retries)
	case h.finals > 1:
		return fmt.Sprintf("finished %d times", h.finals)
	case h.settled != want.Settled:
		return fmt.Sprintf("settled as %s, expected %s", h.settled, want.Settled)
	case h.retries != want.Retries && !l.interrupted:
		return fmt.Sprintf("retried %d times, expected %d", h.retries, want.Retries)
	}
	return ""
}

// percentile is the smallest of the sorted values that p percent of them don't exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*p+99)/100-1]
}
