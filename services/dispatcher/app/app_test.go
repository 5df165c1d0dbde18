package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/httpx"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) {
	const kfake = "github.com/twmb/franz-go/pkg/kfake." // the test run's Kafka, where it is one, outlives every test
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(kfake+"(*Cluster).run"), goleak.IgnoreAnyFunction(kfake+"(*broker).listen"))
}

// world is a broker with what a dispatcher needs around it.
type world struct {
	t     *testing.T
	cfg   config.Config
	names topics.Names
	cl    *kgo.Client
	adm   *kadm.Client
	kfake *kfake.Cluster // where it is one of its own
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	w := worldOn(t, "", c.ListenAddrs()...)
	w.kfake = c
	return w
}

// worldOn is a world on brokers that others may use too, with a prefix of its own.
func worldOn(t *testing.T, prefix string, brokers ...string) *world {
	t.Helper()
	cfg := config.Default(config.Dispatcher)
	cfg.Node, cfg.HTTPAddr = "n1", ""
	cfg.Kafka.Brokers, cfg.Kafka.RetryTiers = brokers, []time.Duration{200 * time.Millisecond, time.Second}
	if prefix != "" {
		cfg.Kafka.Prefix, cfg.Kafka.Replication = prefix, 1
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.MetadataMinAge(50*time.Millisecond), kgo.UnknownTopicRetries(20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	w := &world{t: t, cfg: cfg, names: cfg.Kafka.Names(), cl: cl, adm: kadm.NewClient(cl)}
	w.create(kafka.ControlTopic(w.names))
	return w
}

func (w *world) create(ts ...kafka.Topic) {
	w.t.Helper()
	if err := kafka.EnsureTopics(w.t.Context(), w.cl, -1, ts...); err != nil {
		w.t.Fatal(err)
	}
}

// start runs a dispatcher; stop ends it and returns its error.
func (w *world) start(change ...func(*Config)) (stop func() error) {
	w.t.Helper()
	cfg := Config{Config: w.cfg}
	for _, f := range change {
		f(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx); close(done) }()
	stop = func() error {
		cancel()
		select {
		case err := <-done: // nil from the second time on
			return err
		case <-time.After(time.Minute):
			stacks := make([]byte, 1<<20)
			return fmt.Errorf("it goes on a minute after it was told to stop:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
	w.t.Cleanup(func() {
		if err := stop(); err != nil {
			w.t.Errorf("the dispatcher ended with %v", err)
		}
	})
	select {
	case <-a.Ready():
	case err := <-done:
		w.t.Fatalf("the dispatcher ended with %v", err)
	case <-time.After(time.Minute):
		w.t.Fatal("the dispatcher isn't ready")
	}
	w.tiersStand(cfg.Kafka.RetryTiers)
	return stop
}

// tiersStand waits for the dispatcher's groups on the tiers that nothing has been written to: what is written before there
// are positions waits for the registry, which knows whether Kafka has forgotten them.
func (w *world) tiersStand(tiers []time.Duration) {
	w.t.Helper()
	for _, tier := range tiers {
		topic, group := w.names.Retry(tier), w.names.RetryGroup(tier)
		w.until("the group of a tier stands", func() bool {
			if w.ends(topic) > 0 {
				return true
			}
			at, err := w.adm.FetchOffsetsForTopics(w.t.Context(), group, topic)
			stands := err == nil && len(at[topic]) > 0
			at.Each(func(o kadm.OffsetResponse) { stands = stands && o.Err == nil && o.At >= 0 })
			return stands
		})
	}
}

func agent(topic, name string) *spec.Agent {
	return &spec.Agent{Topic: topic, Name: name, Runtime: spec.Command, Partitions: 4, Phase: spec.Active, Generation: 1}
}

func (w *world) desire(a *spec.Agent) {
	w.t.Helper()
	value, err := json.Marshal(a)
	if err != nil {
		w.t.Fatal(err)
	}
	w.produce(&kgo.Record{Topic: w.names.Control(), Key: []byte(a.Key()), Value: value})
}

func (w *world) produce(rs ...*kgo.Record) {
	w.t.Helper()
	if err := w.cl.ProduceSync(w.t.Context(), rs...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) events(topic string, from, to int) {
	w.t.Helper()
	var rs []*kgo.Record
	for i := from; i < to; i++ {
		rs = append(rs, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i%7), Value: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	w.produce(rs...)
}

// reader consumes topics from their start, committed records only.
type reader struct {
	w  *world
	cl *kgo.Client
}

func (w *world) read(topics ...string) *reader {
	w.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.cfg.Kafka.Brokers...), kgo.ConsumeTopics(topics...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.MetadataMinAge(50*time.Millisecond), kgo.MetadataMaxAge(200*time.Millisecond), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cl.Close)
	return &reader{w, cl}
}

// next waits for n records. A group's leader may learn of a topic's partitions a minute later (MetadataMaxAge of package hop).
func (r *reader) next(n int) []*kgo.Record {
	r.w.t.Helper()
	return r.within(n, 3*time.Minute)
}

// within is next with a limit.
func (r *reader) within(n int, limit time.Duration) []*kgo.Record {
	r.w.t.Helper()
	ctx, cancel := context.WithTimeout(r.w.t.Context(), limit)
	defer cancel()
	var got []*kgo.Record
	for len(got) < n {
		fs := r.cl.PollFetches(ctx)
		if ctx.Err() != nil {
			r.w.t.Fatalf("got %d records of %d", len(got), n)
		}
		got = append(got, fs.Records()...)
	}
	return got
}

// nothing makes sure that no record comes for a while.
func (r *reader) nothing(d time.Duration) {
	r.w.t.Helper()
	ctx, cancel := context.WithTimeout(r.w.t.Context(), d)
	defer cancel()
	for ctx.Err() == nil {
		if rs := r.cl.PollFetches(ctx).Records(); len(rs) > 0 {
			r.w.t.Fatalf("unexpected record on %s: %q", rs[0].Topic, rs[0].Value)
		}
	}
}

// until waits for a condition.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	deadline, tick := time.After(60*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			w.t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// ends is the sum of a topic's end offsets.
func (w *world) ends(topic string) (n int64) {
	w.t.Helper()
	ends, err := w.adm.ListEndOffsets(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

// lag is what Kafka's own tools show for a group.
func (w *world) lag(group, topic string) int64 {
	w.t.Helper()
	offs, err := w.adm.FetchOffsets(w.t.Context(), group)
	if err != nil {
		return -1
	}
	ends, err := w.adm.ListEndOffsets(w.t.Context(), topic)
	if err != nil {
		return -1
	}
	var n int64
	ends.Each(func(e kadm.ListedOffset) {
		at := int64(0)
		if o, ok := offs.Lookup(topic, e.Partition); ok {
			at = o.At
		}
		n += e.Offset - at
	})
	return n
}

func each(t *testing.T, rs []*kgo.Record, from, to int) {
	t.Helper()
	seen := map[string]int{}
	for _, r := range rs {
		seen[string(r.Value)]++
	}
	for i := from; i < to; i++ {
		if n := seen[fmt.Sprintf(`{"n":%d}`, i)]; n != 1 {
			t.Errorf("event %d was dispatched %d times", i, n)
		}
	}
}

func TestEveryEventIsDispatchedOnceInOrderOfItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 3})
	w.events("orders", 0, 500) // before the agent is known
	w.desire(agent("orders", "bill"))
	stop := w.start()
	tasks := w.read(w.names.Tasks("orders", "bill"))
	got := tasks.next(500)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.events("orders", 500, 1000)
	w.start()
	got = append(got, tasks.next(500)...)
	each(t, got, 0, 1000)
	last := map[string]int{}
	for _, r := range got {
		var v struct{ N int }
		if err := json.Unmarshal(r.Value, &v); err != nil {
			t.Fatal(err)
		}
		if v.N <= last[string(r.Key)] && v.N >= 7 {
			t.Errorf("key %s: %d came after %d", r.Key, v.N, last[string(r.Key)])
		}
		last[string(r.Key)] = v.N
		if r.Partition != route.Partition(r.Key, 4) || route.Header(r, task.HeaderAgent) != "orders/bill" || !strings.HasPrefix(route.Header(r, task.HeaderOrigin), "orders/") {
			t.Errorf("%+v", r)
		}
	}
	w.until("the group has no lag", func() bool { return w.lag(w.names.Group("orders", "bill"), "orders") == 0 })
	tasks.nothing(300 * time.Millisecond)
}

func TestAMarkerAtTheEndOfTheUserTopicIsNoLag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	w.desire(agent("orders", "bill"))
	w.start()
	txn, err := kgo.NewClient(kgo.SeedBrokers(w.cfg.Kafka.Brokers...), kgo.TransactionalID("app"))
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Close()
	for i, how := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := txn.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		txn.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: fmt.Appendf(nil, `{"n":%d}`, i)})
		if err := txn.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	tasks := w.read(w.names.Tasks("orders", "bill"))
	if got := tasks.next(1); string(got[0].Value) != `{"n":1}` {
		t.Errorf("an aborted event was dispatched: %q", got[0].Value)
	}
	w.until("the group has no lag", func() bool { return w.lag(w.names.Group("orders", "bill"), "orders") == 0 })
}

func TestARecordThatDoesntParseStopsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	w.desire(agent("orders", "bill"))
	w.start()
	bad := &kgo.Record{Topic: "orders", Key: []byte("k0"), Value: []byte("{"), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json")}}}
	w.produce(bad, &kgo.Record{Topic: "orders", Key: []byte("k0")})
	w.events("orders", 0, 1)
	got := w.read(w.names.Tasks("orders", "bill")).next(3)
	if class := route.Header(got[0], task.HeaderErrorClass); class != string(task.ClassInvalidInput) {
		t.Errorf("the class is %q", class)
	}
	if got[1].Value != nil {
		t.Errorf("a tombstone became %q", got[1].Value)
	}
}

func TestAPausedAgentGetsNothingAndGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 2})
	a := agent("orders", "bill")
	w.desire(a)
	w.start()
	tasks := w.read(w.names.Tasks("orders", "bill"))
	w.events("orders", 0, 20)
	each(t, tasks.next(20), 0, 20)
	a.Phase, a.Generation = spec.Paused, 2
	w.desire(a)
	w.until("the group is left", func() bool {
		d, err := w.adm.DescribeGroups(t.Context(), w.names.Group("orders", "bill"))
		return err == nil && len(d[w.names.Group("orders", "bill")].Members) == 0
	})
	w.events("orders", 20, 40)
	tasks.nothing(500 * time.Millisecond)
	a.Phase, a.Generation = spec.Active, 3
	w.desire(a)
	each(t, tasks.next(20), 20, 40)
}

