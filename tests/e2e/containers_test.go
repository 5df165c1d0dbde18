//go:build containers

package e2e

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reeve-run/reeve/tests/harness"
	"github.com/reeve-run/reeve/tests/harness/containers"
)

// What holds for processes holds for containers: the same bodies, on the images of `make images`.
func TestContainers(t *testing.T) {
	stack := containers.Start(t)
	for name, body := range map[string]func(*testing.T, *harness.System){
		"RunsRetriesDeadLettersAndStops": runsRetriesDeadLettersAndStops,
		"FlowsWithoutTheRegistry":        flowsWithoutTheRegistry,
		"PausedResumedDeleted":           pausedResumedDeleted,
		"KilledServicesLoseNothing":      killedServicesLoseNothing,
		"TheGuardIsPID1":                 theGuardIsPID1,
	} {
		t.Run(name, func(t *testing.T) { body(t, stack.System(t)) })
	}
}

// In a container the guard is the first process: it reaps what nobody else does, passes a stop on, and ends with the
// code of what it guards, which takes everything with it.
func theGuardIsPID1(t *testing.T, sys *harness.System) {
	p := start(t, sys, "registry.r0", "supervisor.s0")[1]
	shell := func(script string) string {
		t.Helper()
		out, err := containers.Shell(sys, p, script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if name := shell(`tr '\0' ' ' </proc/1/cmdline`); strings.TrimSpace(name) != "supervisor" {
		t.Errorf("the first process is %q", name)
	}
	// A grandchild whose parent is gone by the time that it ends.
	orphan := strings.TrimSpace(shell(`sh -c 'sleep 0.3 >/dev/null 2>&1 & echo $!'`))
	eventually(t, time.Minute, func() string {
		return shell(`grep -E '^(State|PPid):' /proc/` + orphan + `/status 2>/dev/null || true`)
	})

	inner := regexp.MustCompile(`\d+`).FindString(shell(`for p in /proc/[0-9]*; do grep -q '^PPid:.1$' $p/status 2>/dev/null && grep -q supervisor $p/cmdline && echo "${p#/proc/}"; done; true`))
	if inner == "" {
		t.Fatal("the guard has no child")
	}
	shell("kill -KILL " + inner)
	if code := p.Exit(); code != 128+int(syscall.SIGKILL) {
		t.Errorf("the container ended with %d when what the guard guards was killed", code)
	}
}
