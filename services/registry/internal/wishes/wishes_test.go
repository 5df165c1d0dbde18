package wishes

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/registry/internal/history"
)

func store(t *testing.T) *Store {
	t.Helper()
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	return &Store{DB: db}
}

func wish(id string) command.Command {
	return command.Command{ID: id, Verb: command.Cancel, Topic: "orders", Agent: "bill", Task: "orders/0/7", Actor: "ann", Reason: "no longer wanted"}
}

func due(t *testing.T, s *Store, now time.Time) (ids string) {
	t.Helper()
	all, err := s.Due(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		if w.Command != wish(w.Command.ID) {
			t.Errorf("%+v isn't as it was asked for", w)
		}
		ids += w.Command.ID
	}
	return ids
}

func TestAWishIsDueBeforeItsCommandExpiresUntilItIsCarriedOut(t *testing.T) {
	s, now := store(t), time.Now()
	for i, id := range []string{"a", "b", "c", "d"} {
		if err := s.Add(t.Context(), wish(id), now.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if got := due(t, s, now.Add(command.MaxLife-command.Renewal)); got != "" {
		t.Errorf("due before the command may be renewed: %s", got)
	}
	soon := now.Add(command.MaxLife - 10*time.Minute)
	if got := due(t, s, soon); got != "abcd" {
		t.Errorf("due %s", got)
	}
	if err := s.Issued(t.Context(), "b", soon.Add(command.MaxLife)); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []status.CommandResult{
		{ID: "a", State: status.CommandAccepted, Topic: "orders", AgentName: "bill"},
		{ID: "a", State: status.CommandDone, Topic: "orders", AgentName: "other"},
		{ID: "c", State: status.CommandDone, Topic: "orders", AgentName: "bill"},
	} {
		tx, err := s.DB.BeginTxx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := Report(t.Context(), tx, r); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if got := due(t, s, soon); got != "a" {
		t.Errorf("due %s", got)
	}
}

func TestThereIsRoomForSoManyWishesAndForThoseThatStand(t *testing.T) {
	s, now := store(t), time.Now()
	if _, err := s.DB.ExecContext(t.Context(), `INSERT INTO wishes (id, topic, name, command, asked_at, expires)
		SELECT 'n' || n, 't', 'a', '{}', now(), now() FROM generate_series(1, $1::int - 1) n`, Most); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), wish("last"), now); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), wish("more"), now); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	if err := s.Add(t.Context(), wish("last"), now); err != nil {
		t.Errorf("one that stands: %v", err)
	}
}

func TestAWishIsOverWhenNothingIsLeftToCarryOut(t *testing.T) {
	now := time.Now()
	attempt := func(round, n int, status history.Status) history.Attempt {
		a := history.Attempt{Redrives: round, Attempt: n}
		for a.StatusNumber = 0; a.Status() != status; a.StatusNumber++ {
			if a.StatusNumber > 100 {
				t.Fatalf("no number of the status %s", status)
			}
		}
		return a
	}
	for _, c := range []struct {
		verb           command.Verb
		round, attempt int
		age            time.Duration
		last           []history.Attempt
		over           bool
	}{
		{command.Cancel, 0, 0, time.Hour, nil, false},
		{command.Cancel, 0, 0, Longest + time.Hour, nil, true},
		{command.Cancel, 0, 0, 80 * 24 * time.Hour, []history.Attempt{attempt(0, 1, history.Retrying)}, false},
		{command.Cancel, 0, 0, time.Hour, []history.Attempt{attempt(0, 1, history.Retrying), attempt(0, 2, history.Completed)}, true},
		{command.Cancel, 0, 0, time.Hour, []history.Attempt{attempt(0, 1, history.DeadLettered)}, true},
		{command.Cancel, 1, 0, time.Hour, []history.Attempt{attempt(0, 1, history.DeadLettered)}, false}, // its next round has no outcome yet
		{command.Cancel, 0, 0, time.Hour, []history.Attempt{attempt(1, 1, history.Retrying)}, true},
		{command.Retry, 0, 3, time.Hour, []history.Attempt{attempt(0, 2, history.Retrying)}, false},
		{command.Retry, 0, 3, time.Hour, []history.Attempt{attempt(0, 3, history.Retrying)}, true},
		{command.Retry, 0, 3, time.Hour, []history.Attempt{attempt(0, 2, history.Cancelled)}, true},
		{command.Reopen, 0, 0, time.Hour, []history.Attempt{attempt(0, 2, history.Failed)}, false},
		{command.Reopen, 0, 0, time.Hour, []history.Attempt{attempt(1, 1, history.Retrying)}, true},
	} {
		w := Wish{Command: command.Command{Verb: c.verb, Round: c.round, Attempt: c.attempt}, AskedAt: now.Add(-c.age)}
		if got := Over(w, c.last, now); got != c.over {
			t.Errorf("%s of round %d, attempt %d, asked %s ago, %s: over %t", c.verb, c.round, c.attempt, c.age, fmt.Sprint(c.last), got)
		}
	}
}
