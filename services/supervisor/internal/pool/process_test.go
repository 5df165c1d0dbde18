package pool

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reeve-run/reeve/internal/proc"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
)

// alive reports whether a process still runs.
func alive(pid int) bool {
	s, err := proc.Read(pid)
	return err == nil && s.State != 'Z'
}

// pid asks an instance for its process.
func (f *fixture) pid() int {
	f.t.Helper()
	r := attempt(`{"do":"echo"}`, time.Minute, false)
	f.run(r)
	return int(value(f.t, r.wait(f.t))["pid"].(float64))
}

func TestACrashOfSeveralBlamesNoneAndACrashAloneIsTheTasks(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	slow := attempt(`{"do":"sleep","seconds":30}`, time.Minute, false)
	bad := attempt(`{"do":"crash"}`, time.Minute, false)
	f.run(slow, bad)
	for _, r := range []ran{slow, bad} {
		if res := r.wait(t); res.Outcome != task.Crashed || !res.Shared || res.Class != task.ClassCrash || !strings.Contains(res.Message, "code 3") {
			t.Errorf("got %+v", res)
		}
	}
	f.awaitChange("n-1 RESTARTING")
	f.awaitSlots(16)
	alone := attempt(`{"do":"kill"}`, time.Minute, true)
	f.run(alone)
	if res := alone.wait(t); res.Outcome != task.Crashed || res.Shared || !strings.Contains(res.Message, "SIGKILL") {
		t.Errorf("got %+v", res)
	}
	f.awaitSlots(16)
}

func TestACancelledAttemptTakesItsProcessWithIt(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	a := attempt(`{"do":"sleep","seconds":60}`, time.Minute, false)
	f.run(a)
	f.pid() // so the first is in the process for certain
	f.pool.Cancel(a.Attempt)
	if res := a.wait(t); !res.CutShort {
		t.Errorf("got %+v", res)
	}
	f.awaitChange("n-2 RUNNING")
}

func TestACancelledAttemptThatWaitsEndsAtOnce(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) { a.Callback = "agent:nope" }), nil)
	a := attempt(`{}`, time.Minute, false)
	f.run(a)
	f.pool.Cancel(a.Attempt)
	if res := a.wait(t); !res.CutShort {
		t.Errorf("got %+v", res)
	}
}

func TestAnAttemptAloneGetsAnInstanceToItself(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	before := attempt(`{"do":"sleep","seconds":0.3}`, time.Minute, false)
	alone := attempt(`{"do":"sleep","seconds":0.3}`, time.Minute, true)
	after := attempt(`{"do":"echo"}`, time.Minute, false)
	f.run(before, alone, after)
	if n := f.pool.Slots(); n != 0 {
		t.Errorf("%d slots while an attempt waits to run alone", n)
	}
	value(t, before.wait(t))
	select {
	case <-after.result:
		t.Error("another attempt ran before the one that was to run alone")
	default:
	}
	value(t, alone.wait(t))
	value(t, after.wait(t))
}

func TestWhatAnAgentPrintsIsItsLog(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	r := attempt(`{"do":"print"}`, time.Minute, false)
	noise := attempt(`{"do":"noise"}`, time.Minute, false)
	f.run(r)
	if v := value(t, r.wait(t)); v["data"] != 42.0 || v["status"] != "completed" {
		t.Errorf("the result is %v", v)
	}
	f.run(noise)
	value(t, noise.wait(t))
	f.awaitLine("printed by python 42")
	f.awaitLine("printed by a child")
	f.awaitLine("xxx …")
	f.awaitLine("\uFFFD")
}

func TestAnExceptionIsToldWithItsClass(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	r := attempt(`{"do":"raise"}`, time.Minute, false)
	f.run(r)
	res := r.wait(t)
	if res.Outcome != task.Failed || res.Class != task.ClassTimeout || res.Type != "TimeoutError" || res.Message != "too slow" || !strings.Contains(res.Traceback, "agent.py") {
		t.Errorf("got %+v", res)
	}
}

func TestAnAgentSeesNoSecretsOfTheSupervisor(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("REEVE_ADMIN_KEY", "secret")
	f := start(t, agent(func(a *spec.Agent) { a.Env = map[string]string{"GREETING": "hello"} }), nil)
	f.awaitSlots(16)
	r := attempt(`{"do":"env"}`, time.Minute, false)
	f.run(r)
	v := value(t, r.wait(t))
	env := v["env"].(map[string]any)
	for name := range env {
		if strings.Contains(fmt.Sprint(env[name]), "secret") {
			t.Errorf("the agent sees %s", name)
		}
	}
	if env["GREETING"] != "hello" || env["PATH"] == nil || env[proc.MarkVariable] == nil {
		t.Errorf("the environment lacks something: %v", env)
	}
	if cwd := v["cwd"].(string); !strings.HasSuffix(cwd, "/testdata") || v["path"] != cwd {
		t.Errorf("it runs in %s with %v first on its path", cwd, v["path"])
	}
}

