//go:build containers

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/tests/harness"
	"github.com/reeve-run/reeve/tests/harness/containers"

	"github.com/reeve-run/reeve/internal/testenv"
)

// healthyLimit is what the stack may take from `up` to healthy, its images being there.
const healthyLimit = 120 * time.Second

// The repository's compose file, scaled to two dispatchers and two supervisors: the demo's events end as they must, and
// with one of each killed in the middle nothing is lost and nothing finished twice.
func TestComposeRunsTheDemoAlsoWhenServicesAreKilled(t *testing.T) {
	c := newCompose(t)
	begun := time.Now()
	c.up(t)
	took := time.Since(begun)
	t.Logf("healthy after %s", took.Round(100*time.Millisecond))
	if took > healthyLimit {
		t.Errorf("it took more than %s", healthyLimit)
	}
	// As the documentation has it: the agents that the stack brings along, by the command line in a container.
	c.command(t, "run", "--rm", "-T", "reeve", "apply", "-f", "agents.yaml")
	c.command(t, "run", "--rm", "-T", "reeve", "apply", "-f", "agents-node.yaml")

	sys := &harness.System{Config: harness.Config{Brokers: []string{c.kafka}, Prefix: "reeve"}}
	l := followLedger(t, sys)
	demo := c.demo(t)
	if err := demo.wait(); err != nil {
		t.Fatalf("the demo: %v\n%s", err, &demo.out)
	}
	t.Logf("undisturbed:\n%s", summary(demo.out.String()))

	l.await(t, 1)
	l.drain()
	tasks := l.done
	demo = c.demo(t, "-interrupted", "-rate", "200")
	l.await(t, tasks+tasks/5)
	c.kill(t, "dispatcher")
	l.await(t, tasks+tasks*2/5)
	c.kill(t, "supervisor")
	killed := l.done - tasks
	if err := demo.wait(); err != nil {
		t.Fatalf("the demo while services are killed: %v\n%s", err, &demo.out)
	}
	t.Logf("a dispatcher and a supervisor killed, the second when %d of %d tasks were finished:\n%s", killed, tasks, summary(demo.out.String()))
	l.await(t, 2*tasks)
	l.check(t)
	if l.done != 2*tasks {
		t.Errorf("%d tasks are finished, not %d", l.done, 2*tasks)
	}
	c.up(t) // brings back what is missing
	if n := len(strings.Fields(c.command(t, "ps", "-q", "dispatcher", "supervisor"))); n != 4 {
		t.Errorf("%d dispatchers and supervisors run after another up, not 4", n)
	}
}

// compose is a project of the repository's compose file, on ports of its own.
type compose struct {
	root, project, registry, kafka, key string
}

func newCompose(t *testing.T) *compose {
	t.Helper()
	containers.Need(t)
	root, err := harness.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := testenv.FreeAddrs(2)
	if err != nil {
		t.Fatal(err)
	}
	c := &compose{root: root, project: strings.ToLower(testenv.Unique()), registry: addrs[0], kafka: addrs[1], key: "key-of-the-test"}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.run(context.Background(), "logs", "--tail", "50"))
		}
		if out, err := c.run(context.Background(), "--profile", "*", "down", "--volumes", "--timeout", "20"); err != nil {
			t.Errorf("docker compose down: %v\n%s", err, out)
		}
	})
	return c
}

func (c *compose) up(t *testing.T) {
	t.Helper()
	c.command(t, "up", "--detach", "--wait", "--no-build", "--scale", "dispatcher=2", "--scale", "supervisor=2")
}

// command runs docker compose, which has to succeed, and gives its standard output.
func (c *compose) command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.run(t.Context(), args...)
	if err != nil {
		t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *compose) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", append([]string{"compose", "--project-name", c.project, "--progress", "quiet"}, args...)...)
	cmd.Dir, cmd.Env = c.root, c.environ()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), err
	}
	return stdout.String(), nil
}

func (c *compose) environ() []string {
	return append(harness.Environ(), "REGISTRY_PORT="+after(c.registry), "KAFKA_PORT="+after(c.kafka), "REEVE_ADMIN_KEY="+c.key)
}

func after(addr string) string {
	_, port, _ := strings.Cut(addr, ":")
	return port
}

// kill kills one container of a service, for good.
func (c *compose) kill(t *testing.T, service string) {
	t.Helper()
	ids := strings.Fields(c.command(t, "ps", "--quiet", service))
	if len(ids) != 2 {
		t.Fatalf("%d containers of %s run, not 2", len(ids), service)
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "kill", ids[0]).CombinedOutput(); err != nil {
		t.Fatalf("docker kill: %v\n%s", err, out)
	}
}

// demoRun is the demo's driver, attached to the stack.
type demoRun struct {
	out  bytes.Buffer
	wait func() error
}

func (c *compose) demo(t *testing.T, args ...string) *demoRun {
	t.Helper()
	if err := harness.Build(t.Context(), binaries.Dir(t), "demo"); err != nil {
		t.Fatal(err)
	}
	d := &demoRun{}
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries.Dir(t), "demo"), append([]string{"-attach", "-reeve", filepath.Join(binaries.Dir(t), "reeve")}, args...)...)
	cmd.Dir = c.root
	cmd.Env = append(harness.Environ(), "REEVE_URL=http://"+c.registry, "REEVE_KAFKA_BROKERS="+c.kafka, "REEVE_API_KEY="+c.key)
	cmd.Stdout, cmd.Stderr = &d.out, &d.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.wait = cmd.Wait
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return d
}

// summary is the demo's closing table with what stands below it.
func summary(out string) string {
	if i := strings.LastIndex(out, "From publish to visible outcome"); i >= 0 {
		return out[i:]
	}
	return fmt.Sprintf("no summary:\n%s", out)
}
