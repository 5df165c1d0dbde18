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

func TestALogKeepsItsLastThousandLinesOfADay(t *testing.T) {
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	line := func(agent string, n int, age time.Duration) status.LogLine {
		return status.LogLine{Topic: "t", AgentName: agent, Instance: "i", Line: fmt.Sprint(n), Timestamp: float64(now.Add(-age).UnixMilli()) / 1000}
	}
	lines := []status.LogLine{line("old", 0, 25*time.Hour), line("old", 1, 23*time.Hour)}
	for n := range 1500 {
		lines = append(lines, line("long", n, 0))
	}
	tx, err := db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := storeLines(t.Context(), tx, lines); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	s := Store{DB: db}
	if err := s.Prune(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Log(t.Context(), "t", "long", "", 0, 2000); err != nil || len(left) != 1000 || left[0].Line != "500" || left[999].Line != "1499" {
		t.Errorf("%d lines are left, %v", len(left), err)
	}
	if left, err := s.Log(t.Context(), "t", "old", "", 0, 2000); err != nil || len(left) != 1 || left[0].Line != "1" {
		t.Errorf("%v are left, %v", left, err)
	}
}
