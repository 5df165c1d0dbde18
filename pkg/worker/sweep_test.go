package worker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

// childVariable tells the test binary to be a worker process; its value is the node's name.
const childVariable = "REEVE_TEST_WORKER"

// workerProcess is what a killed child runs: an engine whose tasks take 0 to 20 ms and note their start in a file.
func workerProcess(node string) error {
	names := topics.Names{Prefix: os.Getenv("REEVE_TEST_PREFIX")}
	opts := []kgo.Opt{kgo.SeedBrokers(strings.Split(os.Getenv("REEVE_TEST_SEEDS"), ",")...)}
	starts, err := os.OpenFile(os.Getenv("REEVE_TEST_STARTS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	pool, err := hop.NewPool(ctx, hop.PoolConfig{Opts: opts, Names: names, Service: "test", Node: node, Size: 2, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	defer pool.Close()
	run := &dated{}
	run.FuncRunner = worker.NewFuncRunner(64, func(_ context.Context, a *worker.Attempt) worker.Result {
		line := fmt.Sprintf("%s %d %d %d %s\n", a.Record.Value, a.Number, time.Now().UnixNano(), run.allowed(a), node)
		if _, err := starts.WriteString(line); err != nil {
			panic(err)
		}
		<-time.After(time.Duration(rand.N(20_000)) * time.Microsecond)
		if string(a.Record.Value) == os.Getenv("REEVE_TEST_POISON") {
			os.Exit(3)
		}
		if os.Getenv("REEVE_TEST_STRICT") != "" {
			return moody(a)
		}
		return worker.Result{Outcome: task.Completed, Value: []byte("1")}
	})
	e := worker.New(worker.Config{Pool: pool, Opts: opts, Names: names, Spec: sweepSpec(), Service: "test", Node: node, Runner: run, Tiers: tiers, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err := e.Start(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case err = <-e.Failed():
	}
	stop, cancel2 := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel2()
	e.Stop(stop)
	run.Close()
	return err
}

// dated knows of each attempt since when it may have been allowed to begin: the engine asks for slots, looks whether it has
// the lease, and hands the attempts over, in this order.
type dated struct {
	*worker.FuncRunner
	asked   int64    // Unix nanoseconds; the engine calls from one goroutine at a time
	started sync.Map // *worker.Attempt → asked
}

func (d *dated) Slots() int {
	d.asked = time.Now().UnixNano()
	return d.FuncRunner.Slots()
}

func (d *dated) Run(batch []*worker.Attempt) {
	for _, a := range batch {
		d.started.Store(a, d.asked)
	}
	d.FuncRunner.Run(batch)
}

func (d *dated) allowed(a *worker.Attempt) any {
	asked, _ := d.started.LoadAndDelete(a)
	return asked
}

func sweepSpec() *spec.Agent {
	a := &spec.Agent{Topic: "orders", Name: "biller", Version: "1", Runtime: spec.SDK, Partitions: 8, Config: spec.NewConfig(spec.SDK), Process: spec.NewProcess(), Phase: spec.Active}
	if os.Getenv("REEVE_TEST_POISON") != "" {
		a.Config.MaxRetries = 0
	}
	if os.Getenv("REEVE_TEST_STRICT") != "" {
		a.Config.Ordering, a.Config.RetryDelays = spec.OrderingStrict, []string{"10ms", "30ms"}
	}
	return a
}

// sweep is a running experiment.
type sweep struct {
	t      *testing.T
	seeds  string
	names  topics.Names
	starts string
	keys   int
	cl     *kgo.Client
	stops  []standstill

	mu       sync.Mutex
	seen     map[string][]time.Time // when each task's outcome became visible
	headers  map[string]map[string]string
	last     time.Time
	read     map[int32]int64 // the next outcome of each partition
	children []*exec.Cmd
}

// standstill is a time at which a node's process was stopped for certain.
type standstill struct {
	node string
	at   int64 // Unix nanoseconds
}

func newSweep(t *testing.T) *sweep {
	t.Helper()
	s := &sweep{t: t, keys: 1000, names: topics.Names{Prefix: fmt.Sprintf("sweep%d", time.Now().UnixNano()%1e9)}, starts: filepath.Join(t.TempDir(), "starts"), seen: map[string][]time.Time{}, headers: map[string]map[string]string{}, read: map[int32]int64{}}
	if s.seeds = os.Getenv("REEVE_TEST_KAFKA_BROKERS"); s.seeds == "" {
		s.seeds = strings.Join(newBroker(t), ",")
	}
	var err error
	if s.cl, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(s.seeds, ",")...), kgo.ConsumeTopics(s.names.Outcomes()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(time.Second)); err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(s.cl)
	made := []string{s.names.Tasks("orders", "biller"), s.names.Outcomes(), s.names.Retry(tiers[0]), s.names.Retry(tiers[1])}
	answer, err := adm.CreateTopics(t.Context(), 8, 1, nil, made...)
	if err == nil {
		err = answer.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.watch(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if _, err := adm.DeleteTopics(context.Background(), append(made, s.names.DLQ("orders", "biller"))...); err != nil {
			t.Log(err)
		}
		s.cl.Close()
	})
	return s
}

func (s *sweep) watch(ctx context.Context) {
	for ctx.Err() == nil {
		fs := s.cl.PollFetches(ctx)
		now := time.Now()
		s.mu.Lock()
		fs.EachRecord(func(r *kgo.Record) {
			if h := header(r); h[task.HeaderFinal] == "true" {
				s.headers[string(r.Key)] = h
				s.seen[string(r.Key)] = append(s.seen[string(r.Key)], now)
			}
			s.last, s.read[r.Partition] = now, r.Offset+1
		})
		s.mu.Unlock()
	}
}

func (s *sweep) finished() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

func (s *sweep) publish(n int) { s.publishFrom(0, n) }

func (s *sweep) publishFrom(from, n int) {
	s.t.Helper()
	// A broker may show its topics a moment after the controller has made them.
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(s.seeds, ",")...), kgo.DefaultProduceTopic(s.names.Tasks("orders", "biller")),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.UnknownTopicRetries(600))
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	var rs []*kgo.Record
	for i := from; i < from+n; i++ {
		o := task.Origin{Topic: "orders", Partition: 0, Offset: int64(i)}
		rs = append(rs, &kgo.Record{Key: []byte(strconv.Itoa(i % s.keys)), Value: []byte(o.ID()), Headers: []kgo.RecordHeader{{Key: task.HeaderOrigin, Value: o.AppendHeader(nil)}}})
	}
	if err := cl.ProduceSync(s.t.Context(), rs...).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sweep) start(node string) *exec.Cmd {
	s.t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childVariable+"="+node, "REEVE_TEST_SEEDS="+s.seeds, "REEVE_TEST_PREFIX="+s.names.Prefix, "REEVE_TEST_STARTS="+s.starts)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.children = append(s.children, c)
	s.mu.Unlock()
	return c
}

