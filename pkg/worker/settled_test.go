package worker_test

import (
	"context"
	"iter"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

func TestWhatIsSettledIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		type told struct {
			outcome task.Outcome
			settled task.Settled
			first   bool
		}
		var mu sync.Mutex
		got := map[told]int{}
		run := runner(t, 8, func(_ context.Context, a *worker.Attempt) worker.Result {
			if string(a.Record.Value) == "3" {
				return worker.Result{Outcome: task.Failed, Message: "odd"}
			}
			return worker.Result{Outcome: task.Completed}
		})
		_, stop := s.engine("a", run, func(c *worker.Config) {
			c.Settled = func(all iter.Seq[worker.Settlement]) {
				mu.Lock()
				defer mu.Unlock()
				for v := range all {
					got[told{v.Outcome, v.Settled, v.First}]++
				}
			}
		})
		s.publish(0, 10)
		s.publish(10, 2, kgo.RecordHeader{Key: task.HeaderAttempt, Value: []byte("2")})
		s.publish(12, 1, kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte("1")})
		s.outcomes(13)
		stop() // the last transaction's are told before it returns
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 3 || got[told{task.Completed, task.SettledDone, true}] != 9 || got[told{task.Completed, task.SettledDone, false}] != 3 || got[told{task.Failed, task.SettledRetry, true}] != 1 {
			t.Errorf("%v", got)
		}
	})
}
