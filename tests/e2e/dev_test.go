package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reeve-run/reeve/tests/harness"
)

// devSystem is `reeve dev` with the stock agent, on a data directory of its own.
type devSystem struct {
	*harness.System
	listen, kafka string
	starts        int
}

func newDev(t *testing.T) *devSystem {
	t.Helper()
	sys, err := harness.New(harness.Config{Bin: binaries.Dir(t), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sys.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &devSystem{System: sys, listen: freeAddr(t), kafka: freeAddr(t)}
	d.URL = "http://" + d.listen
	if err := os.CopyFS(filepath.Join(d.AgentsDir(), "stock"), os.DirFS("testdata/stock")); err != nil {
		t.Fatal(err)
	}
	const file = `
agents:
  - topic: orders
    name: stock
    runtime: command
    dir: stock
    command: [python3, adapter.py]
    env: {E2E_MARK: DIR}
    config: {max_retries: 1, retry_delays: [1s]}
`
	text := strings.ReplaceAll(file, "DIR", d.Dir)
	if err := os.WriteFile(filepath.Join(d.AgentsDir(), "agents.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *devSystem) start(t *testing.T) *harness.Process {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries.Dir(t), "reeve"), "dev", "--data", filepath.Join(d.Dir, "data"), "--listen", d.listen,
		"--kafka-listen", d.kafka, "-f", filepath.Join(d.AgentsDir(), "agents.yaml"))
	d.starts++
	cmd.Dir, cmd.Env = d.Dir, append(harness.Environ(), "E2E_DEV="+d.Dir)
	p, err := d.Run(cmd, fmt.Sprintf("dev%d", d.starts), d.URL)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, func() string { // /readyz is the registry's and comes before the file is applied
		if strings.Contains(p.Log(), "ready: ") {
			return ""
		}
		return "it isn't ready: " + p.Log()
	})
	return p
}

// cli runs the command line against it.
func (d *devSystem) cli(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries.Dir(t), "reeve"), args...)
	cmd.Env = append(harness.Environ(), "REEVE_URL="+d.URL)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// One command is a whole system: it runs what is published, finds its data after a kill at once, and ends without a
// trace.
func TestReeveDevFromStartOverKillToStop(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 isn't installed")
	}
	t.Parallel()
	d := newDev(t)
	p := d.start(t)
	if out, code := d.cli(t, "publish", "orders", "--content", `{"n": 1}`, "--wait"); code != 0 || !strings.Contains(out, "completed") {
		t.Errorf("publish --wait: exit code %d:\n%s", code, out)
	}
	eventually(t, time.Minute, func() string { // health is computed from heartbeats, which take their time
		if out, code := d.cli(t, "health"); code != 0 || !strings.Contains(out, "running") {
			return out
		}
		return ""
	})

	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Ended()
	p = d.start(t)
	eventually(t, time.Minute, func() string {
		if out, code := d.cli(t, "task", "list"); code != 0 || !strings.Contains(out, "completed") {
			return "the task from before the kill isn't listed: " + out
		}
		return ""
	})
	if out, code := d.cli(t, "publish", "orders", "--content", `{"do": "fail"}`, "--wait"); code != 1 || !strings.Contains(out, "it always fails") {
		t.Errorf("publish --wait of a poison: exit code %d:\n%s", code, out)
	}
	if out, code := d.cli(t, "agent", "get", "orders/nobody"); code != 3 {
		t.Errorf("get of an agent that isn't there: exit code %d:\n%s", code, out)
	}

	stop(t, p)
	for _, mark := range []string{"E2E_MARK=" + d.Dir, "E2E_DEV=" + d.Dir} {
		if left := harness.Marked(mark); len(left) > 0 {
			t.Errorf("processes left after the stop: %v", left)
		}
	}
}
