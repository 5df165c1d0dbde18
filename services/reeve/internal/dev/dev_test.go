package dev

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/proc"
	"github.com/reeve-run/reeve/services/reeve/internal/cli"
)

// asReeve, set in the environment, makes the test binary the reeve command, which its guard starts again.
const asReeve = "DEV_TEST_REEVE"

func TestMain(m *testing.M) {
	if os.Getenv(asReeve) == "" {
		goleak.VerifyTestMain(m) // and exits
	}
	system := cli.OwnSystem()
	system.Dev = Run
	os.Exit(cli.Run(context.Background(), system, os.Args[1:]))
}

// dev is a running `reeve dev` with all that it needs to be started again.
type dev struct {
	t      *testing.T
	dir    string
	url    string
	listen string
	kafka  string
	cmd    *exec.Cmd
	log    *bytes.Buffer
}

// free is an address that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asReeve+"=1")
	return cmd
}

const handler = `import os
async def handle(message):
    with open("pid", "w") as f: f.write(str(os.getpid()))
    return {"got": message["content"]}
`

// listed has one agent that is registered, and two that their conditions hold back.
const listed = `agents:
- {topic: t.one, name: a, dir: a, callback: 'callback:handle', requires: [{env: PATH}]}
- {topic: t.one, name: b, dir: a, callback: 'callback:handle', when: {env: {DEV_TEST_NEVER: 'yes'}}}
- {topic: t.one, name: c, dir: a, callback: 'callback:handle', requires: [{env: DEV_TEST_NEVER}]}
`