// With ordering key the tasks of a key stand on one partition, also where the agent began without.
func TestAChangedOrderingCountsWithoutARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	a := agent("orders", "bill")
	tasks, reports := w.read(w.names.Tasks("orders", "bill")), w.read(w.names.Status())
	const events = 300
	spread := func(ordering string) map[int32]bool {
		t.Helper()
		a.Config.Ordering = ordering
		w.desire(a)
		for taken := false; !taken; {
			for _, r := range reports.next(1) {
				var said status.AgentReport
				taken = taken || json.Unmarshal(r.Value, &said) == nil && said.Event == status.EventAgent && said.State == status.ReportServing && said.Generation == a.Generation
			}
		}
		a.Generation++
		var rs []*kgo.Record
		for range events {
			rs = append(rs, &kgo.Record{Topic: "orders", Key: []byte("hot")})
		}
		w.produce(rs...)
		on := map[int32]bool{}
		for _, r := range tasks.next(events) {
			on[r.Partition] = true
		}
		return on
	}
	w.start()
	if on := spread(spec.OrderingNone); len(on) < 2 {
		t.Errorf("without an order all went to %v", on)
	}
	if on := spread(spec.OrderingKey); len(on) != 1 || !on[route.Partition([]byte("hot"), a.Partitions)] {
		t.Errorf("in the order of their key they went to %v", on)
	}
}

func TestATaskQueueIsKeptShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	a := agent("orders", "bill")
	w.desire(a)
	const events = 12_000
	var rs []*kgo.Record
	for i := range events {
		rs = append(rs, &kgo.Record{Topic: "orders", Key: []byte("hot"), Value: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	w.produce(rs...)
	w.start()
	tasks, work := w.names.Tasks("orders", "bill"), w.names.WorkGroup("orders", "bill")
	queued := func() int64 {
		ends, err := w.adm.ListEndOffsets(t.Context(), tasks)
		if err != nil {
			return -1
		}
		o, _ := ends.Lookup(tasks, route.Partition([]byte("hot"), 4))
		return o.Offset
	}
	w.until("the queue is filled", func() bool { return queued() >= 4096 })
	reader := w.read(tasks)
	reader.next(4096)
	reader.nothing(500 * time.Millisecond)
	got := 4096
	for got < events { // a worker settles everything, again and again
		var at kadm.Offsets
		at.AddOffset(tasks, route.Partition([]byte("hot"), 4), queued(), -1)
		if err := w.adm.CommitAllOffsets(t.Context(), work, at); err != nil {
			t.Fatal(err)
		}
		got += len(reader.next(1))
	}
	if got != events {
		t.Errorf("%d tasks of %d events", got, events)
	}
}

func retry(a *spec.Agent, value string) *kgo.Record {
	return &kgo.Record{Key: []byte("k1"), Value: []byte(value), Headers: []kgo.RecordHeader{
		{Key: task.HeaderAgent, Value: []byte(a.Ref())}, {Key: task.HeaderOrigin, Value: []byte(a.Topic + "/0/7/u")},
		{Key: task.HeaderAttempt, Value: []byte("2")}, {Key: task.HeaderEvent, Value: []byte("17 e")},
	}}
}

func TestADueRetryReturnsAfterItsDelayAlsoWhilePaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	a := agent("orders", "bill")
	w.desire(a)
	w.start()
	tasks := w.read(w.names.Tasks("orders", "bill"))
	w.events("orders", 0, 1)
	tasks.next(1)
	a.Phase = spec.Paused
	w.desire(a)
	for i, delay := range w.cfg.Kafka.RetryTiers {
		r := retry(a, fmt.Sprint(i))
		r.Topic = w.names.Retry(delay)
		start := time.Now()
		w.produce(r)
		got := tasks.next(1)[0]
		if took := time.Since(start); took < delay-5*time.Millisecond || took > delay+time.Second {
			t.Errorf("tier %s came after %s", delay, took)
		}
		if string(got.Value) != fmt.Sprint(i) || route.Header(got, task.HeaderAttempt) != "2" || got.Partition != route.Partition(got.Key, 4) {
			t.Errorf("%+v", got)
		}
	}
}

// A control topic may lack an agent that is at work: the database was restored from a backup, or is another one. What is
// discarded then is gone.
func TestARetryOfAnUnknownAgentWaitsForIt(t *testing.T) {
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	lost := agent("orders", "lost")
	w.start()
	r := retry(lost, "v")
	r.Topic = w.names.Retry(w.cfg.Kafka.RetryTiers[0])
	w.produce(r)
	w.until("it goes round", func() bool { return w.ends(r.Topic) > 3 })
	w.desire(lost)
	got := w.read(w.names.Tasks("orders", "lost")).next(1)[0]
	if string(got.Value) != "v" || route.Header(got, task.HeaderAttempt) != "2" {
		t.Errorf("%+v", got)
	}
	if n := w.ends(w.names.Outcomes()); n != 0 {
		t.Errorf("%d outcomes of a task that wasn't run", n)
	}
}

// An installation whose tiers were changed still has retries in those that it had.
func TestATierThatIsNoMoreConfiguredIsEmptied(t *testing.T) {
	w := newWorld(t)
	former := 300 * time.Millisecond
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	a := agent("orders", "bill")
	w.desire(a)
	waits := func(value string) *kgo.Record {
		r := retry(a, value)
		r.Topic = w.names.Retry(former)
		return r
	}
	stop := w.start(func(c *Config) { c.Kafka.RetryTiers = append([]time.Duration{former}, c.Kafka.RetryTiers...) })
	tasks := w.read(w.names.Tasks("orders", "bill"))
	w.produce(waits("before"))
	tasks.next(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.produce(waits("after"))
	w.start()
	if got := tasks.next(1)[0]; string(got.Value) != "after" {
		t.Errorf("%+v", got)
	}
}

func TestARetryOfADeletedAgentIsDiscarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	gone := agent("orders", "gone")
	gone.Phase, gone.CleanUp = spec.Terminated, true
	w.desire(gone)
	w.start()
	r := retry(gone, "v")
	r.Topic = w.names.Retry(w.cfg.Kafka.RetryTiers[0])
	junk := &kgo.Record{Topic: r.Topic, Key: []byte("k1"), Value: []byte("no retry at all")}
	w.produce(junk, r)
	got := w.read(w.names.Outcomes()).next(1)[0]
	if string(got.Key) != "orders/0/7" || route.Header(got, task.HeaderOutcome) != "discarded" || route.Header(got, task.HeaderFinal) != "true" || route.Header(got, task.HeaderAttempt) != "1" {
		t.Errorf("%+v", got)
	}
	w.until("nothing is left", func() bool { return w.lag(w.names.RetryGroup(w.cfg.Kafka.RetryTiers[0]), r.Topic) == 0 })
}

func TestACompleteDeletionSettlesWhatIsLeftAndLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	a := agent("orders", "bill")
	w.desire(a)
	w.start()
	w.events("orders", 0, 10)
	w.read(w.names.Tasks("orders", "bill")).next(10)
	a.Phase, a.CleanUp, a.Generation = spec.Terminated, true, 2
	w.desire(a)
	outcomes := w.read(w.names.Outcomes()).next(10)
	ids := map[string]bool{}
	for _, o := range outcomes {
		ids[string(o.Key)] = true
		if route.Header(o, task.HeaderOutcome) != "discarded" || route.Header(o, task.HeaderAttempt) != "0" {
			t.Errorf("%+v", o)
		}
	}
	if len(ids) != 10 {
		t.Errorf("%d tasks were discarded, want 10", len(ids))
	}
	w.until("topic and groups are gone", func() bool {
		ts, err := w.adm.ListTopics(t.Context(), w.names.Tasks("orders", "bill"))
		gs, err2 := w.adm.ListGroups(t.Context())
		return err == nil && err2 == nil && ts[w.names.Tasks("orders", "bill")].Err != nil && !slices.Contains(gs.Groups(), w.names.Group("orders", "bill")) && !slices.Contains(gs.Groups(), w.names.WorkGroup("orders", "bill"))
	})
}