func TestAStopTakesChildrenAndGrandchildren(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	r := attempt(`{"do":"children"}`, time.Minute, false)
	f.run(r)
	var pids []int
	for _, p := range value(t, r.wait(t))["pids"].([]any) {
		pids = append(pids, int(p.(float64)))
	}
	f.pool.Close(0, "test")
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d was left", pid)
		}
	}
}

func TestAStopIsBoundedWhateverTheAgentDoes(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	r := attempt(`{"do":"deaf"}`, time.Minute, false)
	f.run(r)
	value(t, r.wait(t))
	f.awaitLine("deaf from here on")
	began := time.Now()
	f.pool.Close(0, "test")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if s := f.changes[len(f.changes)-1]; s != "n-1 STOPPED" {
		t.Errorf("it ended as %s", s)
	}
}

func TestAnAnswerThatIsTooLongIsTheTasksError(t *testing.T) {
	f := start(t, agent(nil), func(c *Config) { c.LineLimit = 100_000 })
	f.awaitSlots(16)
	long := attempt(`{"do":"long","size":200000}`, time.Minute, false)
	short := attempt(`{"do":"long","size":90000}`, time.Minute, false)
	f.run(long, short)
	if res := long.wait(t); res.Outcome != task.Failed || res.Class != task.ClassResultTooLarge {
		t.Errorf("got %+v", res)
	}
	value(t, short.wait(t))
}

func TestABareAdapterIsEnough(t *testing.T) {
	a := agent(func(a *spec.Agent) {
		a.Runtime, a.Command, a.Config = spec.Command, []string{"python3", "base.py"}, spec.NewConfig(spec.Command)
	})
	f := start(t, a, nil)
	f.awaitSlots(1)
	good := attempt(`{"n":1}`, time.Minute, false)
	f.run(good)
	if v := value(t, good.wait(t)); v["attempt"] != 1.0 || v["echo"].(map[string]any)["n"] != 1.0 {
		t.Errorf("the result is %v", v)
	}
	bad := attempt(`{"fail":"connection timed out"}`, time.Minute, false)
	f.run(bad)
	if res := bad.wait(t); res.Outcome != task.Failed || res.Class != "" || res.Message != "connection timed out" {
		t.Errorf("got %+v", res)
	}
	f.await("a pong", func() bool { return len(f.checks) > 0 })
	f.pool.Close(0, "test")
	if f.changes[len(f.changes)-1] != "n-1 STOPPED" || f.checks[0].Health != instance.Healthy || f.checks[0].MemoryMB <= 0 {
		t.Errorf("changes %v, checks %+v", f.changes, f.checks)
	}
}

func TestANodeAgentRuns(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node")
	}
	f := start(t, agent(func(a *spec.Agent) { a.Runtime, a.Callback = spec.Node, "agent:handle" }), nil)
	f.awaitSlots(16)
	good, bad, busy := attempt(`{"do":"x"}`, time.Minute, false), attempt(`{"do":"fail"}`, time.Minute, false), attempt(`{"do":"slow down"}`, time.Minute, false)
	f.run(good, bad, busy)
	value(t, good.wait(t))
	if res := bad.wait(t); res.Class != task.ClassNetwork || res.Message != "refused" || res.Traceback == "" {
		t.Errorf("got %+v", res)
	}
	if res := busy.wait(t); res.Class != task.ClassRateLimited || res.RetryAfter != 7*time.Second {
		t.Errorf("got %+v", res)
	}
	f.awaitLine("printed by node")
}

func TestAnAgentThatReadsNoMoreHoldsUpNobody(t *testing.T) {
	a := agent(func(a *spec.Agent) {
		a.Runtime, a.Command, a.Config.Concurrency = spec.Command, []string{"python3", "wilful.py"}, 8
		a.Pool.Min = 2
	})
	f := start(t, a, nil)
	f.awaitSlots(16)
	stuck := attempt(`"stop reading"`, 300*time.Millisecond, false)
	f.run(stuck)
	big := `"` + strings.Repeat("x", 200_000) + `"`
	var rs []ran
	for range 15 {
		rs = append(rs, attempt(big, 10*time.Second, false))
	}
	f.run(rs...)
	if res := stuck.wait(t); res.Outcome != task.TimedOut {
		t.Errorf("got %+v", res)
	}
	for _, r := range rs { // what never reached the stuck process runs elsewhere; what did may have begun
		if res := r.wait(t); res.Outcome != task.Completed && !res.CutShort {
			t.Errorf("got %+v", res)
		}
	}
}

