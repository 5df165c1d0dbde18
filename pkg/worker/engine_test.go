package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

func TestMain(m *testing.M) {
	if node := os.Getenv(childVariable); node != "" {
		if err := workerProcess(node); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func newBroker(t testing.TB) (seeds []string) {
	t.Helper()
	return newCluster(t).ListenAddrs()
}

// bubble runs a test in time of its own, which passes when everybody waits: how busy the machine is plays no part in it.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

func newCluster(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "300"}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

var tiers = []time.Duration{10 * time.Millisecond, 5 * time.Second}

// stand is a broker with an agent's topics.
type stand struct {
	t       testing.TB
	cluster *kfake.Cluster
	network *kfake.VirtualNetwork // in this process, so that a bubble's time passes
	seeds   []string
	names   topics.Names
	spec    *spec.Agent
	cl      *kgo.Client
	adm     *kadm.Client
}

func newStand(t testing.TB) *stand {
	t.Helper()
	network := &kfake.VirtualNetwork{}
	c := newCluster(t, kfake.Ports(9092), kfake.ListenFn(network.Listen))
	s := &stand{t: t, cluster: c, network: network, seeds: c.ListenAddrs(), spec: &spec.Agent{Topic: "orders", Name: "biller", Version: "1.0.0", Runtime: spec.SDK, Partitions: 2,
		Config: spec.NewConfig(spec.SDK), Process: spec.NewProcess(), Phase: spec.Active}}
	s.spec.Config.RetryDelays = []string{"10ms"}
	var err error
	s.cl, err = kgo.NewClient(append(s.opts(), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cl.Close)
	s.adm = kadm.NewClient(s.cl)
	s.create(s.names.Tasks("orders", "biller"), 2)
	s.create(s.names.Outcomes(), 2)
	s.create(s.names.Retry(tiers[0]), 1)
	s.create(s.names.Retry(tiers[1]), 1)
	return s
}

func (s *stand) create(topic string, partitions int32) {
	s.t.Helper()
	if _, err := s.adm.CreateTopic(s.t.Context(), partitions, 1, nil, topic); err != nil {
		s.t.Fatal(err)
	}
}

// publish puts n tasks on the task topic, as a dispatcher would. Key k of k0…k9 lives on partition k mod 2.
func (s *stand) publish(from, n int, headers ...kgo.RecordHeader) {
	s.t.Helper()
	rs := make([]*kgo.Record, 0, n)
	for i := from; i < from+n; i++ {
		origin := task.Origin{Topic: "orders", Partition: int32(i % 2), Offset: int64(i)}
		rs = append(rs, &kgo.Record{Topic: s.names.Tasks("orders", "biller"), Partition: int32(i % 2), Key: []byte("k" + strconv.Itoa(i%10)), Value: []byte(strconv.Itoa(i)),
			Headers: append([]kgo.RecordHeader{{Key: task.HeaderOrigin, Value: origin.AppendHeader(nil)}, {Key: task.HeaderEvent, Value: fmt.Appendf(nil, "1700000000000 event-%d", i)}}, headers...)})
	}
	if err := s.cl.ProduceSync(s.t.Context(), rs...).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

// engine starts one; stop ends it as SIGTERM would.
func (s *stand) engine(node string, r worker.Runner, change ...func(*worker.Config)) (e *worker.Engine, stop func()) {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{s.t}, nil))
	pool, err := hop.NewPool(s.t.Context(), hop.PoolConfig{Opts: s.opts(), Names: s.names, Service: "test", Node: node, Size: 2, Logger: log})
	if err != nil {
		s.t.Fatal(err)
	}
	cfg := worker.Config{Pool: pool, Opts: s.opts(), Names: s.names, Spec: s.spec, Service: "test", Node: node, Runner: r, Tiers: tiers, Logger: log, Session: time.Second}
	for _, c := range change {
		c(&cfg)
	}
	e = worker.New(cfg)
	if err := e.Start(); err != nil {
		s.t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			e.Stop(ctx)
			pool.Close()
		})
	}
	s.t.Cleanup(stop)
	return e, stop
}

