package pool

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/proc"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/stdio/adapter"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
	"github.com/reeve-run/reeve/services/supervisor/internal/launch"
	"github.com/reeve-run/reeve/services/supervisor/internal/process"
)

func TestMain(m *testing.M) {
	if os.Getenv("POOL_TEST_NOOP") != "" {
		noop()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// fixture is a pool of real processes, and all that they told.
type fixture struct {
	t    testing.TB
	pool *Pool
	mark proc.Mark

	mu      sync.Mutex
	changes []string // <instance> <state>
	causes  []spec.Cause
	checks  []instance.Check
	lines   []string
	told    *sync.Cond
}

func (f *fixture) Changed(_ *spec.Agent, id string, c instance.Change) {
	f.note(func() {
		f.changes = append(f.changes, id+" "+string(c.To))
		if c.Cause != nil {
			f.causes = append(f.causes, *c.Cause)
		}
	})
}

func (f *fixture) Checked(_ *spec.Agent, _ string, c instance.Check) {
	f.note(func() { f.checks = append(f.checks, c) })
}

func (f *fixture) Output(_ *spec.Agent, _, line string, _ int) {
	f.note(func() { f.lines = append(f.lines, line) })
}

// seen are the changes so far.
func (f *fixture) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.changes...)
}

func (f *fixture) note(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.told.Broadcast()
}

// await waits until ok, which is asked whenever something was told.
func (f *fixture) await(what string, ok func() bool) {
	f.t.Helper()
	late := false
	timer := time.AfterFunc(time.Minute, func() { f.note(func() { late = true }) })
	defer timer.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !ok() {
		if late {
			f.t.Fatalf("waited for %s in vain: %v; log %.2000q", what, f.changes, f.lines)
		}
		f.told.Wait()
	}
}

func (f *fixture) awaitChange(change string) {
	f.t.Helper()
	f.await(change, func() bool {
		for _, c := range f.changes {
			if c == change {
				return true
			}
		}
		return false
	})
}

func (f *fixture) awaitLine(part string) {
	f.t.Helper()
	f.await("the line "+part, func() bool { return strings.Contains(strings.Join(f.lines, "\n"), part) })
}

// agent is a spec for the tests: short times.
func agent(change func(*spec.Agent)) *spec.Agent {
	a := &spec.Agent{Topic: "t", Name: "a", Runtime: spec.Python, Callback: "agent:handle", Config: spec.NewConfig(spec.Python),
		Process: spec.NewProcess(), Pool: spec.Pool{Min: 1, Max: 1}, Partitions: 8, Phase: spec.Active}
	a.Process.DrainTimeout, a.Process.GracefulTimeoutSec, a.Process.SigtermTimeoutSec = 0.3, 1, 0.3
	a.Process.RestartBackoffSeconds = 0.05
	if change != nil {
		change(a)
	}
	return a
}

func start(t testing.TB, a *spec.Agent, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t}
	f.told = sync.NewCond(&f.mu)
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	files, err := adapter.Install(filepath.Join(t.TempDir(), "adapters"))
	if err != nil {
		t.Fatal(err)
	}
	life, err := proc.Life(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	f.mark = proc.Mark{Host: "h", Node: strings.ReplaceAll(t.Name(), "/", "-"), Life: life}
	l := launch.Launcher{AgentsDir: dir, Adapters: files, Environ: os.Environ(), Mark: f.mark}
	starter := process.NewStarter()
	var ids atomic.Int64
	cfg := Config{Agent: a, Starter: starter, Observer: f, Prepare: l.Prepare, Logger: slog.New(slog.DiscardHandler),
		NextID: func() string { return "n-" + strconv.FormatInt(ids.Add(1), 10) }}
	if change != nil {
		change(&cfg)
	}
	f.pool = New(cfg)
	f.pool.Attach(func() { f.note(func() {}) })
	f.pool.Resize(a.Pool.Min)
	over, heard := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(heard)
		for {
			select {
			case <-f.pool.Changes():
				f.note(func() {})
			case <-over:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(over)
		<-heard
		f.pool.Close(0, "test ended")
		starter.Close()
		if n, err := proc.KillMarked(proc.Of(f.mark)); n != 0 || err != nil {
			t.Errorf("%d processes were left: %v", n, err)
		}
	})
	return f
}

func (f *fixture) awaitSlots(n int) {
	f.t.Helper()
	f.await(fmt.Sprintf("%d slots", n), func() bool { return f.pool.Slots() == n })
}

// ran is an attempt and its result, once that has come.
type ran struct {
	*worker.Attempt
	result chan worker.Result
}

func attempt(content string, timeout time.Duration, alone bool) ran {
	r := ran{result: make(chan worker.Result, 1)}
	record := &kgo.Record{Topic: "reeve.tasks.t.a", Value: []byte(content), Timestamp: time.Now()}
	r.Attempt = worker.NewAttempt(record, 1, timeout, alone, func(res worker.Result) { r.result <- res })
	return r
}

func (r ran) wait(t testing.TB) worker.Result {
	t.Helper()
	select {
	case res := <-r.result:
		return res
	case <-time.After(time.Minute):
		t.Fatal("the attempt isn't finished")
		return worker.Result{}
	}
}

func (f *fixture) run(rs ...ran) {
	batch := make([]*worker.Attempt, len(rs))
	for n, r := range rs {
		batch[n] = r.Attempt
	}
	f.pool.Run(batch)
}

func value(t testing.TB, r worker.Result) map[string]any {
	t.Helper()
	if r.Outcome != task.Completed {
		t.Fatalf("the attempt ended as %+v", r)
	}
	var v map[string]any
	if err := json.Unmarshal(r.Value, &v); err != nil {
		t.Fatalf("result %s: %v", r.Value, err)
	}
	return v
}

func TestTasksRunAndTheirResultsComeBack(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	var rs []ran
	for n := range 16 {
		rs = append(rs, attempt(fmt.Sprintf(`{"do":"echo","n":%d}`, n), time.Minute, false))
	}
	f.run(rs...)
	for n, r := range rs {
		v := value(t, r.wait(t))
		if got := v["echo"].(map[string]any)["n"]; got != float64(n) {
			t.Errorf("attempt %d got the answer of %v", n, got)
		}
	}
	if n := f.pool.Slots(); n != 16 {
		t.Errorf("%d slots are free", n)
	}
}
