package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/status"
)

// An agent that is always slower than its topic's retention loses events for ever, and not the room in the database.
func TestTheLatestLossesOfAnAgentAreKept(t *testing.T) {
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `INSERT INTO agents (topic, name, id, phase, generation, record, updated_at) SELECT 't', n, n, 'active', 1, '{}', now() FROM unnest(ARRAY['slow', 'other']) n`); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `INSERT INTO agent_history (topic, name, at, action, phase, generation, actor) VALUES ('t', 'slow', '1970-01-02', 'create', 'active', 1, 'admin')`); err != nil {
		t.Fatal(err)
	}
	const more = 20
	for i := range mostLost + more {
		l := status.Lost{Topic: "t", AgentName: "slow", From: int64(i), To: int64(i) + 1, Timestamp: float64(1_000_000 + i)}
		if err := storeLost(t.Context(), tx, l); err != nil {
			t.Fatal(err)
		}
		if l.AgentName = "other"; i < more {
			if err := storeLost(t.Context(), tx, l); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	s := Store{DB: db}
	if err := s.Prune(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = db.SelectContext(t.Context(), &got, `SELECT name || ' lost ' || count(*) FROM events_lost GROUP BY name
		UNION ALL SELECT name || ' ' || action || ' ' || count(*) FROM agent_history GROUP BY name, action ORDER BY 1`)
	if want := "[other events_lost 20 other lost 20 slow create 1 slow events_lost 1000 slow lost 1000]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v", got, err)
	}
	if lost, err := s.LostOf(t.Context(), "t", "slow"); err != nil || len(lost) != 100 || lost[0].First != mostLost+more-1 {
		t.Errorf("%+v, %v", lost, err)
	}
}
