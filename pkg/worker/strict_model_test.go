package worker

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// world is what is outside of an engine: a log of tasks with one partition, the committed position, and the outcomes
// that are visible. Engines come and go in it; its checks are what ordering strict promises.
type world struct {
	t      *rapid.T
	member *hop.Member
	spec   *spec.Agent
	names  topics.Names

	log       []*kgo.Record
	committed hop.Position
	tasks     map[int64]*fate
	keys      map[string][]int64 // offsets of a key, in order

	e       *Engine
	polled  int // of the log, by this engine
	running map[*Attempt]bool
	calm    bool // no attempt fails, so that order is nobody's business: the ordering changes
	full    bool // more tasks are on a later attempt than there are entries: a number that nothing was settled for may come again
}

// fate is what is known of a task.
type fate struct {
	key              string
	started, settled int // the last attempts that did
	burnt, timeouts  int
	due              time.Time
	first            int64 // the outcome that was the first failure, Unix milliseconds
	final            bool
	plan             []Result
}

const requestTimeout = 10 * time.Second

func newWorld(t *rapid.T, m *hop.Member) *world {
	w := &world{t: t, member: m, tasks: map[int64]*fate{}, keys: map[string][]int64{}}
	w.spec = &spec.Agent{Topic: "orders", Name: "biller", Version: "1", Runtime: spec.SDK, Partitions: 1, Config: spec.NewConfig(spec.SDK), Process: spec.NewProcess()}
	w.spec.Config.Ordering = spec.OrderingStrict
	w.spec.Config.MaxRetries = rapid.IntRange(0, 3).Draw(t, "max retries")
	w.spec.Config.RetryDelays = []string{"1ms", "3ms"}
	w.spec.Process.RequestTimeout = spec.Seconds(requestTimeout.Seconds())
	return w
}

func (w *world) publish(n, keys int) {
	for range n {
		offset := int64(len(w.log))
		r := &kgo.Record{Topic: "tasks", Offset: offset, Timestamp: time.Now(), Value: []byte("v"), Headers: []kgo.RecordHeader{
			{Key: task.HeaderOrigin, Value: task.Origin{Topic: "orders", Offset: offset}.AppendHeader(nil)}, {Key: task.HeaderAttempt, Value: []byte("1")}}}
		f := &fate{plan: w.plan()}
		if k := rapid.IntRange(0, keys).Draw(w.t, "key"); k > 0 { // 0: no key
			f.key = "k" + strconv.Itoa(k)
			r.Key = []byte(f.key)
			w.keys[f.key] = append(w.keys[f.key], offset)
		}
		w.log = append(w.log, r)
		w.tasks[offset] = f
	}
}

// plan is how the attempts of a task end; the last goes on for ever.
func (w *world) plan() []Result {
	results := []Result{{Outcome: task.Completed}}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2, 6}).Draw(w.t, "failures") {
		if w.calm {
			results = append(results, Result{CutShort: true})
			continue
		}
		results = append(results, rapid.SampledFrom([]Result{
			{Outcome: task.Failed, Class: task.ClassNetwork}, {Outcome: task.TimedOut, Class: task.ClassTimeout}, {Outcome: task.Failed, Class: task.ClassRateLimited},
			{Outcome: task.Failed, Class: task.ClassResource}, {Outcome: task.Failed, Class: task.ClassPermanent}, {CutShort: true},
			{Outcome: task.Crashed, Class: task.ClassCrash, Shared: true},
		}).Draw(w.t, "failure"))
	}
	slices.Reverse(results)
	return results
}

// own starts an engine where the last one stopped, however that was.
func (w *world) own() {
	w.e = New(Config{Spec: w.spec, Names: w.names, Node: "n", Tiers: []time.Duration{time.Millisecond, 3 * time.Millisecond}})
	w.e.member = w.member
	w.e.outage.able = time.Now().Add(time.Hour) // others succeed all the time: each failure is its task's own
	w.running = map[*Attempt]bool{}
	md, err := offsets.Decode(w.committed.Offset, w.committed.Metadata)
	if err != nil {
		w.t.Fatal(err)
	}
	w.polled = int(w.committed.Offset)
	claim := md
	claim.Clean = false
	w.committed.Metadata = claim.Encode(w.committed.Offset)
	(*ownership)(w.e).Assigned(context.Background(), []hop.Assignment{{Offset: w.committed.Offset, Metadata: md, LogEnd: int64(len(w.log))}})
}

func (w *world) poll(n int) {
	to := min(w.polled+n, len(w.log))
	w.e.admit(kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "tasks", Partitions: []kgo.FetchPartition{{Records: w.log[w.polled:to]}}}}}})
	w.polled = to
}