func (s *stand) opts() []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(s.seeds...), kgo.Dialer(s.network.DialContext)}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// outcome is what a test looks at.
type outcome struct {
	origin, outcome, settled, final string
	attempt                         int
	value                           string
}

// read reads a topic, read_committed, until enough says so.
func (s *stand) read(topic string, enough func([]*kgo.Record) bool) []*kgo.Record {
	s.t.Helper()
	return s.readWithin(topic, 30*time.Second, enough)
}

func (s *stand) readWithin(topic string, limit time.Duration, enough func([]*kgo.Record) bool) []*kgo.Record {
	s.t.Helper()
	cl, err := kgo.NewClient(append(s.opts(), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	var all []*kgo.Record
	for !enough(all) {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			s.t.Fatalf("%s: %d records, not enough", topic, len(all))
		}
		all = append(all, fs.Records()...)
	}
	return all
}

func (s *stand) outcomes(n int) []outcome {
	s.t.Helper()
	var os []outcome
	for _, r := range s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= n }) {
		h := header(r)
		attempt, _ := strconv.Atoi(h[task.HeaderAttempt])
		os = append(os, outcome{string(r.Key), h[task.HeaderOutcome], h[task.HeaderSettled], h[task.HeaderFinal], attempt, string(r.Value)})
	}
	return os
}

func header(r *kgo.Record) map[string]string {
	m := map[string]string{}
	for _, h := range r.Headers {
		m[h.Key] = string(h.Value)
	}
	return m
}

func ok(context.Context, *worker.Attempt) worker.Result {
	return worker.Result{Outcome: task.Completed, Value: []byte(`"ok"`)}
}

func runner(t testing.TB, concurrency int, f func(context.Context, *worker.Attempt) worker.Result) *worker.FuncRunner {
	r := worker.NewFuncRunner(concurrency, f)
	t.Cleanup(r.Close)
	return r
}

func TestEveryTaskIsSettledOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.publish(0, 5000)
		s.engine("a", runner(t, 16, ok))
		got := map[string]int{}
		for _, o := range s.outcomes(5000) {
			got[o.origin]++
			if o.outcome != "completed" || o.final != "true" || o.attempt != 1 || o.value != `"ok"` {
				t.Fatalf("%+v", o)
			}
		}
		if len(got) != 5000 {
			t.Errorf("%d tasks have outcomes", len(got))
		}
	})
}

// A task's later attempts follow its earlier ones, whatever partition of the task topic they come from.
func TestAnAgentsOutcomesStandOnOnePartition(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.publish(0, 100)
		s.engine("a", runner(t, 16, ok))
		rs := s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= 100 })
		for _, r := range rs {
			if r.Partition != rs[0].Partition {
				t.Fatalf("outcomes on partitions %d and %d", r.Partition, rs[0].Partition)
			}
		}
	})
}

// Tasks of one key start in order and never overlap, others run side by side.
func TestOrderByKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		var mu sync.Mutex
		busy, order, most := map[string]bool{}, map[string][]int{}, 0
		s.publish(0, 500)
		s.engine("a", runner(t, 16, func(_ context.Context, a *worker.Attempt) worker.Result {
			k := string(a.Record.Key)
			n, _ := strconv.Atoi(string(a.Record.Value))
			mu.Lock()
			if busy[k] {
				t.Errorf("two tasks of %s at once", k)
			}
			busy[k] = true
			most = max(most, len(busy))
			order[k] = append(order[k], n)
			mu.Unlock()
			<-time.After(time.Millisecond)
			mu.Lock()
			delete(busy, k)
			mu.Unlock()
			return ok(context.Background(), a)
		}))
		s.outcomes(500)
		mu.Lock()
		defer mu.Unlock()
		for k, ns := range order {
			if !slices.IsSorted(ns) || len(ns) != 50 {
				t.Errorf("%s ran %v", k, ns)
			}
		}
		if most < 2 {
			t.Error("keys never ran side by side")
		}
	})
}

