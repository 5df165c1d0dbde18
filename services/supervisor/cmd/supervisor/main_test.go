package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/proc"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// TestMain lets the test binary be the supervisor: what is tried here is its processes.
func TestMain(m *testing.M) {
	if os.Getenv("SUPERVISOR_TEST_RUN") != "" {
		os.Args = os.Args[:1]
		os.Exit(run())
	}
	goleak.VerifyTestMain(m)
}

const agent = `
import asyncio, os, subprocess
async def handle(message):
    if message["content"].get("hang") and message["delivery_attempts"] == 1:
        with open("hangs", "w") as f:
            f.write("x")
        await asyncio.sleep(300)
    if os.path.exists("seen"):
        return {"pid": os.getpid()}
    near = subprocess.Popen(["sleep", "300"])
    far = subprocess.Popen(["setsid", "sleep", "300"])
    with open("seen", "w") as f:
        f.write("x")
    return {"pids": [os.getpid(), near.pid, far.pid]}
`

// site is a broker and a directory with an agent.
type site struct {
	t      *testing.T
	dir    string
	broker string
	client *kgo.Client
	cfg    config.Config
	spec   *spec.Agent
}

func newSite(t *testing.T) *site {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	s := &site{t: t, dir: t.TempDir(), broker: cluster.ListenAddrs()[0], cfg: config.Default(config.Supervisor)}
	if err := os.WriteFile(filepath.Join(s.dir, "agent.py"), []byte(agent), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.client, err = kgo.NewClient(kgo.SeedBrokers(s.broker), kgo.MetadataMinAge(50*time.Millisecond), kgo.DisableClientMetrics()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	a := &spec.Agent{Topic: "events", Name: "echo", Runtime: spec.Python, Callback: "agent:handle", Config: spec.NewConfig(spec.Python),
		Process: spec.NewProcess(), Pool: spec.Pool{Min: 1, Max: 1}, Partitions: 1, Phase: spec.Active, Generation: 1}
	s.spec = a
	names := s.cfg.Kafka.Names()
	if err := kafka.EnsureTopics(t.Context(), s.client, 1, kafka.ControlTopic(names), kafka.TasksTopic(names, a, 1<<20)); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	s.produce(&kgo.Record{Topic: names.Control(), Key: []byte(a.Key()), Value: b})
	return s
}

func (s *site) produce(r *kgo.Record) {
	s.t.Helper()
	if err := s.client.ProduceSync(s.t.Context(), r).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

// command is a supervisor, not yet started.
func (s *site) command(node string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SUPERVISOR_TEST_RUN=1", "REEVE_KAFKA_BROKERS="+s.broker, "REEVE_AGENTS_DIR="+s.dir, "REEVE_NODE="+node, "REEVE_HTTP_ADDR=127.0.0.1:0")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = 5 * time.Second
	return cmd, &log
}

func (s *site) start(node string) *exec.Cmd {
	s.t.Helper()
	cmd, log := s.command(node)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("the supervisor's log:\n%s", log)
		}
	})
	return cmd
}

// dispatch writes a task, as the dispatcher does.
func (s *site) dispatch(offset int64, content string) task.Origin {
	s.t.Helper()
	origin := task.Origin{Topic: "events", Partition: 0, Offset: offset}
	s.produce(&kgo.Record{Topic: s.cfg.Kafka.Names().Tasks("events", "echo"), Value: []byte(content), Headers: []kgo.RecordHeader{
		{Key: task.HeaderAgent, Value: []byte(s.spec.Ref())}, {Key: task.HeaderOrigin, Value: origin.AppendHeader(nil)}, {Key: task.HeaderAttempt, Value: []byte("1")}}})
	return origin
}

// ask runs a task and gives its result.
func (s *site) ask(offset int64) (v struct{ PID, PIDs any }) {
	s.t.Helper()
	if err := json.Unmarshal(s.outcome(s.dispatch(offset, `{}`)).Value, &v); err != nil {
		s.t.Fatal(err)
	}
	return v
}

// outcome waits for the first outcome of a task.
func (s *site) outcome(origin task.Origin) *kgo.Record {
	s.t.Helper()
	names := s.cfg.Kafka.Names()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.broker), kgo.ConsumeTopics(names.Outcomes()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond), kgo.DisableClientMetrics())
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		for _, r := range cl.PollFetches(ctx).Records() {
			if string(r.Key) == origin.ID() {
				return r
			}
		}
	}
	s.t.Fatal("no outcome came")
	return nil
}