func TestExitZeroUnaskedIsNoCrash(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	r := attempt(`{"do":"exit"}`, time.Minute, false)
	f.run(r)
	if res := r.wait(t); res.Outcome != task.Crashed {
		t.Errorf("a task without an answer ended as %+v", res)
	}
	f.await("a second start", func() bool { return strings.Count(strings.Join(f.changes, ","), "n-1 RUNNING") == 2 })
	if seen := f.seen(); slices.Contains(seen, "n-1 CRASHED") {
		t.Errorf("it counts as a crash: %v", seen)
	}
}

func TestAKilledAgentIsSeenAtOnce(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	pid := f.pid()
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.awaitChange("n-1 CRASHED")
	if took := time.Since(began); took > 500*time.Millisecond { // 100 ms on an idle machine
		t.Errorf("it took %s", took)
	}
	f.awaitSlots(16)
}

func TestAFrozenAgentIsKilledAndStartedAgain(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) { a.Process.HeartbeatIntervalSeconds = 0.1 }), func(c *Config) { c.PongTimeout = 100 * time.Millisecond })
	f.awaitSlots(16)
	pid := f.pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.awaitChange("n-1 CRASHED")
	f.await("a restart", func() bool { return strings.Count(strings.Join(f.changes, ","), "n-1 RUNNING") == 2 })
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.causes[0]; c.Type != "AgentTimeoutError" || c.Remediation == "" {
		t.Errorf("the cause is %+v", c)
	}
}

func TestAnAgentThatCantStartSaysWhy(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*spec.Agent)
		typ    string
		says   string
	}{
		"callback":    {func(a *spec.Agent) { a.Callback = "agent:nope" }, "AgentCallbackNotFoundError", "blocking, deaf, handle"},
		"module":      {func(a *spec.Agent) { a.Callback = "nope:handle" }, "AgentCallbackNotFoundError", "agent.py"},
		"directory":   {func(a *spec.Agent) { a.Dir = "nope" }, "AgentStartupError", "isn't there"},
		"program":     {func(a *spec.Agent) { a.Runtime, a.Command = spec.Command, []string{"./nope"} }, "AgentStartupError", "isn't there"},
		"mode":        {func(a *spec.Agent) { a.Runtime, a.Command = spec.Command, []string{"./agent.py"} }, "AgentStartupError", "chmod +x"},
		"interpreter": {func(a *spec.Agent) { a.Env = map[string]string{"PATH": "/nope"} }, "AgentStartupError", "PATH"},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, agent(tt.change), nil)
			f.await("the pool to be down", func() bool { return f.pool.Status().Down != nil })
			if c := f.pool.Status().Down.Cause; c.Type != tt.typ || !strings.Contains(c.Message, tt.says) || c.Remediation == "" {
				t.Errorf("the cause is %+v", c)
			}
		})
	}
}

