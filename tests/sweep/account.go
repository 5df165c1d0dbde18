package sweep

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/pkg/task"
)

// An Account holds what is known of every task, by its id.
type Account struct {
	tasks map[string]*entry
	// failures are told once each, up to a limit: a broken run would drown its reader.
	failures map[string][]string
	stops    []span
}

// span is a time in which some service was stopped.
type span struct{ from, to time.Time }

// entry is one task.
type entry struct {
	key      string
	poison   bool
	fails    int
	finals   int
	settled  task.Settled
	seen     time.Time // of the first final outcome
	attempts map[int]int
	runs     []run
}

// run is one execution, from the agent's log.
type run struct {
	attempt    int
	begun      time.Time
	ended      time.Time // zero: its process died
	processEnd time.Time // the last sign of life of its process
}

// NewAccount makes an empty account.
func NewAccount() *Account {
	return &Account{tasks: map[string]*entry{}, failures: map[string][]string{}}
}

func (a *Account) entry(id string) *entry {
	e := a.tasks[id]
	if e == nil {
		e = &entry{attempts: map[int]int{}}
		a.tasks[id] = e
	}
	return e
}

// Published enters an event as it stands on the user's topic.
func (a *Account) Published(id, key string, c Content) {
	e := a.entry(id)
	e.key, e.poison, e.fails = key, c.Poison, c.Fails
}

// Stopped enters a time in which a service was stopped. What its agents ran on meanwhile may overlap with what its
// successor runs: nobody can end the work of a host that doesn't answer.
func (a *Account) Stopped(from, to time.Time) { a.stops = append(a.stops, span{from, to}) }

// Outcome enters a record of the outcomes topic.
func (a *Account) Outcome(o harness.Outcome) {
	e := a.entry(o.Origin)
	e.attempts[o.Attempt]++
	if !o.Final {
		return
	}
	e.finals++
	if e.finals == 1 {
		e.settled, e.seen = o.Settled, o.Seen
	}
}

// Log enters one agent process's log. Task ids in it are written topic:partition:offset. A last line that a kill cut
// short counts as not written.
func (a *Account) Log(r io.Reader) error {
	open := map[string]*run{}
	type begun struct {
		id string
		r  *run
	}
	var all []begun
	var last time.Time
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 4 {
			continue
		}
		attempt, err1 := strconv.Atoi(f[2])
		nanos, err2 := strconv.ParseInt(f[3], 10, 64)
		if err1 != nil || err2 != nil {
			return fmt.Errorf("read agent's log: %q", lines.Text())
		}
		last = time.Unix(0, nanos)
		key := f[1] + " " + f[2]
		if f[0] == "S" {
			r := &run{attempt: attempt, begun: last}
			open[key] = r
			all = append(all, begun{taskID(f[1]), r})
		} else if r := open[key]; r != nil {
			r.ended = last
		}
	}
	for _, b := range all {
		b.r.processEnd = last
		e := a.entry(b.id)
		e.runs = append(e.runs, *b.r)
	}
	return lines.Err()
}

// taskID turns an event's id, topic:partition:offset, into a task's.
func taskID(event string) string {
	parts := strings.Split(event, ":")
	if len(parts) < 3 {
		return event
	}
	n := len(parts)
	return strings.Join(parts[:n-2], ":") + "/" + parts[n-2] + "/" + parts[n-1]
}

// eventID turns a task's id into an event's.
func eventID(task string) string {
	return strings.ReplaceAll(task, "/", ":")
}

// A Verdict is what an Account comes to.
type Verdict struct {
	Tasks, Runs       int
	Repeats           int // runs beyond the first of an attempt's number or of a task that didn't fail: what kills cost
	DeadLettered      int
	Failures          int
	Details           []string
	Lost, Twice       int // finished never, finished more than once
	SettledTwice      int // attempts
	AfterOutcome      int // runs begun after the final outcome was visible
	Overlaps          int // of one key
	Unexpected        int // another end than the event asked for
	Unknown           int // outcomes of tasks that nobody published
	UnstartedOutcomes int // completed without a run in any log
}

