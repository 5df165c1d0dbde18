package worker_test

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// A task that keeps its key for an hour runs its next attempt when that is asked for, also where the wish is older than
// its failure; one attempt, not the one after it. Cancelled, it lets its key go.
func TestAStrictTaskIsHastenedAndCancelledWhereItWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := strictStand(t)
		s.spec.Config.RetryDelays, s.spec.Config.MaxRetries = []string{"5s"}, 5
		s.spec.Config.DLQEnabled = false
		var attempts [40]atomic.Int32
		handle := func(_ context.Context, a *worker.Attempt) worker.Result {
			i, _ := strconv.Atoi(string(a.Record.Value))
			attempts[i].Add(1)
			if i == 0 && a.Number < 3 || i == 1 {
				return worker.Result{Outcome: task.Failed, Message: "no"}
			}
			return worker.Result{Outcome: task.Completed}
		}
		e, _ := s.engine("n1", runner(t, 4, handle))
		began := time.Now()
		var hastened atomic.Int32
		hasten := func(i, attempt int) {
			o := task.Origin{Topic: "orders", Partition: int32(i % 2), Offset: int64(i)}
			e.HastenTask(worker.Hastening{Origin: o, Attempt: attempt, Expires: time.Now().Add(time.Minute), Tell: func(state, _ string) {
				if state == status.CommandDone {
					hastened.Add(1)
				}
			}})
		}
		hasten(0, 2)
		s.publish(0, 20) // 10 and 11 wait behind 0 and 1
		s.until("0 runs again", func() bool { return attempts[0].Load() == 2 })
		s.until("1 has failed", func() bool { return attempts[1].Load() == 1 })
		read := func(n int) []*kgo.Record {
			return s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= n })
		}
		read(19) // 0 twice, 1 once, and all but those behind them
		hasten(0, 2)
		hasten(0, 7)
		if attempts[0].Load() != 2 || attempts[10].Load() != 0 {
			t.Error("a wish about another attempt hastened it, or its key was let go")
		}
		hasten(0, 3)
		var c told
		e.CancelTask(c.of(1, 0))
		rs := read(23)
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("it took %s", took)
		}
		if got, want := s.settledAs(rs, "orders/0/0"), []string{"1 failed retry false", "2 failed retry false", "3 completed done true"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if got, want := s.settledAs(rs, "orders/1/1"), []string{"1 failed retry false", "1 cancelled dropped true"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if attempts[10].Load() != 1 || attempts[11].Load() != 1 || hastened.Load() != 1 {
			t.Errorf("behind them ran %d and %d, %d hastenings were told of", attempts[10].Load(), attempts[11].Load(), hastened.Load())
		}
		s.awaitLag(0)
	})
}