// start takes what may start, and checks that it may.
func (w *world) start(n int) (started int) {
	md, err := offsets.Decode(w.committed.Offset, w.committed.Metadata)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range w.e.pick(n) {
		o := a.Record.Offset
		f := w.tasks[o]
		for _, before := range w.keys[f.key] {
			if before < o && !w.tasks[before].final && !w.calm {
				w.t.Fatalf("task %d of %s starts before %d is settled for good", o, f.key, before)
			}
		}
		for other := range w.running {
			if f.key != "" && string(other.Record.Key) == f.key && !w.calm {
				w.t.Fatalf("tasks %d and %d of %s run at once", o, other.Record.Offset, f.key)
			}
		}
		named := slices.ContainsFunc(md.Entries, func(en offsets.Entry) bool { return en.Offset == o && en.Attempt == a.Number && en.NotBefore == 0 })
		switch {
		case f.final:
			w.t.Fatalf("task %d runs again after its end", o)
		case a.Number <= f.settled || a.Number <= f.started && !w.full:
			w.t.Fatalf("attempt %d of task %d starts after attempt %d", a.Number, o, f.started)
		case f.key != "" && time.Now().Before(f.due):
			w.t.Fatalf("attempt %d of task %d starts %v early", a.Number, o, time.Until(f.due))
		case !named && (a.Number > 1 || o >= md.Reserved):
			w.t.Fatalf("attempt %d of task %d starts though no commit says so: %+v", a.Number, o, md)
		case a.Timeout != requestTimeout<<min(f.timeouts, 2):
			w.t.Fatalf("attempt %d of task %d has %v after %d timeouts", a.Number, o, a.Timeout, f.timeouts)
		}
		f.started = a.Number
		w.running[a] = true
		started++
	}
	return started
}

// finish ends an attempt as its task's plan has it.
func (w *world) finish(a *Attempt) {
	delete(w.running, a)
	f := w.tasks[a.Record.Offset]
	r := f.plan[0]
	if len(f.plan) > 1 {
		f.plan = f.plan[1:]
	}
	if a.Alone && r.Shared {
		r.Shared = false
	}
	a.Finish(r)
}

// commit runs a transaction that ends well or not.
func (w *world) commit(why purpose, well bool) bool {
	e := w.e
	tx := e.prepare(why)
	if tx == nil {
		return false
	}
	if !well {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.undo(tx)
		return false
	}
	out := writer{names: w.names, agent: w.spec, node: "n", outcomes: w.names.Outcomes(), dlq: e.dlq()}
	records, owners := out.records(tx.batch)
	for i, r := range records {
		w.settled(r, owners[i])
	}
	for _, at := range tx.tx.Offsets {
		if len(at.Metadata) > offsets.MaxBytes {
			w.t.Fatalf("%d bytes of metadata", len(at.Metadata))
		}
		w.committed = at
	}
	e.committed(tx)
	return true
}

// settled makes a record visible.
func (w *world) settled(r *kgo.Record, s *slot) {
	f := w.tasks[s.offset()]
	if r.Topic != w.names.Outcomes() {
		if f.key != "" && r.Topic != w.e.dlq() && !w.calm {
			w.t.Fatalf("task %d of %s went to %s", s.offset(), f.key, r.Topic)
		}
		if r.Topic == w.e.dlq() && f.first != 0 && value(r, task.HeaderFirstFailedAt) != time.UnixMilli(f.first).UTC().Format(timeFormat) {
			w.t.Fatalf("task %d failed first at %s, it says %s", s.offset(), time.UnixMilli(f.first).UTC().Format(timeFormat), value(r, task.HeaderFirstFailedAt))
		}
		return
	}
	n := number([]byte(value(r, task.HeaderAttempt)))
	class, how := task.Class(value(r, task.HeaderErrorClass)), value(r, task.HeaderSettled)
	burns := class == task.ClassNetwork || class == task.ClassTimeout || class == task.ClassCrash
	switch {
	case f.final:
		w.t.Fatalf("attempt %d of task %d is settled after its end", n, s.offset())
	case n <= f.settled:
		w.t.Fatalf("attempt %d of task %d is settled after attempt %d", n, s.offset(), f.settled)
	case burns && (how == "retry") != (f.burnt < w.spec.Config.MaxRetries):
		w.t.Fatalf("task %d: %s after %d of %d retries", s.offset(), how, f.burnt, w.spec.Config.MaxRetries)
	}
	f.settled = n
	if how != "retry" || s.keeps == nil { // without a key it goes to a retry topic, which isn't here
		f.final = true
		return
	}
	if f.first == 0 {
		f.first = s.keeps.first
	}
	if !s.ended.IsZero() { // else it died with its host, some time ago
		f.due = s.ended.Add(s.verdict.Delay)
	}
	if burns {
		f.burnt++
	}
	if class == task.ClassTimeout {
		f.timeouts++
	}
}