// Judge closes the account.
func (a *Account) Judge() Verdict {
	var v Verdict
	byKey := map[string][]run{}
	for id, e := range a.tasks {
		v.Tasks++
		v.Runs += len(e.runs)
		v.Repeats += max(0, len(e.runs)-1-e.fails)
		if e.settled == task.SettledDLQ {
			v.DeadLettered++
		}
		a.judgeTask(&v, id, e)
		byKey[e.key] = append(byKey[e.key], e.runs...)
	}
	for key, runs := range byKey {
		if n := overlaps(a.unstopped(runs)); n > 0 {
			v.Overlaps += n
			a.fail("overlapping runs of one key", "%s: %d", key, n)
		}
	}
	v.Failures = v.Lost + v.Twice + v.SettledTwice + v.AfterOutcome + v.Overlaps + v.Unexpected + v.Unknown + v.UnstartedOutcomes
	for _, what := range slices.Sorted(maps.Keys(a.failures)) {
		v.Details = append(v.Details, what+": "+strings.Join(a.failures[what], "; "))
	}
	return v
}

func (a *Account) judgeTask(v *Verdict, id string, e *entry) {
	if e.key == "" {
		v.Unknown++
		a.fail("not published", "%s", id)
		return
	}
	switch {
	case e.finals == 0:
		v.Lost++
		a.fail("lost", "%s (runs %d, outcomes of attempts %v)", id, len(e.runs), e.attempts)
		return
	case e.finals > 1:
		v.Twice++
		a.fail("finished twice", "%s", id)
	}
	for n, times := range e.attempts {
		if times > 1 {
			v.SettledTwice++
			a.fail("attempt settled twice", "%s attempt %d", id, n)
		}
	}
	for _, r := range e.runs {
		if r.begun.After(e.seen) {
			v.AfterOutcome++
			a.fail("begun after its outcome was visible", "%s attempt %d, %s later", id, r.attempt, r.begun.Sub(e.seen))
		}
	}
	if want := expected(e); e.settled != want {
		v.Unexpected++
		a.fail("unexpected end", "%s: %s, not %s", id, e.settled, want)
	}
	if len(e.runs) == 0 {
		v.UnstartedOutcomes++
		a.fail("finished without a run", "%s", id)
	}
}

func expected(e *entry) task.Settled {
	if e.poison {
		return task.SettledDLQ
	}
	return task.SettledDone
}

// overlaps counts the runs that began before one that began earlier had ended. A run whose process died ended at the
// latest when the next run of its key may begin, so only its process's last sign of life is held against the next.
func overlaps(runs []run) int {
	slices.SortFunc(runs, func(x, y run) int { return cmp.Compare(x.begun.UnixNano(), y.begun.UnixNano()) })
	n := 0
	var busy time.Time
	for _, r := range runs {
		if r.begun.Before(busy) {
			n++
		}
		if end := r.end(); end.After(busy) {
			busy = end
		}
	}
	return n
}

// unstopped leaves out the runs that a stop fell into.
func (a *Account) unstopped(runs []run) []run {
	if len(a.stops) == 0 {
		return runs
	}
	return slices.DeleteFunc(slices.Clone(runs), func(r run) bool {
		return slices.ContainsFunc(a.stops, func(s span) bool { return r.begun.Before(s.to) && r.end().After(s.from) })
	})
}

// end is when a run ended, or the last that is known of it.
func (r run) end() time.Time {
	if r.ended.IsZero() {
		return r.processEnd
	}
	return r.ended
}

func (a *Account) fail(what, format string, args ...any) {
	const most = 5
	switch told := a.failures[what]; {
	case len(told) < most:
		a.failures[what] = append(told, fmt.Sprintf(format, args...))
	case len(told) == most:
		a.failures[what] = append(told, "…")
	}
}
