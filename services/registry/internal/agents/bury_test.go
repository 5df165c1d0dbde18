package agents

import (
	"slices"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

// What is written of an agent that is buried and comes back is in the outbox in this order, and the later life's generation goes
// on: else its former life's tombstone could hit it, or services would take its record for the older one.
func TestABuriedAgentComesBackAsALaterLife(t *testing.T) {
	s, db := store(t)
	if _, err := apply(t, s, ApplyOptions{}, entry); err != nil {
		t.Fatal(err)
	}
	bury := func(before time.Time, want ...string) {
		t.Helper()
		got, err := s.Bury(t.Context(), before)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	later := time.Now().Add(time.Hour)
	bury(later) // it is alive
	if _, err := s.Delete(t.Context(), "t", "n", DeleteOptions{}, 0, Actor{}); err != nil {
		t.Fatal(err)
	}
	bury(time.Now().Add(-time.Hour)) // it was deleted a moment ago
	bury(later, "t/n")
	bury(later) // once
	rows, err := s.List(t.Context(), Filter{Deleted: true, Limit: 10})
	if err != nil || len(rows) != 1 || rows[0].Phase != spec.Terminated {
		t.Errorf("its history goes with it: %v, %v", rows, err)
	}
	changes, err := apply(t, s, ApplyOptions{}, entry)
	if err != nil || changes[0].Action != Created || changes[0].After.Generation != 3 {
		t.Errorf("%+v, %v", changes, err)
	}
	var got []string
	if err := db.SelectContext(t.Context(), &got, `SELECT coalesce(value::jsonb->>'generation', 'tombstone') FROM outbox ORDER BY id`); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{"1", "2", "tombstone", "3"}) {
		t.Errorf("%v", got)
	}
	if n := count(t, db, `SELECT count(*) FROM agents WHERE buried`); n != 0 {
		t.Error("an agent that is alive counts as buried")
	}
}

// What the registry notes of a deleted agent's positions puts its record back on the control topic; so it is buried again.
func TestWhatIsNotedOfABuriedAgentIsBuriedToo(t *testing.T) {
	s, db := store(t)
	if _, err := apply(t, s, ApplyOptions{}, entry); err != nil {
		t.Fatal(err)
	}
	a, err := s.Delete(t.Context(), "t", "n", DeleteOptions{}, 0, Actor{})
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	for range 2 {
		if got, err := s.Bury(t.Context(), later); err != nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
		if err := s.Kept(t.Context(), a, spec.Kept{Topic: time.Now().String()}); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, db, `SELECT count(*) FROM outbox WHERE value IS NULL`); n != 2 {
		t.Errorf("%d tombstones", n)
	}
}