// A deleted agent's record goes in the end, and with it the agent from all that a dispatcher tells. One that comes back is
// served.
func TestAnAgentWhoseRecordIsGoneIsToldOfNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1}, kafka.StatusTopic(w.names))
	a, gone := agent("orders", "bill"), agent("orders", "old")
	w.desire(a)
	w.desire(gone)
	w.start()
	w.events("orders", 0, 5)
	w.read(w.names.Tasks("orders", "bill")).next(5)
	w.read(w.names.Tasks("orders", "old")).next(5)
	tombstone := func(a *spec.Agent) *kgo.Record { return &kgo.Record{Topic: w.names.Control(), Key: []byte(a.Key())} }
	gone.Phase, gone.Generation = spec.Terminated, 2
	w.desire(gone)
	w.produce(tombstone(gone))
	states := w.read(w.names.Status())
	heartbeats := func(what string, is func(refs []string) bool) {
		t.Helper()
		for began := time.Now(); ; {
			for _, r := range states.next(1) {
				var n status.Node
				if json.Unmarshal(r.Value, &n) != nil || n.Event != status.EventNode {
					continue
				}
				var refs []string
				for _, r := range n.Agents {
					refs = append(refs, r.AgentName+" "+r.State)
				}
				if is(refs) {
					return
				}
				if time.Since(began) > time.Minute {
					t.Fatalf("waited in vain for %s: %v", what, refs)
				}
			}
		}
	}
	heartbeats("both", func(refs []string) bool { return len(refs) == 2 })
	heartbeats("one to be told of no more", func(refs []string) bool { return len(refs) == 1 && refs[0] == "bill serving" })
	a.Phase, a.Generation = spec.Terminated, 2
	w.desire(a)
	w.produce(tombstone(a))
	a.Phase, a.Generation = spec.Active, 3
	w.desire(a)
	w.events("orders", 5, 10)
	each(t, w.read(w.names.Tasks("orders", "bill")).next(10), 0, 10)
}