// newDev writes the agents file.
func newDev(t *testing.T) *dev {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	d := &dev{t: t, dir: t.TempDir(), listen: free(t), kafka: free(t)}
	d.url = "http://" + d.listen
	for name, content := range map[string]string{"agents.yaml": listed, "a/callback.py": handler} {
		path := filepath.Join(d.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// start starts it and returns when it says ready.
func (d *dev) start() {
	d.t.Helper()
	d.cmd, d.log = command(d.t, d.dir, "dev", "--listen", d.listen, "--kafka-listen", d.kafka), new(bytes.Buffer)
	d.cmd.Stderr = d.log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if !strings.HasPrefix(line, "ready: REST and dashboard "+d.url+"  Kafka "+d.kafka) {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.t.Fatalf("it said %q, and\n%s", line, d.log)
	}
}

// reeve runs another command against it.
func (d *dev) reeve(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// try runs a command that may be refused at this moment.
func (d *dev) try(args ...string) (string, error) {
	d.t.Helper()
	cmd := command(d.t, d.dir, args...)
	cmd.Env = append(cmd.Env, "REEVE_URL="+d.url)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("reeve %s: %w: %s%s", strings.Join(args, " "), err, out, &errs)
	}
	return string(out), nil
}

// work has one event run, and notes the processes that it finds at work.
func (d *dev) work() (pids []int) {
	d.t.Helper()
	if got := d.reeve("publish", "t.one", "--content", `"hello"`, "--wait"); !strings.Contains(got, `{"got":"hello"}`) {
		d.t.Fatalf("got %s", got)
	}
	for _, file := range []string{"a/pid", ".reeve/postgres/data/postmaster.pid"} {
		b, err := os.ReadFile(filepath.Join(d.dir, file))
		if err != nil {
			d.t.Fatal(err)
		}
		line, _, _ := strings.Cut(string(b), "\n")
		pid, err := strconv.Atoi(line)
		if err != nil {
			d.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// counts waits until a number of tasks is counted as completed: a kill takes from Postgres what it hadn't written yet, and
// the history reads it from Kafka again.
func (d *dev) counts(n int) {
	d.t.Helper()
	d.eventually(fmt.Sprintf("%d tasks are counted as completed", n), func() bool {
		got := d.completed()
		if got > n {
			d.t.Fatalf("%d tasks are counted as completed, %d were", got, n)
		}
		return got == n
	})
}

func (d *dev) completed() int {
	d.t.Helper()
	var list struct {
		Items []struct{ Completed int }
	}
	if err := json.Unmarshal([]byte(d.reeve("metrics", "-o", "json")), &list); err != nil || len(list.Items) != 1 {
		d.t.Fatalf("%+v, %v", list, err)
	}
	return list.Items[0].Completed
}

// gone waits until processes have ended, at most for a time.
func gone(t *testing.T, limit time.Duration, pids []int) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range pids {
		for running(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d is still there", pid)
			}
			<-tick.C
		}
	}
}

// running reports whether a process is more than a zombie.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestItStopsInOrderAndGoesOnWhereItStopped(t *testing.T) {
	d := newDev(t)
	d.start()
	pids := d.work()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, d.log)
	}
	gone(t, 0, pids)
	for _, said := range []string{"· t.one/b skipped: the environment variable DEV_TEST_NEVER is not set", "! t.one/c not registered, its requirement failed: env DEV_TEST_NEVER"} {
		if !strings.Contains(d.log.String(), said) {
			t.Errorf("it didn't say %q:\n%s", said, d.log)
		}
	}

	d.start()
	defer d.kill()
	d.work()
	d.counts(2)
}

func (d *dev) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// The visible process and the one that works are killed in turn, and each time all is there again at once.
func TestAKillLeavesNoProcessAndLosesNothing(t *testing.T) {
	d := newDev(t)
	d.start()
	for n := range 2 {
		pids := d.work()
		inner := child(t, d.cmd.Process.Pid)
		if n == 0 {
			d.kill()
		} else {
			if err := syscall.Kill(inner, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = d.cmd.Wait()
		}
		again := time.Now()
		d.start()
		gone(t, time.Until(again.Add(time.Minute)), append(pids, inner))
		d.counts(n + 1)
	}
	d.work()
	d.kill()
}

// child is a process's child.
func child(t *testing.T, pid int) int {
	t.Helper()
	children, err := proc.Children(pid)
	if err != nil || len(children) == 0 {
		t.Fatalf("%v, %v", children, err)
	}
	return children[0]
}

func TestWhatCannotStartSaysWhy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte("agents:\n- topc: a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		says string
		code int
	}{
		"a port in use":             {[]string{"--listen", taken.Addr().String()}, "--listen: port " + port + " of 127.0.0.1 is in use by process " + strconv.Itoa(os.Getpid()), 1},
		"a broker's port in use":    {[]string{"--listen", "127.0.0.1:0", "--kafka-listen", taken.Addr().String()}, "--kafka-listen: port " + port, 1},
		"no address":                {[]string{"--listen", "nonsense"}, `"nonsense" is no address`, 1},
		"a wildcard for the broker": {[]string{"--kafka-listen", "0.0.0.0:0"}, "the broker tells clients this address", 2},
		"everybody, without a key":  {[]string{"--listen", "0.0.0.0:0"}, "off is possible only on a loopback address", 1},
		"a file with faults":        {[]string{"-f", "bad.yaml"}, "bad.yaml:2:3: topc is no key, did you mean topic?", 1},
		"no file":                   {[]string{"-f", "none.yaml"}, "none.yaml", 1},
		"no agents directory":       {[]string{"--agents-dir", "none"}, "the agents directory " + dir + "/none isn't there", 1},
		"a directory of others":     {[]string{"--listen", "127.0.0.1:0", "--kafka-listen", "127.0.0.1:0", "--data", "."}, "is no data directory of reeve dev", 1},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(t, dir, append([]string{"dev"}, c.args...)...)
			out, _ := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.says) {
				t.Errorf("exit code %d, want %d; it said %s, want %q in it", cmd.ProcessState.ExitCode(), c.code, out, c.says)
			}
			if _, err := os.Stat(filepath.Join(dir, ".reeve", "broker")); err == nil {
				t.Error("it began all the same")
			}
		})
	}
}

func TestADataDirectoryHasOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	first, err := openDataDir(t.Context(), path, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	_, err = openDataDir(t.Context(), path, os.Getpid())
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by a reeve dev with process id %d", os.Getpid())) {
		t.Errorf("got %v", err)
	}
	first.release()
	second, err := openDataDir(t.Context(), path, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	second.release()
}

func TestADataDirectoryOfAnotherFormatIsRefused(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "format"), []byte("0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(t.Context(), path, os.Getpid()); err == nil || !strings.Contains(err.Error(), `has format "0", and this version reads format 1: use the version`) {
		t.Errorf("got %v", err)
	}
}

func TestAUsualPortThatIsTakenIsReplacedAndSaid(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	var said string
	l, err := listen("--listen", taken.Addr().String(), false, func(format string, args ...any) { said = fmt.Sprintf(format, args...) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if !strings.Contains(said, "using "+l.Addr().String()+" instead of "+taken.Addr().String()) {
		t.Errorf("said %q", said)
	}
}