func value(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// end lets everything come to its end.
func (w *world) end() {
	for range 20_000 {
		w.poll(len(w.log))
		w.start(8)
		for _, a := range w.some(8) {
			w.finish(a)
		}
		if w.commit(groupCommit, true) {
			continue
		}
		if left := slices.DeleteFunc(slices.Collect(maps.Values(w.tasks)), func(f *fate) bool { return f.final }); len(left) == 0 {
			return
		}
		<-time.After(200 * time.Microsecond)
	}
	p := w.e.parts[0]
	states := map[state]int{}
	for _, s := range p.named {
		states[s.state]++
	}
	w.t.Fatalf("it never ends: %d keep their keys, %d suspects, %d on trial; of the partition %d are named (by state %v), %d tried, %d wanted, %d crammed, %d finished",
		w.e.holders, len(w.e.suspects), len(w.e.trial.members), len(p.named), states, len(p.tried), len(p.wants), p.holds.crammed, len(w.e.finished))
}

// some gives up to n running attempts.
func (w *world) some(n int) []*Attempt {
	all := slices.SortedFunc(maps.Keys(w.running), func(a, b *Attempt) int { return int(a.Record.Offset - b.Record.Offset) })
	return all[:min(n, len(all))]
}

type nobody struct{}

func (nobody) Assigned(context.Context, []hop.Assignment) {}
func (nobody) Revoked(context.Context, []int32)           {}
func (nobody) Lost([]int32)                               {}
func (nobody) Overtaken(int32, int64, int64)              {}
func (nobody) Truncated(_ context.Context, _ int32, end int64) int64 {
	return end
}

// A member of a group that nobody answers for: the world is the broker.
func loneMember(t *testing.T) *hop.Member {
	t.Helper()
	m, err := hop.NewMember(hop.MemberConfig{Opts: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}, Group: "g", Topic: "tasks", Service: "test", Node: "n", Handler: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// Whatever ends, fails, is cut short, crashes or is handed over, and whenever: the tasks of a key run one after the
// other, each until it is settled for good, never before its delay is over, with its attempts, retries and timeouts
// counted over all owners.
func TestStrictScheduleKeepsItsPromises(t *testing.T) {
	m := loneMember(t)
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, m)
		keys := rapid.SampledFrom([]int{1, 3, 10, 100}).Draw(t, "keys")
		w.publish(rapid.IntRange(1, 150).Draw(t, "tasks"), keys)
		w.own()
		for range rapid.IntRange(0, 150).Draw(t, "steps") {
			switch step := rapid.SampledFrom([]string{"poll", "start", "start", "finish", "finish", "commit", "commit", "commit", "abort", "wait", "crash", "hand over", "publish"}).Draw(t, "step"); step {
			case "poll":
				w.poll(rapid.IntRange(1, 100).Draw(t, "n"))
			case "start":
				w.start(rapid.IntRange(1, 40).Draw(t, "n"))
			case "finish":
				for _, a := range w.some(rapid.IntRange(1, 40).Draw(t, "n")) {
					w.finish(a)
				}
			case "commit":
				w.commit(rapid.SampledFrom([]purpose{groupCommit, tidyUp}).Draw(t, "why"), true)
			case "abort":
				w.commit(groupCommit, false)
			case "wait":
				<-time.After(time.Duration(rand.N(2000)) * time.Microsecond)
			case "crash":
				w.own()
			case "hand over":
				if len(w.running) == 0 {
					w.commit(handOver, true)
					w.own()
				}
			case "publish":
				w.publish(rapid.IntRange(1, 30).Draw(t, "n"), keys)
			}
		}
		w.end()
	})
}

// A partition has so many tasks that keep their keys as it has entries for, less those of suspects: one more waits, and
// other keys go on. Suspects are tried beside them.
func TestMoreFailuresThanEntriesWait(t *testing.T) {
	m := loneMember(t)
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, m)
		w.spec.Config.MaxRetries, w.full = 3, true
		for i := range 200 {
			w.publish(1, 0)
			f := w.tasks[int64(i)]
			f.key = fmt.Sprint("own", i)
			w.log[i].Key, w.keys[f.key] = []byte(f.key), []int64{int64(i)}
			f.plan = []Result{{Outcome: task.Failed, Class: task.ClassNetwork}, {Outcome: task.Failed, Class: task.ClassNetwork}, {Outcome: task.Completed}}
		}
		w.own()
		for range rapid.IntRange(1, 4).Draw(rt, "hosts") {
			for range rapid.IntRange(1, 60).Draw(rt, "rounds") {
				w.poll(200)
				w.start(16)
				for _, a := range w.some(rapid.IntRange(0, 16).Draw(rt, "n")) {
					w.finish(a)
				}
				w.commit(groupCommit, true)
				if w.e.holders > maxHolds {
					rt.Fatalf("%d tasks keep their keys", w.e.holders)
				}
			}
			w.own() // the host died
		}
		w.end()
	})
}

