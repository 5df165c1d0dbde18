package guard_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/guard"
	"github.com/reeve-run/reeve/internal/proc"
)

// TestMain lets the test binary play the guarded service: a guard can only be tried as a process.
func TestMain(m *testing.M) {
	if os.Getenv("GUARD_TEST_SERVICE") == "" {
		goleak.VerifyTestMain(m) // and exits
	}
	child, code := guard.Run()
	if child == nil {
		os.Exit(code)
	}
	os.Exit(service(child))
}

// service prints its own PID and those of an agent, and of a grandchild that got away into a session of its own.
func service(child *guard.Child) int {
	mark := proc.Mark{Host: "h", Node: "guardtest", Life: strconv.Itoa(os.Getpid())}
	child.OnOrphan(func() { _, _ = proc.KillMarked(proc.Of(mark)) })
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	agent := exec.Command("sh", "-c", "setsid sleep 300 & echo $!; exec sleep 300")
	agent.Env = append(os.Environ(), mark.Env())
	out, err := agent.StdoutPipe()
	if err != nil {
		return 90
	}
	if err := agent.Start(); err != nil {
		return 91
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	fmt.Printf("%d %d %s\n", os.Getpid(), agent.Process.Pid, strings.TrimSpace(line))
	<-stop
	return 7
}

type family struct {
	guard                  *exec.Cmd
	service, agent, escape int
}

func start(t *testing.T) family {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "GUARD_TEST_SERVICE=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	f := family{guard: cmd}
	if _, err := fmt.Fscan(out, &f.service, &f.agent, &f.escape); err != nil {
		t.Fatalf("the service didn't start: %v", err)
	}
	return f
}

// gone waits until none of the processes runs.
func gone(t *testing.T, pids ...int) {
	t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		left := pids[:0:0]
		for _, pid := range pids {
			if s, err := proc.Read(pid); err == nil && s.State != 'Z' {
				left = append(left, pid)
			}
		}
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("processes %v are still there", left)
		}
	}
}

func TestNothingIsLeft(t *testing.T) {
	tests := []struct {
		name string
		kill func(family) error
		code int // -1: the guard itself was killed
	}{
		{"the service is killed", func(f family) error { return syscall.Kill(f.service, syscall.SIGKILL) }, 128 + 9},
		{"the guard is killed", func(f family) error { return f.guard.Process.Kill() }, -1},
		{"the guard is asked to end", func(f family) error { return f.guard.Process.Signal(syscall.SIGTERM) }, 7},
		{"the terminal hangs up", func(f family) error { return f.guard.Process.Signal(syscall.SIGHUP) }, 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t)
			if err := tt.kill(f); err != nil {
				t.Fatal(err)
			}
			_ = f.guard.Wait()
			if code := f.guard.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("the guard's exit code is %d, want %d", code, tt.code)
			}
			gone(t, f.service, f.agent, f.escape)
		})
	}
}

func TestAVariableWithoutAGuardIsRefused(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "GUARD_TEST_SERVICE=1", "_REEVE_GUARD=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no lifeline") {
		t.Errorf("got %v: %s", err, out)
	}
}
