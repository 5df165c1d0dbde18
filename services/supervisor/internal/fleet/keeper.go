package fleet

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/supervisor/internal/pool"
)

const (
	// look is how often a keeper looks at what nobody tells it of: the partitions that it owns, a topic that isn't there.
	look = 500 * time.Millisecond
	// idleSpell is how long a worker without partitions keeps its processes: they may come back with the next rebalance.
	idleSpell = 10 * time.Second
	// stopDrain bounds the wait for running attempts when the service stops; with what follows, a stop stays below the
	// minute that a process has.
	stopDrain = 30 * time.Second
)

// Keeper runs one agent as its spec wants.
type Keeper struct {
	env    *Environment
	key    string
	fail   func(error)
	log    *slog.Logger
	wanted chan struct{} // something was desired
	moved  chan struct{} // partitions came

	wishes  worker.Wishes // about its tasks
	mu      sync.Mutex
	desired *spec.Agent // nil: deleted
	report  status.AgentReport

	// Only the goroutine of Run touches these.
	spec   *spec.Agent // that the processes follow; nil while off
	pool   *pool.Pool
	engine *worker.Engine
	idle   time.Time // since when no partition is owned
	alert  string    // kind of the alert that stands
	topics topicCheck
}

func newKeeper(env *Environment, a *spec.Agent, fail func(error)) *Keeper {
	k := &Keeper{env: env, key: a.Key(), desired: a, fail: fail, wanted: make(chan struct{}, 1), moved: make(chan struct{}, 1), log: env.Logger.With(slog.String("agent", a.Ref()))}
	k.report = status.AgentReport{Topic: a.Topic, AgentName: a.Name, State: status.ReportIdle, Generation: a.Generation}
	k.wanted <- struct{}{}
	return k
}

// Desire changes what the keeper converges to. It doesn't block.
func (k *Keeper) Desire(a *spec.Agent) {
	k.mu.Lock()
	k.desired = a
	k.mu.Unlock()
	select {
	case k.wanted <- struct{}{}:
	default:
	}
}

// Report is what the keeper says of its agent; ok is false once the agent was deleted.
func (k *Keeper) Report() (r status.AgentReport, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.report, k.desired != nil
}

// gone reports whether the agent's record is.
func (k *Keeper) gone() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.desired == nil
}

// Run keeps the agent until the context ends, and then stops what runs; or until the agent's record and all that ran of it are
// gone.
func (k *Keeper) Run(ctx context.Context) {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			k.stop()
			return
		case <-k.wanted:
			k.converge(ctx)
		case <-k.changes():
		case <-k.moved: // what came waits for the processes that it needs
			k.resize(time.Now())
		case <-ticker.C:
			k.resize(time.Now())
		case err := <-k.failed():
			k.lost(ctx, err)
		}
		k.membership(ctx)
		k.tell()
		if k.pool == nil && k.gone() {
			k.off(ctx, nil) // what was told of it is taken back
			return
		}
	}
}

func (k *Keeper) changes() <-chan struct{} {
	if k.pool == nil {
		return nil
	}
	return k.pool.Changes()
}

func (k *Keeper) failed() <-chan error {
	if k.engine == nil {
		return nil
	}
	return k.engine.Failed()
}

// converge takes the step from what runs to what is wanted.
func (k *Keeper) converge(ctx context.Context) {
	k.mu.Lock()
	want := k.desired
	k.mu.Unlock()
	switch {
	case !runnable(want):
		k.off(ctx, want)
	case k.pool == nil:
		k.on(want)
	default:
		k.adapt(want)
	}
}

// on starts the first process. There will be as many as wanted when the worker owns partitions.
func (k *Keeper) on(a *spec.Agent) {
	k.spec, k.idle = a, time.Time{}
	k.pool = pool.New(pool.Config{Agent: a, Starter: k.env.Starter, Observer: observer{k}, Prepare: k.env.Launcher.Prepare, NextID: k.env.nextID, Names: k.env.Names, Logger: k.log})
	k.pool.Resize(1)
}

// adapt follows a changed spec.
func (k *Keeper) adapt(a *spec.Agent) {
	old := k.spec
	k.spec = a
	switch {
	case recast(old, a):
		k.pool.Replace(a, "spec changed")
	case old.RestartNonce != a.RestartNonce:
		k.pool.Replace(a, "restart")
	case old.ResetNonce != a.ResetNonce:
		k.pool.Adopt(a)
		k.pool.Reset()
	default:
		k.pool.Adopt(a)
	}
	if k.engine != nil {
		k.engine.Update(a)
	}
	k.resize(time.Now())
}

