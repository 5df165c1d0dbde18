package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

const (
	// lookForTopic is how often a keeper looks for a task topic that isn't there; the dispatcher makes it.
	lookForTopic = 500 * time.Millisecond
	// lookForGroup is how often it looks whether the group has taken it in.
	lookForGroup = 25 * time.Millisecond
	// cancelPause is how long a stop waits for functions whose context it has ended.
	cancelPause = 5 * time.Second
	// endPause is how long it then takes at most to see that they have all ended.
	endPause = 100 * time.Millisecond
)

// keeper converges one agent of a Runner to its desired state:
//
//	not active ───────────► not a member of the work group, no function runs
//	active ───────────────► a member, as soon as the task topic is there
//	active, spec changed ─► settled and started by the newer one; another concurrency needs another FuncRunner
type keeper struct {
	runner *Runner
	own    *spec.Agent // as the program registers it
	entry  json.RawMessage
	handle Handler
	log    *slog.Logger
	wanted chan struct{} // something was desired
	counts *counts
	wishes worker.Wishes // about its tasks

	mu         sync.Mutex
	desired    *spec.Agent // nil: not registered, or deleted long ago
	generation int64       // of the registration; a desired state from before is out of date
	report     status.AgentReport
	engine     *worker.Engine
	abandoned  <-chan struct{} // functions of an earlier time go on; closed when they have ended

	// Only the goroutine of run touches these.
	spec  *spec.Agent // that the engine follows
	calls *worker.FuncRunner
	said  string // why the group isn't joined, as it was last logged

	overdue bool // an alert of it stands; the heartbeat's
}

func newKeeper(r *Runner, a Agent, own *spec.Agent) *keeper {
	handle := a.Handler
	for i := len(r.opts.Middleware) - 1; i >= 0; i-- {
		handle = r.opts.Middleware[i](handle)
	}
	k := &keeper{runner: r, own: own, entry: a.entry(), handle: handle, wanted: make(chan struct{}, 1), log: r.log.With(slog.String("agent", own.Ref())),
		counts: newCounts(), report: status.AgentReport{Topic: own.Topic, AgentName: own.Name, State: status.ReportIdle}}
	return k
}

// desire changes what the keeper converges to. It doesn't block.
func (k *keeper) desire(a *spec.Agent) {
	k.mu.Lock()
	k.desired = a
	k.mu.Unlock()
	k.poke()
}

// registered says that the registry knows the agent as of a generation.
func (k *keeper) registered(generation int64) {
	k.mu.Lock()
	k.generation = generation
	k.mu.Unlock()
	k.poke()
}

func (k *keeper) poke() {
	select {
	case k.wanted <- struct{}{}:
	default:
	}
}

// run keeps the agent until the Runner stops.
func (k *keeper) run(run *running) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-run.life.Done():
			k.stop(run)
			return
		case <-k.wanted:
		case <-t.C:
		case err := <-k.failed():
			k.lost(run, err)
			continue
		}
		k.converge(run)
		k.tell(run)
		switch {
		case k.settled():
			k.runner.lookReady()
		case k.engine != nil:
			t.Reset(lookForGroup)
		default:
			t.Reset(lookForTopic)
		}
	}
}

func (k *keeper) failed() <-chan error {
	if k.engine == nil {
		return nil
	}
	return k.engine.Failed()
}

// runnable reports whether the agent is to run. A nil spec is one that isn't registered.
func runnable(a *spec.Agent) bool {
	return a != nil && a.Phase == spec.Active && !a.Cleaning() && a.Runtime == spec.SDK
}

// converge takes the step from what runs to what is wanted.
func (k *keeper) converge(run *running) {
	k.mu.Lock()
	want := k.desired
	k.mu.Unlock()
	switch {
	case !runnable(want):
		if k.engine != nil {
			k.leave(run)
		}
	case k.engine == nil:
		k.join(run, want)
	case want == k.spec:
	case want.Config.Concurrency != k.spec.Config.Concurrency || want.Partitions != k.spec.Partitions:
		k.end(run, k.engine.Stop) // and stays a member
		k.join(run, want)
	default:
		k.spec = want
		k.engine.Update(k.versioned(want))
	}
}

// versioned is a spec with the version of this program: it says what ran, whoever registered last.
func (k *keeper) versioned(a *spec.Agent) *spec.Agent {
	b := *a
	b.Version = k.own.Version
	return &b
}