func numbers(list any) []int {
	var out []int
	for _, p := range list.([]any) {
		out = append(out, int(p.(float64)))
	}
	return out
}

// gone waits until none of the processes runs.
func (s *site) gone(pids ...int) {
	s.t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		left := pids[:0:0]
		for _, pid := range pids {
			if st, err := proc.Read(pid); err == nil && st.State != 'Z' {
				left = append(left, pid)
			}
		}
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("processes %v are still there", left)
		}
	}
}

// inner is the guarded process, the guard's child.
func (s *site) inner(guard *exec.Cmd) int {
	s.t.Helper()
	children, err := proc.Children(guard.Process.Pid)
	if err != nil || len(children) == 0 {
		s.t.Fatalf("the guard's children: %v, %v", children, err)
	}
	return children[0]
}

func TestNoProcessIsLeftHoweverTheSupervisorEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(s *site, guard *exec.Cmd) error
		code int
	}{
		"the supervisor is killed": {func(s *site, g *exec.Cmd) error { return syscall.Kill(s.inner(g), syscall.SIGKILL) }, 137},
		"the guard is killed":      {func(_ *site, g *exec.Cmd) error { return g.Process.Kill() }, -1},
		"SIGTERM":                  {func(_ *site, g *exec.Cmd) error { return g.Process.Signal(syscall.SIGTERM) }, 0},
		"Ctrl-C":                   {func(_ *site, g *exec.Cmd) error { return g.Process.Signal(os.Interrupt) }, 0},
		"both are killed": {func(s *site, g *exec.Cmd) error {
			inner := s.inner(g)
			_ = syscall.Kill(g.Process.Pid, syscall.SIGSTOP) // so that neither can look after the other
			_ = syscall.Kill(inner, syscall.SIGKILL)
			return syscall.Kill(g.Process.Pid, syscall.SIGKILL)
		}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			cmd := s.start("n")
			pids := append(numbers(s.ask(0).PIDs), s.inner(cmd))
			if err := tt.end(s, cmd); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("the exit code is %d, want %d", code, tt.code)
			}
			if name == "both are killed" { // what left its group and its session is found by the next start
				s.gone(pids[0], pids[3])
				s.start("n")
			}
			s.gone(pids...)
		})
	}
}

// What the supervisor itself kills when its guard is gone is no crash of a task: it is repeated as after any kill.
func TestTheEndOfAnOrphanIsNoCrash(t *testing.T) {
	s := newSite(t)
	cmd := s.start("n")
	s.ask(0)
	origin := s.dispatch(1, `{"hang":true}`)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(s.dir, "hangs")); err == nil {
			break
		}
		<-tick.C
	}
	inner := s.inner(cmd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.gone(inner)
	s.start("n")
	r := s.outcome(origin)
	for _, h := range r.Headers {
		if h.Key == task.HeaderOutcome && string(h.Value) != string(task.Completed) || h.Key == task.HeaderAttempt && string(h.Value) != "2" {
			t.Errorf("%s is %s", h.Key, h.Value)
		}
	}
}

func TestTheNewerOfTwoSupervisorsOfOneNameWins(t *testing.T) {
	s := newSite(t)
	older, log := s.command("twin")
	if err := older.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = older.Process.Kill(); _ = older.Wait() })
	pids := numbers(s.ask(0).PIDs)
	s.start("twin")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = older.Wait()
	}()
	select {
	case <-done:
	case <-time.After(40 * time.Second):
		t.Fatalf("the older goes on:\n%s", log)
	}
	if code := older.ProcessState.ExitCode(); code != 1 || !strings.Contains(log.String(), "the node name twin was taken over by the process ") {
		t.Errorf("exit code %d:\n%s", code, log)
	}
	s.gone(pids...)
	s.ask(1)
}

func TestArgumentsAreRefused(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SUPERVISOR_TEST_RUN=1", "REEVE_KAFKA_TLS_CA=/x")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "REEVE_KAFKA_TLS_CA") {
		t.Errorf("%v: %s", err, out)
	}
}
