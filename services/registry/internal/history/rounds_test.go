package history

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// opens tells that a round of task t/0/<task> of agent t/n is opened, as the projection of reports does.
func (b *bench) opens(task, round int) {
	b.Helper()
	b.openAll(status.Round{Task: fmt.Sprintf("t/0/%d/UUID", task), Round: round})
}

func (b *bench) openAll(rounds ...status.Round) {
	b.Helper()
	tx, err := b.db.BeginTxx(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	err = OpenRounds(b.Context(), tx, []status.Rounds{{Topic: "t", AgentName: "n", Tasks: rounds, Timestamp: status.Seconds(time.Now())}})
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		b.Fatal(err)
	}
}

// stands checks where a task stands, wherever one looks, and how many attempts of it are known.
func (b *bench) stands(id int, want Status, redrives, attempts int) {
	b.Helper()
	s := &Store{b.db}
	rows, err := s.Task(b.Context(), "t", "n", 0, int64(id))
	if err != nil || len(rows) == 0 {
		b.Fatalf("task %d: %+v, %v", id, rows, err)
	}
	last := rows[len(rows)-1]
	settled := slices.DeleteFunc(slices.Clone(rows), func(a Attempt) bool { return a.Opened() })
	if last.Status() != want || last.Redrives != redrives || len(settled) != attempts || slices.ContainsFunc(rows[:len(rows)-1], func(a Attempt) bool { return a.Opened() }) {
		b.Errorf("task %d is %s in round %d after %d attempts, want %s in %d after %d", id, last.Status(), last.Redrives, len(settled), want, redrives, attempts)
	}
	for name, f := range map[string]Filter{"all": {Limit: 100}, "its origin": {Origin: &task.Origin{Topic: "t", Offset: int64(id)}, Limit: 100}, "its status": {Status: want, Limit: 100}} {
		list, err := s.Tasks(b.Context(), f)
		list = slices.DeleteFunc(list, func(a Attempt) bool { return a.Offset != int64(id) })
		if err != nil || len(list) != 1 || list[0].Status() != want || list[0].Redrives != redrives {
			b.Errorf("listed by %s: %+v, %v", name, list, err)
		}
	}
	for _, other := range []Status{DeadLettered, Cancelled, Queued} {
		list, err := s.Tasks(b.Context(), Filter{Status: other, Limit: 100})
		if err != nil || other != want && slices.ContainsFunc(list, func(a Attempt) bool { return a.Offset == int64(id) }) {
			b.Errorf("task %d is listed as %s, %v", id, other, err)
		}
	}
	if last.EventID == "" {
		return // it was opened before anything of it was known
	}
	if found, err := s.ByEvent(b.Context(), "e\\\t\n\x00\xff"); err != nil || len(found) != 1 || found[0].Status() != want {
		b.Errorf("by its event: %+v, %v", found, err)
	}
}

// A round that is opened and has settled nothing is the task's latest, and the task counts as open; its first attempt takes its
// place.
func TestAFurtherRoundIsSeenFromItsOpeningOn(t *testing.T) {
	b := newBench(t)
	b.settle(7, 1, "failed", "retry", 0)
	b.settle(7, 2, "failed", "dlq", 0)
	b.project(b.projection())
	for range 2 { // to hear of it twice is the same
		b.opens(7, 1)
		b.stands(7, Queued, 1, 2)
		if c := b.counters(); c.Received != 1 || c.DeadLettered != 0 || c.Between() != 1 || c.Retried != 1 {
			t.Errorf("while it is open: %+v", c)
		}
	}
	b.settle(7, 1, "failed", "retry", 1)
	b.project(b.projection())
	b.stands(7, Retrying, 1, 3)
	b.settle(7, 2, "cancelled", "dropped", 1)
	b.project(b.projection())
	b.stands(7, Cancelled, 1, 4)
	if c := b.counters(); c.Received != 1 || c.DeadLettered != 0 || c.Cancelled != 1 || c.Between() != 0 || c.Retried != 2 {
		t.Errorf("after its end: %+v", c)
	}
	b.opens(7, 2)
	b.stands(7, Queued, 2, 4)
	b.settle(7, 1, "completed", "done", 2)
	b.project(b.projection())
	b.stands(7, Completed, 2, 5)
	if c := b.counters(); c.Received != 1 || c.Cancelled != 0 || c.Completed != 1 || c.Between() != 0 {
		t.Errorf("after the last: %+v", c)
	}
}

