package worker_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// The retry of a task that crashed by itself gets a process to itself: its neighbours aren't cut short a second time. A
// task that killed its host is tried with nothing beside it in the whole worker.
func TestTheRetryOfACrashedTaskRunsApart(t *testing.T) {
	for _, message := range []string{"the agent's process exited with code 3", "the worker's process died while this task ran alone in it"} {
		t.Run(message, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStand(t)
				s.publish(0, 40)
				s.publish(40, 1, kgo.RecordHeader{Key: task.HeaderAttempt, Value: []byte("2")}, kgo.RecordHeader{Key: task.HeaderErrorClass, Value: []byte("crash")},
					kgo.RecordHeader{Key: task.HeaderErrorMessage, Value: []byte(message)}, kgo.RecordHeader{Key: task.HeaderFirstFailedAt, Value: []byte("2026-01-01T00:00:00.000Z")})
				s.publish(41, 40)
				var mu sync.Mutex
				var beside []string
				on, alone := false, false
				s.engine("a", runner(t, 4, func(_ context.Context, a *worker.Attempt) worker.Result {
					suspect := string(a.Record.Value) == "40"
					mu.Lock()
					if on {
						beside = append(beside, string(a.Record.Value))
					}
					if suspect {
						on, alone = true, a.Alone
					} else if a.Alone {
						t.Errorf("task %s is to run alone", a.Record.Value)
					}
					mu.Unlock()
					<-time.After(3 * time.Millisecond)
					if suspect {
						<-time.After(200 * time.Millisecond) // less than its probation
						mu.Lock()
						on = false
						mu.Unlock()
					}
					return ok(context.Background(), a)
				}))
				s.outcomes(81)
				mu.Lock()
				defer mu.Unlock()
				if !alone {
					t.Error("it didn't ask to run alone")
				}
				if message[4:10] == "worker" && len(beside) > 0 {
					t.Errorf("beside it ran %v", beside)
				}
			})
		})
	}
}

// A process that dies with several attempts in flight costs none of them a retry, however often that happens; and the one
// that kills it alone is the only one that pays: with each of its attempts once.
func TestAPoisonEventIsIsolatedWithItsRetries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.retries()
		s.publish(0, 60)
		p := newSharedProcess(4, "7")
		p.patient = true
		s.engine("a", p)
		finals, crashed := map[string]string{}, 0
		s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool {
			finals, crashed = map[string]string{}, 0
			for _, r := range rs {
				h := header(r)
				if h[task.HeaderOutcome] == "crashed" {
					crashed++
					if string(r.Key) != "orders/1/7" {
						t.Fatalf("%s is punished", r.Key)
					}
				}
				if h[task.HeaderFinal] == "true" {
					finals[string(r.Key)] = h[task.HeaderSettled]
				}
			}
			return len(finals) == 60
		})
		for id, settled := range finals {
			if (id == "orders/1/7") != (settled == "dlq") {
				t.Errorf("%s: %s", id, settled)
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if crashed != 4 || len(p.deaths) != 5 || slices.Max(p.deaths[1:]) != 1 {
			t.Errorf("%d attempts crashed, the process died with %v in flight: once with its neighbours, then alone", crashed, p.deaths)
		}
		if p.deaths[0] < 2 {
			t.Error("the test shows nothing: the first death was a lone one")
		}
	})
}