// patience is for thousands of tasks, on a broker and a machine that others keep busy.
const patience = 4 * time.Minute

// await waits until n tasks are finished.
func (s *sweep) await(n int, limit time.Duration) {
	s.t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.finished() < n {
		select {
		case <-tick.C:
		case <-deadline.C:
			s.t.Fatalf("%d of %d tasks are finished after %v\n%s", s.finished(), n, limit, s.standing())
		}
	}
}

// standing says where the task topic, its group and the outcomes stand.
func (s *sweep) standing() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	adm, group := kadm.NewClient(s.cl), s.names.WorkGroup("orders", "biller")
	ends, err1 := adm.ListEndOffsets(ctx, s.names.Tasks("orders", "biller"), s.names.Outcomes())
	stable, err2 := adm.ListCommittedOffsets(ctx, s.names.Tasks("orders", "biller"), s.names.Outcomes())
	at, err3 := adm.FetchOffsets(ctx, group)
	members, err4 := adm.DescribeGroups(ctx, group)
	producers, err5 := adm.DescribeProducers(ctx, kadm.TopicsSet{s.names.Outcomes(): {0: {}, 1: {}, 2: {}, 3: {}, 4: {}, 5: {}, 6: {}, 7: {}}})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.children { // with their stacks
		_ = c.Process.Signal(syscall.SIGQUIT)
		_ = c.Wait()
	}
	return fmt.Sprintf("ends: %+v\nstable: %+v\ncommitted: %+v\ngroup: %+v\nproducers: %+v\nread: %v\n%v", ends, stable, at, members[group], producers, s.read, errors.Join(err1, err2, err3, err4, err5))
}

