package agents

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jmoiron/sqlx"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/spec"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

func store(t *testing.T) (*Store, *sqlx.DB) {
	t.Helper()
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	return NewStore(db, Rules{Tiers: []time.Duration{time.Second, 5 * time.Second, 30 * time.Second}}, func() {}), db
}

func apply(t *testing.T, s *Store, o ApplyOptions, entries ...string) ([]Change, error) {
	t.Helper()
	raw := make([]json.RawMessage, len(entries))
	for i, e := range entries {
		raw[i] = json.RawMessage(e)
	}
	return s.Apply(t.Context(), raw, o)
}

func count(t *testing.T, db *sqlx.DB, query string) (n int) {
	t.Helper()
	if err := db.GetContext(t.Context(), &n, query); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAChangeItsHistoryAndItsOutboxRowAreOneTransaction(t *testing.T) {
	s, db := store(t)
	if _, err := apply(t, s, ApplyOptions{Actor: Actor{Name: "me", Reason: "why"}}, entry); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(t, s, ApplyOptions{}, entry); err != nil { // unchanged
		t.Fatal(err)
	}
	if n := count(t, db, `SELECT count(*) FROM outbox`); n != 1 {
		t.Errorf("%d outbox rows, want 1", n)
	}
	moves, err := s.History(t.Context(), "t", "n", 0, 10)
	if err != nil || len(moves) != 1 || moves[0].Actor != "me" || moves[0].Reason != "why" || moves[0].Phase != spec.Active {
		t.Errorf("%+v, %v", moves, err)
	}
	row, err := s.Get(t.Context(), "t", "n")
	if err != nil || row.Generation != 1 || row.InitializedAt == nil || row.Config.Concurrency != 1 {
		t.Errorf("%+v, %v", row, err)
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	s, db := store(t)
	_, err := apply(t, s, ApplyOptions{List: true}, entry, `{"topic":"t","name":"m","comand":"x"}`)
	var invalid *Invalid
	if !errors.As(err, &invalid) || invalid.Faults[0].Field != "agents[1].callback" {
		t.Fatalf("%v", err)
	}
	if _, err := apply(t, s, ApplyOptions{}, entry, `{"topic":"a_b","name":"x","command":"x"}`, `{"topic":"a--b","name":"x","command":"x"}`); err == nil {
		t.Error("a collision within a file was not found")
	}
	if _, err := apply(t, s, ApplyOptions{List: true}, entry, entry); !errors.As(err, &invalid) {
		t.Errorf("the same agent twice: %v", err)
	}
	if n := count(t, db, `SELECT count(*) FROM agents`) + count(t, db, `SELECT count(*) FROM outbox`); n != 0 {
		t.Errorf("%d rows are left of refused files", n)
	}
}

func TestADryRunSaysAllAndDoesNothing(t *testing.T) {
	s, db := store(t)
	if _, err := apply(t, s, ApplyOptions{}, entry, `{"topic":"t","name":"old","command":"x"}`); err != nil {
		t.Fatal(err)
	}
	before := count(t, db, `SELECT count(*) FROM outbox`)
	changes, err := apply(t, s, ApplyOptions{DryRun: true, Prune: true}, `{"topic":"t","name":"n","command":"y"}`, `{"topic":"t","name":"new","command":"x"}`)
	if err != nil || len(changes) != 3 || changes[0].Action != Updated || changes[1].Action != Created || changes[2].Action != Deleted || changes[2].After.Name != "old" {
		t.Fatalf("%+v, %v", changes, err)
	}
	if n := count(t, db, `SELECT count(*) FROM outbox`); n != before {
		t.Errorf("%d outbox rows, want %d", n, before)
	}
}

func TestPruneDeletesWhatIsNotListed(t *testing.T) {
	s, _ := store(t)
	if _, err := apply(t, s, ApplyOptions{}, entry, `{"topic":"u","name":"old","command":"x"}`, `{"topic":"u","name":"function","runtime":"sdk"}`); err != nil {
		t.Fatal(err)
	}
	if changes, err := apply(t, s, ApplyOptions{Prune: true, Keep: []string{"u/old", "u/never-there"}}, entry); err != nil || len(changes) != 1 {
		t.Fatalf("what is kept isn't pruned: %+v, %v", changes, err)
	}
	if _, err := s.Get(t.Context(), "u", "old"); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(t, s, ApplyOptions{Prune: true}, entry); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "u", "old"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	rows, err := s.List(t.Context(), Filter{Limit: 10})
	if err != nil || len(rows) != 2 {
		t.Errorf("%d agents, not the listed one and the one that a Go program registered, %v", len(rows), err)
	}
	if rows, err = s.List(t.Context(), Filter{Limit: 10, Deleted: true}); err != nil || len(rows) != 3 {
		t.Errorf("%d agents with deleted ones, %v", len(rows), err)
	}
}

func TestDeletedIsGoneAndMayComeBack(t *testing.T) {
	s, _ := store(t)
	if _, err := apply(t, s, ApplyOptions{}, entry); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(t.Context(), "t", "n", DeleteOptions{Group: true}, 0, Actor{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(t.Context(), "t", "n", DeleteOptions{}, 0, Actor{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("the second deletion: %v", err)
	}
	if _, _, err := s.Resume(t.Context(), "t", "n", 0, Actor{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a resume of a deleted agent: %v", err)
	}
	changes, err := apply(t, s, ApplyOptions{}, entry)
	if a := changes[0].After; err != nil || changes[0].Action != Created || a.Generation != 3 || !a.Cleaning() || a.Life != 2 || a.TerminatedAt != nil {
		t.Errorf("what the deletion asked for is still to be done before the new life begins: %+v, %v", a, err)
	}
	if err := s.Cleaned(t.Context(), "t", "n", 2, map[string][]int64{"1s": {5, 0}}); err != nil {
		t.Fatal(err)
	}
	row, err := s.Get(t.Context(), "t", "n")
	if err != nil || row.Cleaning() || row.CleanUp || row.Generation != 3 || row.Revision != 1 || row.Floor("1s", 0) != 5 || row.Floor("5s", 0) != 0 || row.Floor("1s", 2) != 0 {
		t.Errorf("%+v, %v", row.Agent, err)
	}
}

func TestWhatADeletionAskedForIsDoneOnceAndByItsGeneration(t *testing.T) {
	for name, c := range map[string]struct {
		before spec.Agent
		since  int64
		done   bool
		after  spec.Agent
	}{
		"of a deleted agent it stays known": {spec.Agent{Phase: spec.Terminated, CleanUp: true, CleanSince: 4}, 4, true, spec.Agent{Phase: spec.Terminated, CleanUp: true, CleanSince: 4, Cleaned: true}},
		"of one that came back it is over":  {spec.Agent{Phase: spec.Active, CleanUp: true, DeleteDLQ: true, CleanSince: 4}, 4, true, spec.Agent{Phase: spec.Active, CleanSince: 4}},
		"an earlier deletion's doesn't count": {spec.Agent{Phase: spec.Terminated, CleanUp: true, CleanSince: 6}, 4, false,
			spec.Agent{Phase: spec.Terminated, CleanUp: true, CleanSince: 6}},
		"it isn't done twice": {spec.Agent{Phase: spec.Terminated, CleanUp: true, CleanSince: 4, Cleaned: true}, 4, false,
			spec.Agent{Phase: spec.Terminated, CleanUp: true, CleanSince: 4, Cleaned: true}},
	} {
		a := c.before
		if done := cleaned(&a, c.since, nil); done != c.done || !reflect.DeepEqual(a, c.after) {
			t.Errorf("%s: %v, %+v", name, done, a)
		}
	}
}

func TestADeletionTakesOverWhatAnEarlierOneAskedFor(t *testing.T) {
	pending := &spec.Agent{Phase: spec.Active, Generation: 6, CleanUp: true, CleanSince: 5, Life: 5}
	simple := terminate(pending, DeleteOptions{}, time.Unix(1, 0))
	if !simple.CleanUp || simple.CleanSince != 5 || simple.Life != 5 || !simple.Cleaning() {
		t.Errorf("%+v", simple)
	}
	kept := terminate(&spec.Agent{Phase: spec.Active, Generation: 6, Kept: spec.Kept{Topic: "u"}}, DeleteOptions{}, time.Unix(1, 0))
	if kept.Cleaning() || kept.Kept.Topic != "u" || kept.Life != 0 {
		t.Errorf("a simple deletion keeps the positions: %+v", kept)
	}
	again, err := create(kept, Wanted{Spec: &spec.Agent{Topic: "t", Name: "n"}}, func() string { return "id" }, time.Unix(2, 0))
	if err != nil || again.After.Kept.Topic != "u" || again.After.Cleaning() {
		t.Errorf("%+v, %v", again.After, err)
	}
	whole := terminate(kept, DeleteOptions{Group: true, DLQ: true}, time.Unix(1, 0))
	if whole.Kept != (spec.Kept{}) || whole.Life != whole.Generation || whole.CleanSince != whole.Generation {
		t.Errorf("%+v", whole)
	}
}

func TestAChangeForAnOlderGenerationIsRefused(t *testing.T) {
	s, _ := store(t)
	if _, err := apply(t, s, ApplyOptions{}, entry); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Unsubscribe(t.Context(), "t", "n", false, 2, Actor{}); !errors.Is(err, ErrPrecondition) {
		t.Errorf("%v", err)
	}
	if _, changed, err := s.Unsubscribe(t.Context(), "t", "n", false, 1, Actor{}); err != nil || !changed {
		t.Errorf("%v %v", changed, err)
	}
	if _, err := apply(t, s, ApplyOptions{Match: 1}, entry); !errors.Is(err, ErrPrecondition) {
		t.Errorf("%v", err)
	}
}

func TestTwoRegistrationsAtOnceMakeOneAgent(t *testing.T) {
	s, db := store(t)
	const n = 8
	actions := make(chan Action, n)
	for range n {
		go func() {
			c, err := s.Apply(t.Context(), []json.RawMessage{json.RawMessage(entry)}, ApplyOptions{})
			if err != nil {
				t.Error(err)
				actions <- ""
				return
			}
			actions <- c[0].Action
		}()
	}
	created := 0
	for range n {
		if <-actions == Created {
			created++
		}
	}
	if outbox := count(t, db, `SELECT count(*) FROM outbox`); created != 1 || outbox != 1 {
		t.Errorf("created %d times, %d outbox rows", created, outbox)
	}
}