func TestFailuresGoWhereTheirClassSays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.MaxRetries = 1
		s.publish(0, 3, kgo.RecordHeader{Key: "user", Value: []byte("kept")})
		results := map[string]worker.Result{
			"0": {Outcome: task.Failed, Class: task.ClassInvalidInput, Message: "no such order 4711"},
			"1": {Outcome: task.Failed, Class: task.ClassNetwork, Message: "connection reset"},
			"2": {Outcome: task.TimedOut, Class: task.ClassTimeout, Message: "took too long"},
		}
		s.engine("a", runner(t, 4, func(_ context.Context, a *worker.Attempt) worker.Result { return results[string(a.Record.Value)] }))
		settled := map[string]string{}
		for _, o := range s.outcomes(3) {
			settled[o.origin] = o.settled + " " + o.final
		}
		if want := map[string]string{"orders/0/0": "dlq true", "orders/1/1": "retry false", "orders/0/2": "retry false"}; !maps.Equal(settled, want) {
			t.Errorf("settled %v, want %v", settled, want)
		}
		dead := s.read(s.names.DLQ("orders", "biller"), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
		h := header(dead)
		if string(dead.Value) != "0" || string(dead.Key) != "k0" || h["user"] != "kept" || h[task.HeaderErrorClass] != "invalid_input" || h[task.HeaderAttempts] != "1" || h[task.HeaderErrorFingerprint] == "" {
			t.Errorf("dead letter %s %v", dead.Value, h)
		}
		for _, r := range s.read(s.names.Retry(tiers[0]), func(rs []*kgo.Record) bool { return len(rs) == 2 }) {
			h := header(r)
			if h[task.HeaderAttempt] != "2" || h[task.HeaderBurnt] != "1" || h["user"] != "kept" {
				t.Errorf("retry %v", h)
			}
			if timeouts := h[task.HeaderTimeouts]; (timeouts == "1") != (string(r.Value) == "2") {
				t.Errorf("task %s: timeouts %q", r.Value, timeouts)
			}
		}
	})
}

// A task that the dispatcher found unfit is dead-lettered without being run.
func TestRejectedTaskNeverRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.publish(0, 1, kgo.RecordHeader{Key: task.HeaderErrorClass, Value: []byte("invalid_input")}, kgo.RecordHeader{Key: task.HeaderErrorMessage, Value: []byte("no JSON")})
		s.engine("a", runner(t, 1, func(context.Context, *worker.Attempt) worker.Result {
			t.Error("it ran")
			return worker.Result{}
		}))
		if o := s.outcomes(1)[0]; o.outcome != "rejected" || o.settled != "dlq" || o.attempt != 0 {
			t.Errorf("%+v", o)
		}
	})
}

// A restart with the same node name goes on where the last one stopped, and a partition's markers are committed past.
func TestRestartRepeatsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		ran := sync.Map{}
		count := func(_ context.Context, a *worker.Attempt) worker.Result {
			n, _ := ran.LoadOrStore(string(a.Record.Value), 0)
			ran.Store(string(a.Record.Value), n.(int)+1)
			return ok(context.Background(), a)
		}
		for i := range 5 {
			s.publish(i*200, 200)
			_, stop := s.engine("a", runner(t, 4, count))
			s.outcomes(i*200 + 50)
			stop()
		}
		s.engine("b", runner(t, 4, count)) // another node: the first one is gone from the group after its session
		s.outcomes(1000)
		n := 0
		ran.Range(func(k, v any) bool {
			n++
			if v != 1 {
				t.Errorf("task %v ran %v times", k, v)
			}
			return true
		})
		if n != 1000 {
			t.Errorf("%d tasks ran", n)
		}
		s.awaitLag(0)
	})
}