// verify checks the guarantees against what was seen.
func (s *sweep) verify(n int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	lost, twice := 0, 0
	for i := range n {
		switch len(s.seen[fmt.Sprintf("orders/0/%d", i)]) {
		case 0:
			lost++
		case 1:
		default:
			twice++
		}
	}
	f, err := os.Open(s.starts)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	starts, again, overtaken, extra := 0, 0, 0, map[string]int{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		parts := strings.Fields(sc.Text())
		begun, allowed := s.number(parts[2]), s.number(parts[3])
		starts++
		extra[parts[0]]++
		switch seen := s.seen[parts[0]]; {
		case len(seen) == 0 || begun <= seen[0].UnixNano():
		case slices.ContainsFunc(s.stops, func(x standstill) bool { return x.node == parts[4] && allowed < x.at && x.at < begun }):
			overtaken++
		default:
			again++
		}
	}
	s.t.Logf("%d tasks, %d attempts started, %d of them repeats: %d lost, %d finished twice, %d run again after their outcome was visible, %d stopped between their start and their first line",
		n, starts, starts-len(extra), lost, twice, again, overtaken)
	if lost+twice+again > 0 {
		s.t.Fail()
	}
}

func (s *sweep) number(text string) int64 {
	s.t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func rounds(standard int) int {
	if n, err := strconv.Atoi(os.Getenv("ROUNDS")); err == nil {
		return n
	}
	return standard
}

// A worker that is killed and started again, over and over, loses nothing, finishes nothing twice and resumes at once.
func TestSweepKill(t *testing.T) {
	t.Parallel()
	s := newSweep(t)
	kills := rounds(4)
	n := (kills + 1) * 1500
	s.publish(n)
	c := s.start("a")
	var pauses []time.Duration
	for i := range kills {
		s.await((i+1)*1200, patience)
		killed := time.Now()
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // it was killed
		c = s.start("a")
		pauses = append(pauses, s.resumed(killed))
	}
	s.await(n, patience)
	stop(t, c)
	slices.Sort(pauses)
	t.Logf("resumed after %v (p50), %v at most", pauses[len(pauses)/2], pauses[len(pauses)-1])
	s.verify(n)
}

// resumed waits for the first outcome after a time.
func (s *sweep) resumed(since time.Time) time.Duration {
	s.t.Helper()
	since = since.Add(20 * time.Millisecond) // what was committed before the kill arrives until then
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		s.mu.Lock()
		last := s.last
		s.mu.Unlock()
		if last.After(since) {
			return last.Sub(since)
		}
		if time.Since(since) > patience {
			s.t.Fatalf("nothing was settled for %v after a kill\n%s", patience, s.standing())
		}
	}
	return 0
}

// A worker that is stopped for longer than its session, while another takes over, settles nothing when it wakes up, and
// starts nothing either. What it had been told to start when it was stopped goes on like all that runs: between the look at
// the lease and an attempt's first line there is always a moment, and a process may be stopped in it.
func TestSweepZombie(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 30 s")
	}
	t.Parallel()
	s := newSweep(t)
	const n = 8000 // for each round, so that there is work left
	a, b := s.start("a"), s.start("b")
	for i, c := range []*exec.Cmd{a, b} {
		s.publishFrom(i*n, n)
		s.await(i*n+2000, patience)
		s.standstill(string("ab"[i]), c, 12*time.Second)
	}
	s.await(2*n, patience)
	stop(t, a)
	stop(t, b)
	s.verify(2 * n)
}

// standstill stops a node's process for a while.
func (s *sweep) standstill(node string, c *exec.Cmd, d time.Duration) {
	s.t.Helper()
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	var status syscall.WaitStatus
	_, err := syscall.Wait4(c.Process.Pid, &status, syscall.WUNTRACED, nil)
	for errors.Is(err, syscall.EINTR) {
		_, err = syscall.Wait4(c.Process.Pid, &status, syscall.WUNTRACED, nil)
	}
	if err != nil || !status.Stopped() {
		s.t.Fatalf("wait until %s stands still: %v, state %#x", node, err, status)
	}
	stopped := time.Now()
	s.stops = append(s.stops, standstill{node, stopped.UnixNano()})
	<-time.After(d)
	if err := c.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("%s stood still for %v, %d finished", node, time.Since(stopped), s.finished())
}

// A worker that is killed for good is replaced within its session and a little.
func TestSweepTakeover(t *testing.T) {
	t.Parallel()
	s := newSweep(t)
	const n = 8000
	s.publish(n)
	a, b := s.start("a"), s.start("b")
	s.await(1500, patience)
	if err := a.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	_ = a.Wait() // it was killed
	s.await(n, patience)
	t.Logf("everything was finished %v after the kill", time.Since(killed))
	stop(t, b)
	s.verify(n)
}

func stop(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("worker process: %v", err)
	}
}