func TestAMissingTopicIsReportedAndFoundOnceItIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.desire(agent("later", "a"))
	w.start()
	reports := w.read(w.names.Status())
	for missing := false; !missing; {
		for _, r := range reports.next(1) {
			var a status.AgentReport
			if json.Unmarshal(r.Value, &a) == nil && a.Event == status.EventAgent && a.TopicMissing {
				missing = true
			}
		}
	}
	w.create(kafka.Topic{Name: "later", Partitions: 1})
	w.events("later", 0, 3)
	each(t, w.read(w.names.Tasks("later", "a")).next(3), 0, 3)
}

func TestTopicsAreMadeWhereThatIsAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.desire(agent("made", "a"))
	w.start(func(c *Config) { c.CreateTopics = true })
	w.until("the topic exists", func() bool {
		ts, err := w.adm.ListTopics(t.Context(), "made")
		return err == nil && ts["made"].Err == nil
	})
	w.events("made", 0, 3)
	each(t, w.read(w.names.Tasks("made", "a")).next(3), 0, 3)
}

func TestATopicThatIsMadeAgainStartsAtItsBeginning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	w.desire(agent("orders", "bill"))
	w.start()
	tasks := w.read(w.names.Tasks("orders", "bill"))
	w.events("orders", 0, 5)
	each(t, tasks.next(5), 0, 5)
	if _, err := w.adm.DeleteTopic(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	w.cl.PurgeTopicsFromClient("orders")
	w.events("orders", 5, 15)
	each(t, tasks.next(10), 5, 15)
}

