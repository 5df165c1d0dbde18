package orders

import (
	"testing"
	"time"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
)

func TestWhatIsIssuedAgainOfAnOrderThatIsTakenBackIsThat(t *testing.T) {
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	s, now := &Store{DB: db}, time.Now().Truncate(time.Millisecond)
	c := command.Command{ID: "1", Verb: command.Redrive, Topic: "orders", Agent: "bill", Actor: "ann", At: now, Expires: now.Add(time.Hour), Dead: &command.Dead{All: true, Ends: map[int32]int64{0: 9}}}
	if err := s.Add(t.Context(), c, Meant{Matched: 9}, now); err != nil {
		t.Fatal(err)
	}
	back := command.Command{ID: "cancel 1", Verb: command.CancelOrder, Order: "1", Topic: "orders", Agent: "bill", Actor: "bob", Reason: "why"}
	for range 2 { // to ask twice is fine
		if open, err := s.TakeBack(t.Context(), back, now); !open || err != nil {
			t.Fatal(open, err)
		}
	}
	again, err := s.Open(t.Context(), now.Add(sendAgain+time.Second))
	if err != nil || len(again) != 1 || again[0].Cancel == nil || again[0].Cancel.Actor != "bob" || again[0].Command.Dead.Ends[0] != 9 || again[0].Ended() {
		t.Fatalf("%+v, %v", again, err)
	}
	tx, err := db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, state := range []string{status.OrderCancelled, status.OrderRunning} { // an end is for good
		o := status.DLQOrder{ID: "1", Topic: "orders", AgentName: "bill", Verb: "cancel_order", State: state, Reason: "cancelled by bob: why", Timestamp: status.Seconds(now.Add(time.Duration(i) * time.Second))}
		if err := Report(t.Context(), tx, o); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	o, err := s.Get(t.Context(), "orders", "bill", "1")
	if err != nil || o.State != status.OrderCancelled || !o.Ended() || o.Verb != "redrive" || o.Reason != "cancelled by bob: why" {
		t.Errorf("%+v, %v", o, err)
	}
	if open, err := s.TakeBack(t.Context(), back, now); open || err != nil {
		t.Errorf("it is taken back once more: %v, %v", open, err)
	}
	if again, err = s.Open(t.Context(), now.Add(time.Hour)); err != nil || len(again) != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	other := back
	other.Agent = "other"
	if open, err := s.TakeBack(t.Context(), other, now); open || err != nil {
		t.Errorf("another agent's order is taken back: %v, %v", open, err)
	}
}