func (s *stand) awaitLag(want int64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		lags, err := s.adm.Lag(ctx, s.names.WorkGroup("orders", "biller"))
		if err != nil {
			s.t.Fatal(err)
		}
		if got := lags[s.names.WorkGroup("orders", "biller")].Lag.Total(); got == want {
			return
		} else if ctx.Err() != nil {
			s.t.Fatalf("lag %d", got)
		}
		<-tick.C
	}
}

// Two workers share the partitions; scaling out and in loses and repeats nothing.
func TestRebalanceRepeatsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		var mu sync.Mutex
		ran := map[string]int{}
		slow := func(_ context.Context, a *worker.Attempt) worker.Result {
			mu.Lock()
			ran[string(a.Record.Value)]++
			mu.Unlock()
			<-time.After(2 * time.Millisecond)
			return ok(context.Background(), a)
		}
		s.publish(0, 2000)
		s.engine("a", runner(t, 4, slow))
		s.outcomes(100)
		b, _ := s.engine("b", runner(t, 4, slow))
		s.outcomes(1000)
		if err := b.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		s.outcomes(2000)
		mu.Lock()
		defer mu.Unlock()
		for k, n := range ran {
			if n != 1 {
				t.Errorf("task %s ran %d times", k, n)
			}
		}
	})
}

// A neighbour's crash burns no retry: each of the tasks that shared the process runs again alone, and only the culprit
// is punished.
func TestCrashIsIsolated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.MaxRetries = 0
		s.publish(0, 40)
		p := newSharedProcess(8, "7")
		s.engine("a", p)
		dead := 0
		for _, o := range s.outcomes(40) {
			if o.outcome == "crashed" {
				dead++
				if o.origin != "orders/1/7" || o.settled != "dlq" {
					t.Errorf("%+v", o)
				}
			} else if o.outcome != "completed" {
				t.Errorf("%+v", o)
			}
		}
		if dead != 1 {
			t.Errorf("%d crashed", dead)
		}
	})
}

// sharedProcess stands in for a process that runs several attempts and dies when it meets its poison.
type sharedProcess struct {
	mu       sync.Mutex
	size     int
	poison   string
	inFlight []*worker.Attempt
	patient  bool  // gives an attempt that has to be alone its turn when the others have ended
	deaths   []int // attempts in flight at each death
}

func newSharedProcess(size int, poison string) *sharedProcess {
	return &sharedProcess{size: size, poison: poison}
}

func (p *sharedProcess) Slots() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size - len(p.inFlight)
}

func (p *sharedProcess) Run(batch []*worker.Attempt) {
	p.mu.Lock()
	if alone := slices.IndexFunc(batch, func(a *worker.Attempt) bool { return a.Alone }); p.patient && alone >= 0 && len(batch) > 1 {
		p.mu.Unlock()
		p.Run(batch[alone : alone+1])
		p.Run(slices.Delete(slices.Clone(batch), alone, alone+1))
		return
	}
	p.inFlight = append(p.inFlight, batch...)
	if len(p.inFlight) > 1 && slices.ContainsFunc(p.inFlight, func(a *worker.Attempt) bool { return a.Alone }) {
		panic("an attempt that has to be alone has company")
	}
	full := p.inFlight
	p.inFlight = nil
	p.mu.Unlock()
	crash := slices.ContainsFunc(full, func(a *worker.Attempt) bool { return string(a.Record.Value) == p.poison })
	if crash {
		p.mu.Lock()
		p.deaths = append(p.deaths, len(full))
		p.mu.Unlock()
	}
	for _, a := range full {
		if crash {
			a.Finish(worker.Result{Outcome: task.Crashed, Class: task.ClassCrash, Message: "exit status 3", Shared: len(full) > 1})
		} else {
			a.Finish(ok(context.Background(), a))
		}
	}
}

func (p *sharedProcess) Cancel(*worker.Attempt) {}
