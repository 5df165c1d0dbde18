package fleet

import (
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAReportThatPostgresCannotStoreKeepsNoOtherFromBeingStored(t *testing.T) {
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	at := float64(time.Now().Unix())
	noise := make([]byte, 4000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // never fails; what could be compressed would fit into an index
	long := hex.EncodeToString(noise)
	var records []*kgo.Record
	for _, v := range []any{
		status.LogLine{Event: status.EventLog, Topic: "t", AgentName: "n", Instance: "i", Line: "before", Timestamp: at},
		status.LogLine{Event: status.EventLog, Topic: "t", AgentName: "n", Instance: "i", Line: "a time beyond all", Timestamp: 1e14},
		status.Node{Event: status.EventNode, Service: "worker", Node: "huge", PID: 1 << 40, StartedAt: at, Timestamp: at},
		status.Alert{Event: status.EventAlert, Topic: long, Kind: "k", Message: "m", Since: at, Timestamp: at},
		status.Node{Event: status.EventNode, Service: "worker", Node: "w", PID: 1, StartedAt: at, Timestamp: at},
		status.LogLine{Event: status.EventLog, Topic: "t", AgentName: "n", Instance: "i", Line: "after", Timestamp: at},
	} {
		value, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, &kgo.Record{Value: value})
	}
	tx, err := db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	s := Store{DB: db}
	if err := s.Write(t.Context(), nil, tx, records); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if lines, err := s.Log(t.Context(), "t", "n", "", 0, 10); err != nil || len(lines) != 2 || lines[0].Line != "before" || lines[1].Line != "after" {
		t.Errorf("%+v, %v", lines, err)
	}
	if nodes, err := s.Missing(t.Context(), View{}); err != nil || len(nodes) != 1 || nodes[0].Node != "w" {
		t.Errorf("%+v, %v", nodes, err)
	}
}
