package history

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
)

// packTogether stores packs of attempts with ids as Write does, numbered from id on.
func packTogether(t *testing.T, db *sqlx.DB, id int64, events ...string) {
	t.Helper()
	b := &builder{source: 1, partition: 0}
	for i, e := range events {
		b.add(&attempt{offset: id + int64(i), number: 1, status: completed, eventID: []byte(e)})
	}
	tx, err := db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := storePacks(t.Context(), tx, []*builder{b}, id); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestAnEventIsFoundInPacksThatCrossPages(t *testing.T) {
	b := newBench(t)
	if _, err := b.db.Exec(`INSERT INTO sources (topic, name, topic_id) VALUES ('t', 'n', 'u')`); err != nil {
		t.Fatal(err)
	}
	name := func(i int64) string { return fmt.Sprintf("event-%d", i) }
	var many []string
	for i := range int64(2600) { // numbers 700 to 3299: four pages, in packs of one and of the rest
		many = append(many, name(700+i))
	}
	packTogether(t, b.db, 700, many[:1]...)
	packTogether(t, b.db, 701, many[1:]...)
	packTogether(t, b.db, 3300, "event-700", "é\\'", "")
	s := &Store{b.db}
	for id, want := range map[string][]int64{"event-700": {3300, 700}, "event-701": {701}, "event-999": {999}, "event-1000": {1000}, "event-3299": {3299}, "é\\'": {3301},
		"event-3300": nil, "nobody": nil} {
		found, err := s.ByEvent(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, a := range found {
			got = append(got, a.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is found at %v, want %v", id, got, want)
		}
	}
}

// What is kept of an id ends in the middle of a character.
func TestAnEventWithALongIDIsFound(t *testing.T) {
	b := newBench(t)
	if _, err := b.db.Exec(`INSERT INTO sources (topic, name, topic_id) VALUES ('t', 'n', 'u')`); err != nil {
		t.Fatal(err)
	}
	id := "x" + strings.Repeat("é", 200)
	packTogether(t, b.db, 700, "other", id)
	var text lines
	text.attempt(702, 1, &attempt{offset: 2, number: 1, status: deadLettered, eventID: []byte(id)})
	if err := NewProjector(b.db, slog.New(slog.DiscardHandler)).makeTables(t.Context(), 702, 702); err != nil {
		t.Fatal(err)
	}
	conn, err := b.db.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	tx, err := conn.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(copyIn(t.Context(), conn, text), tx.Commit()); err != nil {
		t.Fatal(err)
	}
	found, err := (&Store{b.db}).ByEvent(t.Context(), id)
	if err != nil || len(found) != 2 || found[0].ID != 702 || found[1].ID != 701 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestAFilterSeldomErrs(t *testing.T) {
	f := make(filter, filterBits/8)
	for i := range perPage {
		f.add(eventHash(fmt.Appendf(nil, "in-%d", i)))
	}
	has := func(id string) bool {
		for _, at := range places(eventHash([]byte(id))) {
			if f[at/8]&(1<<(at%8)) == 0 {
				return false
			}
		}
		return true
	}
	wrong := 0
	for i := range 10_000 {
		if i < perPage && !has(fmt.Sprintf("in-%d", i)) {
			t.Fatalf("in-%d is lost", i)
		}
		if has(fmt.Sprintf("out-%d", i)) {
			wrong++
		}
	}
	if wrong > 60 { // 31 are expected
		t.Errorf("%d of 10000 are held for there", wrong)
	}
}
