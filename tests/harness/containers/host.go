package containers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tcexec "github.com/testcontainers/testcontainers-go/exec"
	tcnetwork "github.com/testcontainers/testcontainers-go/network"

	"github.com/reeve-run/reeve/tests/harness"
)

// callLimit bounds one request to the engine.
const callLimit = 30 * time.Second

// port is where an image's service listens.
func port(service string) string {
	return map[string]string{"registry": "8765/tcp", "dispatcher": "8766/tcp", "supervisor": "8767/tcp"}[service]
}

// host runs a System's services, each in a container of its image.
type host struct {
	stack *Stack

	mu  sync.Mutex
	all []*running
}

// Launch starts a service. Each start is a new container; the node's name is what stays.
func (h *host) Launch(service, node, agents string, env []string) (*harness.Process, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	name := service + "." + node
	variables := map[string]string{"REEVE_KAFKA_BROKERS": insideKafka}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		variables[name] = value
	}
	options := []testcontainers.ContainerCustomizer{
		tcnetwork.WithNetwork(nil, h.stack.net),
		testcontainers.WithExposedPorts(port(service)),
		testcontainers.WithEnv(variables),
		testcontainers.WithHostConfigModifier(func(c *container.HostConfig) {
			c.ReadonlyRootfs, c.CapDrop, c.SecurityOpt = true, []string{"ALL"}, []string{"no-new-privileges:true"}
			c.Tmpfs = map[string]string{"/tmp": "exec"}
			if service == "supervisor" {
				c.Binds = []string{agents + ":/agents:ro"}
			}
		}),
	}
	c, err := testcontainers.Run(ctx, "reeve-"+service, options...)
	if err != nil {
		return nil, fmt.Errorf("start %s in a container (`make images` makes its image): %w", name, err)
	}
	url, err := c.PortEndpoint(ctx, port(service), "http")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find the port of %s: %w", name, err), c.Terminate(ctx))
	}
	r := &running{name: name, client: h.stack.client, container: c}
	h.mu.Lock()
	h.all = append(h.all, r)
	h.mu.Unlock()
	return harness.NewProcess(name, url, 0, r), nil
}

// Marked looks into every supervisor's /proc: only they have agents, and their image has a shell.
func (h *host) Marked(mark string) (int, error) {
	h.mu.Lock()
	all := h.all
	h.mu.Unlock()
	total := 0
	for _, r := range all {
		n, err := r.marked(mark)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// Shell runs a script in the container of a System's supervisor and gives what it says.
func Shell(sys *harness.System, supervisor *harness.Process, script string) (string, error) {
	h, ok := sys.Host.(*host)
	if !ok {
		return "", errors.New("the system runs in no containers")
	}
	h.mu.Lock()
	all := h.all
	h.mu.Unlock()
	for _, r := range slices.Backward(all) { // a node that was started again is the last of its name
		if r.name == supervisor.Name {
			return r.shell(script)
		}
	}
	return "", fmt.Errorf("no container is %s", supervisor.Name)
}

// remove removes the containers, which have ended.
func (h *host) remove(t *testing.T) {
	for _, r := range h.all {
		if err := testcontainers.TerminateContainer(r.container); err != nil {
			t.Error(err)
		}
	}
}

// running is one container.
type running struct {
	name      string // service.node
	client    *testcontainers.DockerClient
	container *testcontainers.DockerContainer
}

func (r *running) Signal(s syscall.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	_, err := r.client.ContainerKill(ctx, r.container.GetContainerID(), client.ContainerKillOptions{Signal: strconv.Itoa(int(s))})
	return err
}

// Wait waits as long as the container runs.
func (r *running) Wait() (int, error) {
	waited := r.client.ContainerWait(context.Background(), r.container.GetContainerID(), client.ContainerWaitOptions{})
	select {
	case err := <-waited.Error:
		return -1, err
	case ended := <-waited.Result:
		if ended.Error != nil {
			return -1, errors.New(ended.Error.Message)
		}
		return int(ended.StatusCode), nil
	}
}

func (r *running) Log() string {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	log, err := r.container.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer log.Close()
	return text(log)
}

// marked counts the container's processes that bear a mark.
func (r *running) marked(mark string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	state, err := r.container.State(ctx)
	if err != nil || !state.Running || !strings.HasPrefix(r.name, "supervisor.") {
		return 0, err
	}
	out, err := r.shell(`grep -lzxF -- "$1" /proc/[0-9]*/environ 2>/dev/null | wc -l`, mark)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

func (r *running) shell(script string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	code, out, err := r.container.Exec(ctx, append([]string{"sh", "-c", script, "sh"}, args...), tcexec.Multiplexed())
	if err != nil || code != 0 {
		return "", fmt.Errorf("run a script in %s: exit code %d, %w", r.name, code, err)
	}
	return text(out), nil
}

func text(r io.Reader) string {
	var b bytes.Buffer
	_, _ = b.ReadFrom(r) // what came is said
	return b.String()
}
