package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/tests/harness"
)

// The way of somebody who has just installed Reeve, typed as `reeve init` prints it: at most six commands and five
// minutes to the first answered event, without a failure on the way.
func TestFromInitToTheFirstAnsweredEvent(t *testing.T) {
	t.Parallel()
	for lang, tool := range map[string]string{"python": "python3", "node": "node", "go": "go", "command": "sh"} {
		t.Run(lang, func(t *testing.T) {
			if _, err := exec.LookPath(tool); err != nil {
				t.Skipf("%s isn't installed", tool)
			}
			began := time.Now()
			sys, err := harness.New(harness.Config{Bin: binaries.Dir(t), Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := sys.Close(); err != nil {
					t.Error(err)
				}
			})
			n := newcomer{System: sys}
			last := n.follow(t, n.typed(t, filepath.Join(binaries.Dir(t), "reeve")+" init my-agent --lang "+lang))
			if !strings.Contains(last, "completed") || !strings.Contains(last, `"Hello, Ada!"`) {
				t.Errorf("the last command said\n%s", last)
			}
			if n.commands > 6 || time.Since(began) > 5*time.Minute {
				t.Errorf("%d commands in %s", n.commands, time.Since(began))
			}
			if n.dev == nil {
				t.Fatal("reeve dev wasn't among the commands")
			}
			stop(t, n.dev)
		})
	}
}

// newcomer types commands into a shell.
type newcomer struct {
	*harness.System
	url      string // where reeve dev serves, once it has said so
	cd       string // the directory changed to, as a line of shell
	commands int
	dev      *harness.Process
}

func (n *newcomer) shell(t *testing.T, line string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", n.cd+line)
	cmd.Dir, cmd.Env = n.Dir, append(harness.Environ(), "REEVE_HTTP_ADDR=127.0.0.1:0", "REEVE_URL="+n.url) // other tests have the usual ports
	return cmd
}

// typed runs a command to its end, which has to be a good one.
func (n *newcomer) typed(t *testing.T, line string) string {
	t.Helper()
	n.commands++
	out, err := n.shell(t, line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// follow types what init printed, and gives what the last command said.
func (n *newcomer) follow(t *testing.T, printed string) (last string) {
	t.Helper()
	_, next, ok := strings.Cut(printed, "\nNext:\n")
	if !ok {
		t.Fatalf("no next commands in\n%s", printed)
	}
	for line := range strings.Lines(next) {
		line = strings.TrimSpace(line)
		switch command := strings.Fields(line); {
		case command[0] == "cd":
			n.commands++
			n.cd = line + "\n"
		case command[1] == "dev":
			n.commands++
			n.inBackground(t, line)
		default:
			last = n.typed(t, line)
		}
	}
	return last
}

// inBackground has a command run on, and waits until it says that it is ready.
func (n *newcomer) inBackground(t *testing.T, line string) {
	t.Helper()
	p, err := n.Run(n.shell(t, "exec "+line), "dev", "")
	if err != nil {
		t.Fatal(err)
	}
	n.dev = p
	eventually(t, time.Minute, func() string {
		if _, where, ok := strings.Cut(p.Log(), "ready: REST and dashboard "); ok {
			n.url = strings.Fields(where)[0]
			return ""
		}
		return "it isn't ready: " + p.Log()
	})
}
