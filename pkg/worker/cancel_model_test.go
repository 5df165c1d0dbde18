package worker

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// cancel cancels a task.
func (w *world) cancel(offset int64) {
	w.e.CancelTask(Cancellation{Origin: task.Origin{Topic: "orders", Offset: offset}, Message: "cancelled by a test", Expires: time.Now().Add(time.Minute), Tell: func(string, string) {}})
}

// queued is a world with tasks that complete, none of which has started.
func queued(t *rapid.T, m *hop.Member) *world {
	w := newWorld(t, m)
	w.spec.Config.Ordering = spec.OrderingKey
	w.publish(8, 0)
	for _, f := range w.tasks {
		f.plan = []Result{{Outcome: task.Completed}}
	}
	w.own()
	w.poll(8)
	return w
}

// A task is cancelled also while nobody knows whose its partition is.
func TestATaskOfALostPartitionIsCancelled(t *testing.T) {
	m := loneMember(t)
	rapid.Check(t, func(t *rapid.T) {
		w := queued(t, m)
		w.tasks[3].settled = -1 // the outcome of a task that never ran has attempt 0
		(*ownership)(w.e).Lost([]int32{0})
		w.cancel(3)
		md, err := offsets.Decode(w.committed.Offset, w.committed.Metadata)
		if err != nil {
			t.Fatal(err)
		}
		(*ownership)(w.e).Assigned(context.Background(), []hop.Assignment{{Own: true, Offset: w.committed.Offset, Metadata: md, LogEnd: 8}})
		if w.end(); w.tasks[3].started > 0 {
			t.Fatal("it runs")
		}
	})
}

// A suspect is cancelled also when it is about to start.
func TestATaskOnTrialIsCancelled(t *testing.T) {
	m := loneMember(t)
	rapid.Check(t, func(t *rapid.T) {
		w := queued(t, m)
		w.start(8) // asks for a reservation
		w.commit(groupCommit, true)
		w.start(8)
		w.own() // the host died
		w.poll(8)
		w.start(8) // opens the trial
		w.commit(groupCommit, true)
		w.cancel(3)
		if w.end(); w.tasks[3].started != 1 {
			t.Fatalf("attempt %d runs", w.tasks[3].started)
		}
	})
}