// Where an ordering is changed while tasks run, and their host dies, each attempt is still known to whoever comes next:
// that nothing has begun behind an unsettled task of its key counts only where it is true.
func TestAChangedOrderingLeavesNoAttemptUnnoticed(t *testing.T) {
	m := loneMember(t)
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, m)
		w.calm = true
		w.publish(rapid.IntRange(1, 60).Draw(t, "tasks"), 3)
		w.own()
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"poll", "start", "start", "finish", "finish", "commit", "commit", "abort", "crash", "change", "change and crash"}).Draw(t, "step") {
			case "poll":
				w.poll(rapid.IntRange(1, 60).Draw(t, "n"))
			case "start":
				w.start(rapid.IntRange(1, 10).Draw(t, "n"))
			case "finish":
				for _, a := range w.some(rapid.IntRange(1, 10).Draw(t, "n")) {
					w.finish(a)
				}
			case "commit":
				w.commit(groupCommit, true)
			case "abort":
				w.commit(groupCommit, false)
			case "crash":
				w.own()
			case "change":
				w.change()
				w.e.Update(w.spec)
			case "change and crash":
				w.change()
				w.own()
			}
		}
		w.end()
	})
}

// change makes the agent strict, or strict no more.
func (w *world) change() {
	a := *w.spec
	if a.Config.Ordering = spec.OrderingStrict; w.spec.Config.Ordering == spec.OrderingStrict {
		a.Config.Ordering = spec.OrderingKey
	}
	w.spec = &a
}

// pair is two tasks of one key, of which the first runs.
func pair(t *rapid.T, m *hop.Member, ordering string, first ...Result) *world {
	w := newWorld(t, m)
	w.calm, w.spec.Config.Ordering, w.spec.Config.MaxRetries = true, ordering, 3
	for i := range int64(2) {
		w.publish(1, 0)
		w.log[i].Key, w.tasks[i].key, w.tasks[i].plan = []byte("k"), "k", []Result{{Outcome: task.Completed}}
	}
	w.tasks[0].plan = append(first, w.tasks[0].plan...)
	w.keys["k"] = []int64{0, 1}
	w.own()
	w.poll(2)
	w.commit(groupCommit, true)
	w.start(1) // asks for a reservation
	w.commit(groupCommit, true)
	if w.start(1) != 1 {
		t.Fatal("the first task doesn't start")
	}
	return w
}

// A commit that says that nothing has begun behind an unsettled task of a key stands until another one doesn't.
func TestAKeyIsHeldUntilNoCommitSaysThatItIs(t *testing.T) {
	m := loneMember(t)
	rapid.Check(t, func(t *rapid.T) {
		w := pair(t, m, spec.OrderingStrict)
		w.change()
		w.e.Update(w.spec)
		w.finish(w.some(1)[0])
		if w.start(2) != 0 {
			t.Fatal("the second task starts behind the back of the last commit")
		}
		w.end()
	})
}

// What an owner began that wasn't strict is known to the second strict one after it.
func TestWhatBeganBeforeAnAgentWasStrictIsKnown(t *testing.T) {
	m := loneMember(t)
	rapid.Check(t, func(t *rapid.T) {
		w := pair(t, m, spec.OrderingKey)
		w.finish(w.some(1)[0])
		if w.start(1) != 1 {
			t.Fatal("the second task doesn't start")
		}
		w.change()
		for range 2 { // hosts die; the first one commits that it is there
			w.own()
			w.poll(2)
			w.commit(groupCommit, true)
		}
		w.end() // checks the attempts' numbers
	})
}

// A clean commit takes back what was named: nothing starts before another one names it.
func TestNothingNamedStartsBehindACleanCommit(t *testing.T) {
	m := loneMember(t)
	for name, first := range map[string]Result{"cut short": {CutShort: true}, "held": {Outcome: task.Failed, Class: task.ClassNetwork}} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := pair(t, m, spec.OrderingStrict, first)
				w.finish(w.some(1)[0])
				w.commit(groupCommit, true)
				<-time.After(2 * time.Millisecond) // the delay
				for !slices.ContainsFunc(slices.Collect(maps.Values(w.e.parts[0].named)), func(s *slot) bool { return s.state == ready }) {
					w.e.mu.Lock()
					w.e.callDue(1, time.Now())
					w.e.mu.Unlock()
					w.commit(groupCommit, true)
				}
				w.commit(handOver, true)
				if w.start(1) != 0 {
					t.Fatal("an attempt starts that the last commit doesn't name")
				}
				w.end()
			})
		})
	}
}
