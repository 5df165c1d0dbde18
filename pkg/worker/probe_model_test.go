package worker

import (
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// failing is a world whose dependency is away: so many tasks, each with a key of its own, fail whenever they run.
func failing(w *world, ordering string, tasks int) {
	w.spec.Config.Ordering, w.spec.Config.MaxRetries, w.full = ordering, 3, true
	for i := range tasks {
		f := &fate{plan: []Result{{Outcome: task.Failed, Class: task.ClassDependency, Message: "it is away"}}}
		r := &kgo.Record{Topic: "tasks", Offset: int64(i), Timestamp: time.Now(), Headers: []kgo.RecordHeader{
			{Key: task.HeaderOrigin, Value: task.Origin{Topic: "orders", Offset: int64(i)}.AppendHeader(nil)}, {Key: task.HeaderAttempt, Value: []byte("1")}}}
		if ordering == spec.OrderingStrict {
			f.key = strconv.Itoa(i)
			r.Key, w.keys[f.key] = []byte(f.key), []int64{int64(i)}
		}
		w.log, w.tasks[int64(i)] = append(w.log, r), f
	}
	w.own()
	w.e.outage.able = time.Time{} // nobody else succeeds
	w.poll(tasks)
}

// round starts up to n attempts, ends all that run, and commits.
func (w *world) round(n int) {
	w.start(n)
	for _, a := range w.some(len(w.running)) {
		w.finish(a)
	}
	w.commit(groupCommit, true)
}

// Where so many tasks keep their keys that there is no entry for a task to be tried out of its turn, others are tried.
func TestAnOutageIsProbedWhereTheEntriesAreFull(t *testing.T) {
	m := loneMember(t)
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, m)
		failing(w, spec.OrderingStrict, rapid.IntRange(80, 200).Draw(t, "tasks"))
		for range 400 {
			if w.round(100); w.e.outage.believed {
				break
			}
			<-time.After(100 * time.Microsecond)
		}
		if !w.e.outage.believed {
			t.Fatalf("after %d probes nothing is tried any more: %d tasks keep their keys, %d are sought", w.e.outage.probes, w.e.holders, len(w.e.sought))
		}
		for _, f := range w.tasks {
			f.plan = []Result{{Outcome: task.Completed}}
		}
		w.e.outage.hurry(time.Now())
		w.end()
	})
}

// A task that is tried out of its turn says nothing of those before it: a host that dies then leaves no more in doubt than
// have begun.
func TestAProbeOutOfItsTurnPutsNothingInDoubt(t *testing.T) {
	m := loneMember(t)
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, m)
		n := rapid.IntRange(500, 2000).Draw(t, "tasks")
		failing(w, spec.OrderingKey, n)
		for range 400 {
			if w.round(8); w.e.outage.misses >= doubt {
				break
			}
		}
		if w.tasks[int64(n-1)].started == 0 {
			t.Fatal("the newest task was never tried")
		}
		md, err := offsets.Decode(w.committed.Offset, w.committed.Metadata)
		if err != nil {
			t.Fatal(err)
		}
		if marked := md.Reserved - w.committed.Offset; marked > 200 {
			t.Fatalf("%d tasks count as begun, of which few are", marked)
		}
	})
}

// A task that was tried out of its turn and cut short has begun, also where it can't be named yet.
func TestAProbeThatWasCutShortIsKnownToHaveBegun(t *testing.T) {
	e := New(Config{Spec: &spec.Agent{Topic: "orders", Name: "biller"}, Tiers: []time.Duration{time.Second}})
	p := newPartition(hop.Assignment{}, 1, false)
	place := func(offset int64) *slot {
		s := &slot{eng: e, part: p, begun: 1}
		s.header.attempt, s.attempt.Record = 1, &kgo.Record{Offset: offset}
		p.tracker.Deliver(offset)
		return s
	}
	for i := range int64(offsets.MaxEntries - trialSize) {
		p.named[i] = place(i)
	}
	s := place(1000)
	s.sought, p.wants = true, []*slot{s}
	if _, wants := p.nameable(); len(wants) > 0 {
		t.Fatal("there is room for its name")
	}
	for _, en := range e.entries(p, nil) {
		if en.Offset == s.offset() && en.Attempt == 1 && en.NotBefore > 0 {
			return
		}
	}
	t.Fatal("no entry tells that it has begun")
}