// resize runs this worker's share of the agent's instances.
func (k *Keeper) resize(now time.Time) {
	if k.engine == nil || k.pool == nil {
		return
	}
	owned := k.engine.Figures().Partitions
	if owned > 0 {
		k.idle = time.Time{}
	} else if k.idle.IsZero() {
		k.idle = now
	}
	if owned > 0 || now.Sub(k.idle) > idleSpell {
		k.pool.Resize(pool.Share(k.spec.Pool.Min, owned, int(k.spec.Partitions)))
	}
}

// membership joins the group when an instance runs, and leaves it when all are down.
func (k *Keeper) membership(ctx context.Context) {
	if k.pool == nil {
		return
	}
	s := k.pool.Status()
	switch {
	case k.engine == nil && s.Running > 0:
		if err := k.join(ctx); err != nil && ctx.Err() == nil && k.topics.news(err) {
			k.log.Warn("join the work group", slog.Any("error", kafka.Explained("look up the task topic", err)))
		}
	case k.engine != nil && s.Down != nil && s.Running == 0:
		k.leave(ctx, k.spec.Process.DrainTimeout.Duration())
	case k.engine != nil:
		k.checkDLQ(ctx, time.Now())
	}
	k.raise(s)
}

// join starts the engine, if the task topic exists; the dispatcher makes it.
func (k *Keeper) join(ctx context.Context) error {
	name := k.env.Names.Tasks(k.spec.Topic, k.spec.Name)
	found, err := kadm.NewClient(k.env.Client).ListTopics(ctx, name)
	if err != nil {
		return err
	}
	t := found[name]
	if t.Err != nil || len(t.Partitions) == 0 {
		return nil // looked for again before long
	}
	if err := worker.Remembered(ctx, k.env.Client, k.env.Names, k.spec, t.ID); err != nil {
		return err
	}
	e := worker.New(worker.Config{
		Pool: k.env.Pool, Opts: k.env.Opts, Names: k.env.Names, Spec: k.spec, Service: k.env.Service, Node: k.env.Node, Runner: k.pool,
		Tiers: k.env.Kafka.RetryTiers, Replication: k.env.Kafka.Replication, CreateReplyTopics: k.env.CreateTopics,
		Alert: k.engineAlert, Progress: k.progress, Assigned: k.assigned, Logger: k.env.Logger,
	})
	k.wishes.Attach(e)
	if err := e.Start(); err != nil {
		return err
	}
	k.engine = e
	k.topics.begin()
	k.pool.Attach(e.Kick)
	e.Kick()
	return nil
}

// assigned has the processes counted anew at once.
func (k *Keeper) assigned() {
	select {
	case k.moved <- struct{}{}:
	default:
	}
}

// leave drains and leaves the group by name.
func (k *Keeper) leave(ctx context.Context, drain time.Duration) {
	k.set(status.ReportLeaving, nil)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	// A stop of the service waits no longer for this drain than for one of its own.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopDrain, cancel) })()
	if err := k.engine.Leave(limit); err != nil {
		k.log.Warn("leave the work group", slog.Any("error", err))
	}
	k.engine = nil
	k.wishes.Attach(nil)
	k.pool.Attach(func() {})
}

// off ends everything of the agent.
func (k *Keeper) off(ctx context.Context, want *spec.Agent) {
	if want == nil || want.Phase != spec.Error { // of that phase the alert is the reason
		defer k.settle()
	}
	if k.pool == nil {
		return
	}
	k.pool.Freeze()
	if k.engine != nil {
		k.leave(ctx, k.spec.Process.DrainTimeout.Duration())
	}
	k.endTopicAlert("the agent is to run no more")
	reason := "deleted"
	if want != nil {
		reason = string(want.Phase)
	}
	k.pool.Close(0, reason)
	k.pool, k.spec = nil, nil
}

// stop ends everything because the service stops. The group isn't left, so that a restart finds its partitions.
func (k *Keeper) stop() {
	if k.pool == nil {
		return
	}
	k.pool.Freeze()
	if k.engine != nil {
		k.set(status.ReportLeaving, nil)
		ctx, cancel := context.WithTimeout(context.Background(), min(k.spec.Process.DrainTimeout.Duration(), stopDrain))
		defer cancel()
		k.engine.Stop(ctx)
		k.engine = nil
	}
	k.pool.Close(0, "the supervisor stops")
	k.pool = nil
	k.set(status.ReportIdle, nil)
}

// lost handles an engine that ended by itself.
func (k *Keeper) lost(ctx context.Context, err error) {
	now, cancel := context.WithCancel(ctx)
	cancel() // nothing that runs may be settled any more, so it isn't waited for
	k.engine.Stop(now)
	k.engine = nil
	if errors.Is(err, hop.ErrReplaced) {
		k.fail(k.env.replaced(ctx, err))
	} else {
		k.log.Warn("the worker ended and is started again", slog.Any("error", err))
	}
}