func TestWhatRetentionTookIsReportedExactly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	a := agent("orders", "bill")
	w.desire(a)
	stop := w.start()
	tasks := w.read(w.names.Tasks("orders", "bill"))
	w.events("orders", 0, 10)
	tasks.next(10)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.events("orders", 10, 30)
	if err := kafka.Trim(t.Context(), w.cl, map[string]map[int32]int64{"orders": {0: 25}}); err != nil {
		t.Fatal(err)
	}
	reports := w.read(w.names.Status())
	w.start()
	each(t, tasks.next(5), 25, 30)
	for told := false; !told; {
		for _, r := range reports.next(1) {
			var alert status.Alert
			if json.Unmarshal(r.Value, &alert) == nil && alert.Kind == "records_lost" {
				told = true
				if !strings.Contains(alert.Message, "15 records of orders, partition 0, offsets 10 to 24") {
					t.Errorf("%+v", alert)
				}
			}
		}
	}
}

func TestAddedPartitionsAreReadFromTheirStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	w.desire(agent("orders", "bill"))
	w.start()
	tasks := w.read(w.names.Tasks("orders", "bill"))
	w.events("orders", 0, 5)
	tasks.next(5)
	if _, err := w.adm.UpdatePartitions(t.Context(), 6, "orders"); err != nil {
		t.Fatal(err)
	}
	w.cl.PurgeTopicsFromClient("orders")
	w.events("orders", 5, 50)
	each(t, tasks.next(45), 5, 50)
}

func TestTwoDispatchersShareTheWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 4})
	w.desire(agent("orders", "bill"))
	w.start()
	second := w.start(func(c *Config) { c.Node = "n2" })
	tasks := w.read(w.names.Tasks("orders", "bill"))
	w.events("orders", 0, 300)
	got := tasks.next(300)
	if err := second(); err != nil {
		t.Fatal(err)
	}
	w.events("orders", 300, 600)
	got = append(got, tasks.next(300)...)
	each(t, got, 0, 600)
	tasks.nothing(300 * time.Millisecond)
}

func TestANewerProcessOfTheSameNameWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	w.desire(agent("orders", "bill"))
	a, err := New(Config{Config: w.cfg})
	if err != nil {
		t.Fatal(err)
	}
	older := make(chan error, 1)
	go func() { older <- a.Run(t.Context()) }()
	<-a.Ready()
	w.events("orders", 0, 1)
	tasks := w.read(w.names.Tasks("orders", "bill"))
	tasks.next(1)
	w.start()
	select {
	case err := <-older:
		if err == nil || !strings.Contains(err.Error(), "node name n1") || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("the older one ended with %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the older one goes on")
	}
	w.events("orders", 1, 2)
	each(t, tasks.next(1), 1, 2)
}

func TestHeartbeatsTellLagAndUnsettledTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 2})
	w.desire(agent("orders", "bill"))
	w.start()
	w.events("orders", 0, 10)
	beats := w.read(w.names.Status())
	last := ""
	for seen := 0; seen < 5; {
		for _, r := range beats.next(1) {
			var n status.Node
			if json.Unmarshal(r.Value, &n) != nil || n.Event != status.EventNode || len(n.Agents) != 1 {
				continue
			}
			seen++
			a := n.Agents[0]
			last = string(r.Value)
			if a.State == status.ReportServing && a.Partitions == 2 && a.Lag != nil && *a.Lag == 0 && a.Unsettled != nil && *a.Unsettled >= 10 && n.PID == os.Getpid() {
				return
			}
		}
	}
	t.Errorf("the figures don't come: %s", last)
}

func TestHTTPTellsReadiness(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, err := httpx.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String() // free once the listener is closed
	l.Close()
	w.start(func(c *Config) { c.HTTPAddr = addr })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, says := range map[string]string{"/livez": "ok", "/readyz": "ok", "/metrics": "go_goroutines"} {
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), says) {
			t.Errorf("%s: %d %.80s", path, resp.StatusCode, body)
		}
	}
}