func TestTooManyCrashesOpenTheCircuitAndAResetClosesIt(t *testing.T) {
	dir := t.TempDir()
	a := agent(func(a *spec.Agent) {
		a.Runtime, a.Command = spec.Command, []string{"sh", "-c", "test -e " + dir + "/ready && exec python3 base.py; exit 4"}
		a.Process.MaxRestartAttempts, a.Process.RestartBackoffSeconds = 2, 0.02
	})
	f := start(t, a, nil)
	f.await("the circuit", func() bool { return f.pool.Status().Down != nil })
	if n := strings.Count(strings.Join(f.seen(), ","), " STARTING"); n != 3 {
		t.Errorf("%d starts before the circuit opened", n)
	}
	if err := os.WriteFile(dir+"/ready", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.pool.Reset()
	f.awaitChange("n-1 RUNNING")
	if f.pool.Status().Down != nil {
		t.Error("the pool is still down")
	}
}

// Any number of tasks that kill their process with nothing beside them open no circuit and add no back-off; and one that
// did so with others beside it first counts for neither once it is found out.
func TestCrashesOfTasksThatRanAloneOpenNoCircuit(t *testing.T) {
	a := agent(func(a *spec.Agent) {
		a.Process.MaxRestartAttempts, a.Process.RestartBackoffSeconds = 1, 0.5
	})
	f := start(t, a, nil)
	began := time.Now()
	for range 4 {
		f.awaitSlots(16)
		alone := attempt(`{"do":"crash"}`, time.Minute, true)
		f.run(alone)
		if res := alone.wait(t); res.Outcome != task.Crashed || res.Shared {
			t.Fatalf("got %+v", res)
		}
	}
	f.awaitSlots(16)
	t.Logf("four crashes and starts took %s", time.Since(began))
	for range 2 {
		f.awaitSlots(16)
		neighbour, bad := attempt(`{"do":"sleep","seconds":30}`, time.Minute, false), attempt(`{"do":"crash"}`, time.Minute, false)
		f.run(neighbour, bad)
		for _, r := range []ran{neighbour, bad} {
			if res := r.wait(t); res.Outcome != task.Crashed || !res.Shared {
				t.Fatalf("got %+v", res)
			}
		}
		f.awaitSlots(16)
		culprit := attempt(`{"do":"crash"}`, time.Minute, true)
		f.run(culprit)
		if res := culprit.wait(t); res.Outcome != task.Crashed || res.Shared {
			t.Fatalf("got %+v", res)
		}
	}
	f.awaitSlots(16)
	if d := f.pool.Status().Down; d != nil {
		t.Errorf("the circuit opened: %+v", d)
	}
}

func TestAReplacementKeepsTheAgentRunning(t *testing.T) {
	a := agent(func(a *spec.Agent) { a.Pool.Min = 2 })
	f := start(t, a, nil)
	f.awaitSlots(32)
	f.pool.Replace(agent(func(a *spec.Agent) { a.Pool.Min, a.Config.Concurrency = 2, 3 }), "spec changed")
	f.await("new instances", func() bool { return f.pool.Slots() == 6 && !f.pool.Rolling() })
	f.awaitChange("n-1 STOPPED")
	f.awaitChange("n-2 STOPPED")
	running := 0
	for n, c := range f.seen() {
		switch {
		case strings.HasSuffix(c, " RUNNING"):
			running++
		case strings.HasSuffix(c, " STOPPING"):
			running--
		}
		if n >= 4 && running < 1 {
			t.Errorf("nothing ran after %q", c)
		}
	}
}

func TestTheSizeFollows(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	f.pool.Resize(3)
	f.awaitSlots(48)
	f.pool.Resize(1)
	f.awaitSlots(16)
	f.pool.Resize(0)
	f.await("nothing", func() bool { return strings.Count(strings.Join(f.changes, ","), " STOPPED") == 3 })
}

// The bounds are those that the supervisor's users were promised.
func TestAnInstanceIsCheap(t *testing.T) {
	const instances = 8
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := memory()
	f := start(t, agent(func(a *spec.Agent) {
		a.Runtime, a.Command, a.Pool.Min = spec.Command, []string{"python3", "base.py"}, instances
		a.Process.HeartbeatIntervalSeconds = 0.05
	}), nil)
	f.await("pongs", func() bool { return len(f.checks) >= 10*instances })
	if used := int64(memory()-before) / instances; used > 10<<20 {
		t.Errorf("%d bytes of memory an instance", used)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	best := f.checks[0].Latency
	for _, c := range f.checks {
		best = min(best, c.Latency)
	}
	if best <= 0 || best > time.Second {
		t.Errorf("the fastest pong took %s", best)
	}
}

func TestWhatAnAgentWritesNeverEndsTheReader(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) { a.Runtime, a.Command = spec.Command, []string{"python3", "wilful.py"} }), nil)
	f.awaitSlots(16)
	broken := attempt(`"no JSON"`, time.Minute, false)
	f.run(broken)
	if res := broken.wait(t); res.Outcome != task.Failed || !strings.Contains(res.Message, "no JSON") {
		t.Errorf("got %+v", res)
	}
	for content, want := range map[string]string{`"glue"`: `{}`, `"log"`: `{}`, `"NaN"`: `{"x": null}`, `"anything"`: `{}`} {
		r := attempt(content, time.Minute, false)
		f.run(r)
		if res := r.wait(t); res.Outcome != task.Completed || string(res.Value) != want {
			t.Errorf("%s: %+v", content, res)
		}
	}
	f.awaitLine("42")
	f.awaitLine(`"level": "info"`)
}

func TestAFailedReplacementLeavesTheOldOneAndSaysSo(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	f.pool.Replace(agent(func(a *spec.Agent) { a.Callback = "agent:nope" }), "spec changed")
	f.await("the successor to be down", func() bool { return f.pool.Status().Down != nil })
	if s := f.pool.Status(); s.Running != 1 || f.pool.Rolling() || f.pool.Slots() != 16 {
		t.Errorf("%+v, %d slots", s, f.pool.Slots())
	}
	f.pool.Replace(agent(nil), "mended")
	f.awaitChange("n-3 RUNNING")
	f.awaitChange("n-1 STOPPED")
	f.await("one instance", func() bool { return f.pool.Slots() == 16 && f.pool.Status().Down == nil })
}