// join joins the work group, if the task topic exists and no function of an earlier time goes on.
func (k *keeper) join(run *running, a *spec.Agent) {
	if k.leftBehind() != nil {
		return
	}
	k.abandon(nil)
	tasks := k.runner.names.Tasks(a.Topic, a.Name)
	limited, cancel := context.WithTimeout(run.life, connectLimit)
	defer cancel()
	found, err := kadm.NewClient(run.client).ListTopics(limited, tasks)
	if err != nil {
		if run.life.Err() == nil {
			k.log.Warn("look for the task topic", slog.String("topic", tasks), slog.Any("error", err))
		}
		return
	}
	t := found[tasks]
	if t.Err != nil || len(t.Partitions) == 0 {
		return
	}
	if err := worker.Remembered(limited, run.client, k.runner.names, a, t.ID); err != nil {
		if run.life.Err() == nil && err.Error() != k.said {
			k.said = err.Error()
			k.log.Warn("join the work group", slog.Any("error", err))
		}
		return
	}
	k.said = ""
	o := k.runner.opts
	calls := worker.NewFuncRunner(a.Config.Concurrency, k.counted(Func(k.handle, k.versioned(a), k.runner.names)))
	e := worker.New(worker.Config{
		Pool: run.pool, Opts: run.kafka, Names: k.runner.names, Spec: k.versioned(a), Service: service, Node: o.Node, Runner: calls, Tiers: o.RetryTiers,
		Replication: o.Replication, CreateReplyTopics: o.CreateTopics, Logger: k.runner.log, CancelPause: cancelPause,
		Settled: k.counts.settled, Progress: k.progress,
		Alert: func(al worker.Alert) {
			k.engineAlert(run, al)
		},
	})
	if err := e.Start(); err != nil {
		k.log.Warn("join the work group", slog.Any("error", err))
		calls.Close()
		return
	}
	k.spec, k.calls = a, calls
	k.setEngine(e)
	k.wishes.Attach(e)
}

func (k *keeper) counted(f func(context.Context, *worker.Attempt) worker.Result) func(context.Context, *worker.Attempt) worker.Result {
	return func(ctx context.Context, a *worker.Attempt) (r worker.Result) {
		r.Outcome = task.Crashed // where f doesn't return
		defer func() { k.counts.ended(r.Outcome, time.Since(a.Started())) }()
		return f(ctx, a)
	}
}

func (k *keeper) setEngine(e *worker.Engine) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.engine = e
}

// leave drains and leaves the group by name, so that other programs get the partitions at once.
func (k *keeper) leave(run *running) {
	k.set(run, status.ReportLeaving)
	k.end(run, func(ctx context.Context) {
		if err := k.engine.Leave(ctx); err != nil {
			k.log.Warn("leave the work group", slog.Any("error", err))
		}
	})
}

// stop drains because the program stops. The group isn't left, so that a restart finds its partitions.
func (k *keeper) stop(run *running) {
	if k.engine == nil {
		return
	}
	k.set(run, status.ReportLeaving)
	k.end(run, k.engine.Stop)
	k.set(run, status.ReportIdle)
}

// lost handles an engine that ended by itself.
func (k *keeper) lost(run *running, err error) {
	now, cancel := context.WithCancel(context.Background())
	cancel() // nothing that runs may be settled any more, so it isn't waited for
	engine := k.engine
	k.end(run, func(context.Context) { engine.Stop(now) })
	if errors.Is(err, hop.ErrReplaced) {
		k.runner.fail(run.reporter.Replaced(run.life, run.kafka, err))
		return
	}
	k.log.Warn("the worker ended and is started again", slog.Any("error", err))
	k.poke()
}

// end ends the engine by how, which gets as long as tasks that run may take, and then the functions.
func (k *keeper) end(run *running, how func(context.Context)) {
	limit, cancel := context.WithTimeout(context.Background(), k.spec.Process.DrainTimeout.Duration())
	defer cancel()
	// A stop of the program may have less patience.
	defer context.AfterFunc(run.life, func() { context.AfterFunc(run.drain, cancel) })()
	how(limit)
	k.wishes.Attach(nil)
	k.setEngine(nil)
	ended := make(chan struct{})
	calls := k.calls
	k.calls, k.spec = nil, nil
	go func() { // nobody can end a function that ignores its context, so nobody waits for it for ever
		calls.Close()
		close(ended)
	}()
	t := time.NewTimer(endPause)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
		k.abandon(ended)
		k.log.Warn("a function goes on after its attempt was given up: it should end with its context")
	}
}

func (k *keeper) abandon(ended <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.abandoned = ended
}

// leftBehind is an error while functions of an earlier time go on.
func (k *keeper) leftBehind() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.abandoned:
		return nil
	default:
	}
	if k.abandoned == nil {
		return nil
	}
	return fmt.Errorf("a function of the agent %s goes on after its attempt was given up: let it end with its context", k.own.Ref())
}

// settled reports whether the agent is where it is to be.
func (k *keeper) settled() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.desired == nil || k.desired.Generation < k.generation {
		return false
	}
	if runnable(k.desired) {
		return k.engine != nil && k.engine.Figures().Joined
	}
	return k.engine == nil
}
