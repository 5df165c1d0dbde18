package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/proc"
	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
	"github.com/reeve-run/reeve/services/supervisor/internal/launch"
	"github.com/reeve-run/reeve/services/supervisor/internal/process"
)

// AloneConfig says which agent runs alone.
type AloneConfig struct {
	// Agent is its spec, checked and with its defaults. Its restart policy doesn't count: what ends stays down.
	Agent *spec.Agent
	// AgentsDir is the directory that Agent.Dir is below.
	AgentsDir string
	// Environ is the environment of which the agent sees an allow-list. Defaults to the process's.
	Environ []string
	// Log gets every line of the agent's log, one at a time. Defaults to dropping them.
	Log func(line string)
}

// Alone is one instance of an agent without Kafka and registry: started, pinged and ended as a supervisor does it. Its
// methods are for one goroutine.
type Alone struct {
	agent    *spec.Agent
	starter  *process.Starter
	host     *aloneHost
	instance *instance.Instance
	took     time.Duration
}

// AloneError says why an agent doesn't run.
type AloneError struct{ Cause spec.Cause }

func (e *AloneError) Error() string { return e.Cause.Type + ": " + e.Cause.Message }

// StartAlone starts an agent and waits until it has answered its first ping. The error is an *AloneError where the agent
// can't run, and nothing of it is left then.
func StartAlone(ctx context.Context, cfg AloneConfig) (*Alone, error) {
	launcher, err := aloneLauncher(cfg)
	if err != nil {
		return nil, err
	}
	agent := *cfg.Agent
	agent.Process.RestartPolicy = spec.RestartNever
	agent.Process.DrainTimeout = 0 // an attempt that has to end has no neighbors to wait for
	a := &Alone{agent: &agent, starter: process.NewStarter(), host: newAloneHost(cfg.Log)}
	began := time.Now()
	a.instance = instance.Start(instance.Config{
		Agent: &agent, ID: launcher.Mark.Node, Host: a.host, Starter: a.starter, Logger: slog.New(slog.DiscardHandler), WholeLog: true,
		Prepare: func() (process.Command, error) { return launcher.Prepare(&agent, launcher.Mark.Node) },
	})
	select {
	case <-a.host.running:
		a.took = time.Since(began)
		return a, nil
	case <-a.host.down:
		a.Stop()
		return nil, &AloneError{a.host.cause}
	case <-ctx.Done():
		a.Stop()
		return nil, ctx.Err()
	}
}

func aloneLauncher(cfg AloneConfig) (launch.Launcher, error) {
	host, err := os.Hostname()
	if err != nil {
		return launch.Launcher{}, fmt.Errorf("ask for the host's name: %w", err)
	}
	life, err := proc.Life(os.Getpid())
	if err != nil {
		return launch.Launcher{}, fmt.Errorf("run an agent: it needs /proc: %w", err)
	}
	files, err := adapters()
	if err != nil {
		return launch.Launcher{}, err
	}
	environ := cfg.Environ
	if environ == nil {
		environ = os.Environ()
	}
	mark := proc.Mark{Host: host, Node: "alone-" + strconv.Itoa(os.Getpid()), Life: life}
	return launch.Launcher{AgentsDir: cfg.AgentsDir, Adapters: files, Environ: environ, Mark: mark}, nil
}

// Took is how long the agent needed from its start to its first pong.
func (a *Alone) Took() time.Duration { return a.took }

// Figures wait for the figures of the ping that follows the first: the agent's memory and how long a pong takes.
func (a *Alone) Figures(ctx context.Context) (memoryMB float64, pong time.Duration, err error) {
	select {
	case c := <-a.host.checked:
		return c.MemoryMB, c.Latency, nil
	case <-a.host.down:
		return 0, 0, &AloneError{a.host.cause}
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// Run has the agent run one event with a content, JSON, and waits for the end of the attempt. When the context ends, the
// attempt is cut short.
func (a *Alone) Run(ctx context.Context, content json.RawMessage) (worker.Result, error) {
	record, err := aloneEvent(a.agent.Topic, content)
	if err != nil {
		return worker.Result{}, err
	}
	results := make(chan worker.Result, 1)
	attempt := worker.NewAttempt(record, 1, worker.AttemptTimeout(a.agent, 0), false, func(r worker.Result) { results <- r })
	if !a.instance.Run([]*worker.Attempt{attempt}) {
		<-a.host.down
		return worker.Result{}, &AloneError{a.host.cause}
	}
	select {
	case r := <-results:
		return r, nil
	case <-ctx.Done():
		a.instance.Stop(instance.Order{Reason: "interrupted", Kill: true})
		<-results
		return worker.Result{}, ctx.Err()
	}
}

// aloneEvent is the record that publishing a content makes.
func aloneEvent(topic string, content json.RawMessage) (*kgo.Record, error) {
	value, err := json.Marshal(map[string]any{"id": uuid.NewString(), "topic": topic, "payload": map[string]any{"content": content}})
	if err != nil {
		return nil, fmt.Errorf("encode the event: %w", err)
	}
	return &kgo.Record{Topic: topic, Value: value, Timestamp: time.Now(), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(event.ContentType)}}}, nil
}

// Stop ends the agent as a supervisor does and waits until its processes are dead. It may be called again.
func (a *Alone) Stop() {
	a.instance.Stop(instance.Order{Reason: "done"})
	<-a.instance.Done()
	a.starter.Close()
}

// aloneHost hears what the instance does.
type aloneHost struct {
	log     func(string)
	running chan struct{}
	checked chan instance.Check
	down    chan struct{}
	cause   spec.Cause // once down is closed

	mu   sync.Mutex // guards the log, which standard output's and standard error's readers write, and what is closed
	fell bool
	rose bool
}

var _ instance.Host = (*aloneHost)(nil)

func newAloneHost(log func(string)) *aloneHost {
	if log == nil {
		log = func(string) {}
	}
	return &aloneHost{log: log, running: make(chan struct{}), down: make(chan struct{}), checked: make(chan instance.Check, 1)}
}

func (h *aloneHost) Changed(_ *instance.Instance, c instance.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.To == instance.Running && !h.rose {
		h.rose = true
		close(h.running)
	}
	if c.To == instance.Stopped {
		h.fall(instance.Cause("AgentCrashError", "the process ended by itself"))
	}
}

// fall notes the first reason why the instance is down. The lock is held.
func (h *aloneHost) fall(cause spec.Cause) {
	if !h.fell {
		h.fell, h.cause = true, cause
		close(h.down)
	}
}

func (h *aloneHost) Down(_ *instance.Instance, _ instance.Action, cause spec.Cause) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fall(cause)
}

func (h *aloneHost) Checked(_ *instance.Instance, c instance.Check) {
	if c.Latency == 0 {
		return // no pong
	}
	select {
	case h.checked <- c:
	default:
	}
}

func (h *aloneHost) Output(_ *instance.Instance, line string, _ int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log(line)
}

func (h *aloneHost) Returned(_ *instance.Instance, as []*worker.Attempt) {
	for _, a := range as { // it wasn't sent: the process is going, or doesn't read
		a.Finish(worker.Result{CutShort: true})
	}
}

func (h *aloneHost) Freed(*instance.Instance, int) {}

func (h *aloneHost) Replace(*instance.Instance, string) {}
