package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/status"
)

// reports is a store on a schema of its own.
func reports(t *testing.T) Store {
	t.Helper()
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	return Store{DB: db}
}

// hear stores records as the projection does: all in one batch, or each in one of its own.
func hear(t *testing.T, s Store, apart bool, all ...status.Alert) {
	t.Helper()
	var records []*kgo.Record
	for _, a := range all {
		a.Event = status.EventAlert
		value, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, &kgo.Record{Value: value})
	}
	batches := [][]*kgo.Record{records}
	if apart {
		batches = slices.Collect(slices.Chunk(records, 1))
	}
	for _, b := range batches {
		tx, err := s.DB.BeginTxx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Write(t.Context(), nil, tx, b); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, s Store) []Alert {
	t.Helper()
	all, err := s.Alerts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func outageOn(node string, resolved bool) status.Alert {
	return status.Alert{Topic: "orders", AgentName: "bill", Kind: status.KindOutage, Subject: "orders/bill", Service: "supervisor", Node: node, Severity: "critical", Message: "paused on " + node,
		Since: status.Seconds(time.Now()), Resolved: resolved}
}

// Each of two workers has its own view of an outage: that one of them is out of it takes back nothing of the other.
func TestAnAlertStandsUntilTheLastOfThoseWhoToldItTakesItBack(t *testing.T) {
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprintf("apart=%t", apart), func(t *testing.T) {
			s := reports(t)
			hear(t, s, apart, outageOn("s0", false), outageOn("s1", false), outageOn("s1", true))
			all := open(t, s)
			if len(all) != 1 || !slices.Equal(all[0].Nodes, []string{"supervisor/s0"}) || all[0].Message != "paused on s0" {
				t.Fatalf("%+v", all)
			}
			hear(t, s, apart, outageOn("s1", false))
			if all = open(t, s); len(all) != 1 || len(all[0].Nodes) != 2 {
				t.Errorf("told by two: %+v", all)
			}
			hear(t, s, apart, outageOn("s1", true), outageOn("s0", true))
			if all = open(t, s); len(all) != 0 {
				t.Errorf("taken back by both: %+v", all)
			}
		})
	}
}

// The worst of those who tell of the same counts, and what its first said of when it began.
func TestAnAlertOfSeveralIsTheWorstOfThem(t *testing.T) {
	s := reports(t)
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	mild := outageOn("s0", false)
	mild.Severity, mild.Since = "warning", status.Seconds(began)
	hear(t, s, false, mild, outageOn("s1", false))
	mild.Since = status.Seconds(time.Now())
	hear(t, s, false, mild) // told once more
	all := open(t, s)
	if len(all) != 1 || all[0].Severity != "critical" || all[0].Message != "paused on s1" || !all[0].Since.Equal(began) {
		t.Errorf("%+v", all)
	}
}

// Of an alert that is told no more its process is gone, whatever kind it is; an agent in error waits for a person all the same,
// and what the registry tells itself is its own to take back.
func TestAnAlertLapsesWithWhoeverToldIt(t *testing.T) {
	s := reports(t)
	agent := func(name, phase string) {
		if _, err := s.DB.ExecContext(t.Context(), `INSERT INTO agents (topic, name, id, phase, generation, record, updated_at) VALUES ('t', $1, $1, $2, 1, '{}', now())`, name, phase); err != nil {
			t.Fatal(err)
		}
	}
	agent("failed", "error")
	agent("active", "active")
	agent("deleted", "terminated")
	for _, c := range []struct {
		name, kind string
		told       time.Duration
		stands     bool
	}{
		{"active", status.KindOutage, 2*time.Minute + time.Second, false},
		{"active", status.KindOutage, 100 * time.Second, true},
		{"active", status.KindQueueHeld, 3 * time.Minute, false},
		{"active", status.KindQueueHeld, time.Minute, true},
		{"active", status.KindDestinationUnwritable, 3 * time.Minute, false},
		{"active", status.KindDenied, 3 * time.Minute, false},
		{"active", "webhooks_failing", 3 * time.Minute, false},
		{"active", "of a later version", 3 * time.Minute, false},
		{"active", status.KindCircuitOpen, 3 * time.Minute, false},
		{"failed", status.KindCircuitOpen, 30 * 24 * time.Hour, true},
		{"failed", status.KindAgentError, 30 * 24 * time.Hour, true},
		{"failed", status.KindQueueHeld, 3 * time.Minute, false},
		{"active", status.KindRecordsLost, 23 * time.Hour, true},
		{"active", status.KindRecordsLost, 25 * time.Hour, false},
		{"active", status.KindRetentionNear, 30 * 24 * time.Hour, true},
		{"deleted", status.KindQueueHeld, time.Second, false},
	} {
		t.Run(fmt.Sprintf("%s of %s agent, told %s ago", c.kind, c.name, c.told), func(t *testing.T) {
			if _, err := s.DB.ExecContext(t.Context(), `DELETE FROM alerts`); err != nil {
				t.Fatal(err)
			}
			a := status.Alert{Topic: "t", AgentName: c.name, Kind: c.kind, Subject: "t/" + c.name, Service: "supervisor", Node: "s0", Message: "m", Since: 1, Timestamp: 1}
			hear(t, s, false, a)
			backdate(t, s.DB, c.told)
			for _, when := range []string{"before", "after"} {
				if got := len(open(t, s)) == 1; got != c.stands {
					t.Errorf("%s tidying up: stands %t, want %t", when, got, c.stands)
				}
				if err := s.Prune(t.Context(), time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			if c.name == "deleted" || c.stands {
				return
			}
			if hear(t, s, false, a); len(open(t, s)) != 1 { // somebody meets it again
				t.Error("told anew it doesn't stand")
			}
		})
	}
}

func backdate(t *testing.T, db *sqlx.DB, by time.Duration) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), `UPDATE alerts SET updated_at = updated_at - $1 * interval '1 second'`, by.Seconds()); err != nil {
		t.Fatal(err)
	}
}

// A node whose clock is an hour off is heard all the same.
func TestAnAlertStandsWhateverTheClockOfItsNodeSays(t *testing.T) {
	s := reports(t)
	for node, off := range map[string]time.Duration{"early": -time.Hour, "late": time.Hour} {
		a := outageOn(node, false)
		a.Subject, a.Since, a.Timestamp = node, status.Seconds(time.Now().Add(off)), status.Seconds(time.Now().Add(off))
		hear(t, s, false, a)
	}
	if all := open(t, s); len(all) != 2 {
		t.Errorf("%+v", all)
	}
	backdate(t, s.DB, status.AlertLapse+time.Second)
	if all := open(t, s); len(all) != 0 {
		t.Errorf("told no more: %+v", all)
	}
}

// Alerts of before there were nodes in them are read.
func TestAnAlertWithoutItsNodeIsTakenBackByOneWithout(t *testing.T) {
	s := reports(t)
	old := status.Alert{Topic: "t", AgentName: "n", Kind: status.KindQueueHeld, Subject: "t/n", Message: "m", Since: 1, Timestamp: 1}
	hear(t, s, true, old)
	if all := open(t, s); len(all) != 1 || len(all[0].Nodes) != 0 {
		t.Errorf("%+v", all)
	}
	old.Resolved = true
	hear(t, s, true, old)
	if all := open(t, s); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}
