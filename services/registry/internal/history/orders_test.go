package history

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/internal/orders"
)

// settleOf settles a task of t/n in a round that an order has opened.
func (b *bench) settleOf(order string, task int, outcome, settled string, redrives int) {
	b.Helper()
	b.order = order
	defer func() { b.order = "" }()
	b.settle(task, 1, outcome, settled, redrives)
}

// Dispatchers that carry an order out see only what ends while they look. Its figures are those of the outcomes all the same,
// also of what ends after the order.
func TestWhatBecameOfAnOrdersTasksIsCountedWhoeverLooked(t *testing.T) {
	b := newBench(t)
	s, now := &orders.Store{DB: b.db}, time.Now()
	for _, id := range []string{"1", "2"} {
		c := command.Command{ID: id, Verb: command.Redrive, Topic: "t", Agent: "n", Actor: "ann", At: now, Expires: now.Add(time.Hour), Dead: &command.Dead{All: true, Ends: map[int32]int64{0: 9}}}
		if err := s.Add(t.Context(), c, orders.Meant{Matched: 9}, now); err != nil {
			t.Fatal(err)
		}
	}
	says := func(state string, completed, cameBack int64) {
		t.Helper()
		tx, err := b.db.BeginTxx(t.Context(), nil)
		if err == nil {
			err = orders.Report(t.Context(), tx, status.DLQOrder{ID: "1", Topic: "t", AgentName: "n", Verb: "redrive", State: state, Moved: 8, Completed: completed, CameBack: cameBack, Timestamp: status.Seconds(now)})
		}
		if err == nil {
			err = tx.Commit()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(id string, completed, cameBack int64) {
		t.Helper()
		o, err := s.Get(t.Context(), "t", "n", id)
		if err != nil || o.Completed != completed || o.CameBack != cameBack {
			t.Errorf("order %s: %d completed, %d came back, %v; want %d and %d", id, o.Completed, o.CameBack, err, completed, cameBack)
		}
	}
	for n := range 5 {
		b.settle(n, 1, "failed", "dlq", 0)
	}
	b.settleOf("1", 0, "completed", "done", 1)
	b.settleOf("1", 1, "failed", "retry", 1)
	b.settleOf("1", 1, "failed", "dlq", 1)
	b.settleOf("2", 2, "timed_out", "failed", 1)
	says(status.OrderRunning, 1, 0)
	b.project(b.projection())
	want("1", 1, 1)
	want("2", 0, 1)
	says(status.OrderRunning, 3, 1) // the history is behind what its dispatcher has seen
	want("1", 3, 1)
	b.settleOf("1", 3, "completed", "done", 1)
	b.settleOf("1", 4, "cancelled", "dropped", 1)
	says(status.OrderDone, 0, 0) // by another one, which has seen nothing
	b.settleOf("1", 5, "completed", "done", 1)
	b.settleOf("1", 6, "completed", "done", 1)
	b.settleOf("1", 7, "failed", "dlq", 1)
	b.settle(3, 1, "completed", "done", 2) // opened by hand
	b.project(b.projection())
	want("1", 4, 2)
	want("2", 0, 1)
	b.project(b.projection()) // a restart counts nothing twice
	want("1", 4, 2)
	b.prunesOrders(s, now)
}

// prunesOrders checks that what is counted for an order goes with it, and not before.
func (b *bench) prunesOrders(s *orders.Store, now time.Time) {
	b.Helper()
	counted := func(want int) {
		b.Helper()
		var n int
		if err := b.db.GetContext(b.Context(), &n, `SELECT count(*) FROM dlq_order_outcomes`); err != nil || n != want {
			b.Errorf("of %d orders outcomes are counted, %v; want %d", n, err, want)
		}
	}
	const month = 30 * 24 * time.Hour
	if err := s.Prune(b.Context(), now.Add(month-time.Hour)); err != nil {
		b.Fatal(err)
	}
	counted(2)
	if err := s.Prune(b.Context(), now.Add(month+time.Hour)); err != nil {
		b.Fatal(err)
	}
	counted(1) // the other order hasn't ended
}

// ofOrder adds the header that names the order.
func (b *bench) ofOrder(r *kgo.Record) {
	if b.order != "" {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: task.HeaderOrder, Value: []byte(b.order)})
	}
}