// Reports and outcomes come on two topics, so in any order: in the end all is the same.
func TestARoundIsHeardOfInAnyOrder(t *testing.T) {
	first := func(b *bench) { b.settle(7, 1, "failed", "dlq", 0); b.project(b.projection()) }
	again := func(b *bench) { b.settle(7, 1, "failed", "retry", 1); b.project(b.projection()) }
	ended := func(b *bench) { b.settle(7, 2, "completed", "done", 1); b.project(b.projection()) }
	opened := func(b *bench) { b.opens(7, 1) }
	for name, c := range map[string]struct {
		steps []func(*bench)
		until Status // before the last step
		round int
	}{
		"as it happens":                     {[]func(*bench){first, opened, again, ended}, Retrying, 1},
		"before the round before has ended": {[]func(*bench){opened, first, again, ended}, Retrying, 1},
		"after its first attempt":           {[]func(*bench){first, again, opened, ended}, Retrying, 1},
		"after its end":                     {[]func(*bench){first, again, ended, opened}, Completed, 1},
		"never":                             {[]func(*bench){first, again, ended}, Retrying, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for i, step := range c.steps {
				if i == len(c.steps)-1 {
					b.stands(7, c.until, c.round, map[Status]int{Retrying: 2, Completed: 3}[c.until])
				}
				step(b)
				if name == "before the round before has ended" && i == 1 {
					b.stands(7, Queued, 1, 1)
				}
			}
			b.stands(7, Completed, 1, 3)
			if got := b.counters(); got.Received != 1 || got.Completed != 1 || got.DeadLettered != 0 || got.Retried != 1 || got.Between() != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Counters that were cleared know nothing of a task that was finished before: opened again, it is none of those finished.
func TestARoundOfATaskFromBeforeTheCountersWereCleared(t *testing.T) {
	for _, openedFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("opened first: %t", openedFirst), func(t *testing.T) {
			b := newBench(t)
			s := &Store{b.db}
			b.settle(7, 1, "failed", "dlq", 0)
			b.settle(8, 1, "failed", "dlq", 0)
			b.project(b.projection())
			if openedFirst {
				b.opens(7, 1)
			}
			if _, err := s.ClearMetrics(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.opens(7, 1)
			finished := func() (n int64) {
				if err := b.db.GetContext(t.Context(), &n, `SELECT finished FROM dispatched_before WHERE topic = 't' AND name = 'n'`); err != nil {
					t.Fatal(err)
				}
				return n
			}
			if n := finished(); n != 1 {
				t.Errorf("%d were finished before, while one of two is open", n)
			}
			b.settle(7, 1, "completed", "done", 1)
			b.project(b.projection())
			if c := b.counters(); finished() != 1 || c.Received != 1 || c.Completed != 1 || c.Finished() != 1 {
				t.Errorf("%d before, %+v", finished(), c)
			}
		})
	}
}

// Reports of others stop nothing, and of several rounds of one task the latest counts.
func TestReportsOfManyRoundsAreTakenTogether(t *testing.T) {
	b := newBench(t)
	const n = 1200
	rounds := []status.Round{{Task: "none", Round: 1}, {Task: "t/0/7/UUID", Round: 0}, {Task: "t/0/7/UUID", Round: -1}}
	for i := range n {
		rounds = append(rounds, status.Round{Task: fmt.Sprintf("t/0/%d/UUID", i), Round: 1})
	}
	b.openAll(append(rounds, status.Round{Task: "t/0/7/UUID", Round: 3})...) // nothing else is known of the agent
	s := &Store{b.db}
	list, err := s.Tasks(t.Context(), Filter{Status: Queued, Limit: 2 * n})
	if err != nil || len(list) != n {
		t.Errorf("%d tasks, %v", len(list), err)
	}
	if got, err := s.Task(t.Context(), "t", "n", 0, 7); err != nil || len(got) != 1 || got[0].Redrives != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}
