package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	// service names these programs among the services: in static members, transactional ids, heartbeats.
	service = "worker"
	// connectLimit is how long a start tries to reach Kafka, and then the registry: either may be starting too.
	connectLimit = 10 * time.Second
	// flushLimit bounds the wait for the last report, and for the last call of OnAlert.
	flushLimit = 2 * time.Second
	// reportLimit is when a report that can't be written is out of date.
	reportLimit = 10 * time.Second
)

// Errors of a Runner that is used in the wrong order.
var (
	ErrStarted    = errors.New("the runner was started before: make a new one")
	ErrNotStarted = errors.New("the runner isn't running: start it first")
	ErrStopped    = errors.New("the runner has stopped: make a new one")
)

// Run runs agents until the context ends, and then stops them in good order: it is NewRunner, Register and Runner.Run in
// one. It returns nil after a clean stop.
func Run(ctx context.Context, o Options, agents ...Agent) error {
	r, err := NewRunner(o)
	if err != nil {
		return err
	}
	for _, a := range agents {
		if err := r.Register(ctx, a); err != nil {
			return err
		}
	}
	return r.Run(ctx)
}

// Runner runs agents of a Go program. Its methods are safe for concurrent use.
type Runner struct {
	opts  Options
	names topics.Names
	log   *slog.Logger
	rest  *client.ClientWithResponses
	ready chan struct{}
	done  chan struct{} // it runs no more

	read chan struct{} // the control topic was read to the end that it had at the start

	// moving is held by Start, Shutdown and a Register on a Runner that runs: they follow one another.
	moving sync.Mutex

	mu        sync.Mutex
	state     state
	err       error // why it ended by itself
	keepers   map[string]*keeper
	known     map[string]*spec.Agent // what the control topic says
	readyOnce sync.Once
	running   *running
}

type state int

const (
	idle state = iota
	started
	stopped
)

// NewRunner checks the options. Nothing is connected to before Start.
func NewRunner(o Options) (*Runner, error) {
	o, err := o.resolve()
	if err != nil {
		return nil, err
	}
	rest, err := client.New(client.Config{URL: o.URL, Key: o.Key, HTTP: o.HTTP})
	if err != nil {
		return nil, fmt.Errorf("configure the runner: %w", err)
	}
	return &Runner{
		opts: o, names: topics.Names{Prefix: o.Prefix}, log: o.Logger.With(slog.String("node", o.Node)), rest: rest,
		ready: make(chan struct{}), done: make(chan struct{}), read: make(chan struct{}), keepers: map[string]*keeper{},
	}, nil
}

// Register adds an agent. Before Start it only checks it, and the context doesn't matter; Start registers all. On a Runner
// that runs it registers the agent with the registry and begins to serve it, and resumes it where it was paused without
// hold.
func (r *Runner) Register(ctx context.Context, a Agent) error {
	s, err := a.Spec(r.names, r.opts.RetryTiers)
	if err != nil {
		return err
	}
	if a.Handler == nil {
		return fmt.Errorf("register the agent %s: its handler is missing: give the function that runs the tasks, as agent.Handle(f)", s.Ref())
	}
	r.moving.Lock()
	defer r.moving.Unlock()
	k := newKeeper(r, a, s)
	runs, err := r.add(k)
	if err != nil {
		return fmt.Errorf("register the agent %s: %w", s.Ref(), err)
	}
	if !runs {
		return nil
	}
	if err := r.announce(ctx, k); err != nil {
		r.mu.Lock()
		delete(r.keepers, s.Key())
		r.mu.Unlock()
		return err
	}
	r.keep(k)
	return nil
}

// add takes an agent in, and reports whether the Runner runs.
func (r *Runner) add(k *keeper) (runs bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == stopped {
		return false, ErrStopped
	}
	if _, twice := r.keepers[k.own.Key()]; twice {
		return false, errors.New("this runner has it already: give one of them another name")
	}
	r.keepers[k.own.Key()] = k
	return r.state == started, nil
}

// Start connects, registers the agents and begins to serve them; the context bounds the start alone. With the registry
// away, agents that the control topic knows are served all the same and registered when it is back; one that it doesn't
// know can't be started. Ready says when all agents are served. A start that fails leaves nothing behind.
func (r *Runner) Start(ctx context.Context) error {
	r.moving.Lock()
	defer r.moving.Unlock()
	if r.now() != idle {
		return ErrStarted
	}
	run, err := r.connect(ctx)
	if err != nil {
		r.end()
		return err
	}
	r.mu.Lock()
	r.state, r.running = started, run
	keepers := r.sorted()
	r.mu.Unlock()
	run.loops.Go(func() { r.follow(run) })
	run.loops.Go(func() { r.obey(run) })
	run.loops.Go(func() { r.holdName(run) })
	go func() { // nobody can end an OnAlert that doesn't return, so stop waits for it only so long
		defer close(run.told)
		r.tellAlerts(run)
	}()
	for _, k := range keepers {
		if err := r.announce(ctx, k); err != nil {
			return errors.Join(err, r.stop(ctx))
		}
	}
	for _, k := range keepers {
		r.keep(k)
	}
	run.beating.Go(func() { r.beat(run) })
	r.log.Info("running agents", slog.Int("agents", len(keepers)), slog.String("registry", r.opts.URL), slog.Any("brokers", r.opts.Brokers))
	if len(keepers) == 0 {
		r.served()
	}
	return nil
}

// Run is Start, the wait for the context's end, and Shutdown. An error says why the runner couldn't start, ended by
// itself, or didn't stop cleanly. A context that ends during the start is none.
func (r *Runner) Run(ctx context.Context) error {
	if err := r.Start(ctx); err != nil {
		if ctx.Err() != nil {
			r.log.Warn("stopped before it had started", slog.Any("error", err))
			return nil
		}
		return err
	}
	select {
	case <-ctx.Done():
	case <-r.Failed():
	}
	return errors.Join(r.Err(), r.Shutdown(context.WithoutCancel(ctx)))
}

// Failed is closed when the Runner can't go on, and Err says why; it has still to be shut down. It is closed by a Shutdown
// too. Before Start it is nil.
func (r *Runner) Failed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == nil {
		return nil
	}
	return r.running.life.Done()
}

// Shutdown stops: no task starts any more, those that run are awaited for their agent's DrainTimeout at most, then
// cancelled, and everything that is settled is committed. The end of the context takes the patience away. A handler that
// goes on all the same is left behind, and the error says so; its task runs again elsewhere. The agents stay registered
// and active. A Runner that isn't running is no error.
func (r *Runner) Shutdown(ctx context.Context) error {
	r.moving.Lock()
	defer r.moving.Unlock()
	if r.now() != started {
		return nil
	}
	return r.stop(ctx)
}

func (r *Runner) now() state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// stop ends what runs.
func (r *Runner) stop(ctx context.Context) error {
	r.mu.Lock()
	run := r.running
	if run.life.Err() == nil {
		run.drain = ctx
	}
	keepers := r.sorted()
	r.mu.Unlock()
	run.end()
	run.loops.Wait()
	run.work.Wait()
	run.endBeat()
	run.beating.Wait()
	run.reporter.Node(r.reports(), true)
	flushed, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	_ = run.client.Flush(flushed) // the last heartbeat; nobody needs it badly
	run.close()
	r.end()
	errs := []error{run.alertsEnded()}
	for _, k := range keepers {
		errs = append(errs, k.leftBehind())
	}
	return errors.Join(errs...)
}

// end closes the Runner for good.
func (r *Runner) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = stopped
	close(r.done)
}

// fail ends a Runner that can't go on. Shutdown has still to be called.
func (r *Runner) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil || r.running.life.Err() != nil {
		return
	}
	r.err = err
	now, cancel := context.WithCancel(context.Background())
	cancel()
	r.running.drain = now // nothing that runs may be settled any more, so it isn't waited for
	r.running.end()
}

// Ready is closed when every agent is served, or is not to be (paused, deleted) as the control topic says.
func (r *Runner) Ready() <-chan struct{} { return r.ready }

func (r *Runner) served() { r.readyOnce.Do(func() { close(r.ready) }) }

// Done is closed when the Runner has stopped.
func (r *Runner) Done() <-chan struct{} { return r.done }

// Err is why the Runner ended by itself; nil while it runs and after a Shutdown. A program with the same Node that was
// started later is such a reason.
func (r *Runner) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Healthy is nil while every agent that is active is served, and else says what is wrong: for a readiness probe.
func (r *Runner) Healthy() error {
	r.mu.Lock()
	state, err := r.state, r.err
	keepers := r.sorted()
	r.mu.Unlock()
	switch {
	case err != nil:
		return err
	case state != started:
		return ErrNotStarted
	}
	var errs []error
	for _, k := range keepers {
		errs = append(errs, k.healthy())
	}
	return errors.Join(errs...)
}

func (r *Runner) all() []*keeper {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sorted()
}

// sorted gives the keepers by key. The lock is held.
func (r *Runner) sorted() []*keeper {
	ks := make([]*keeper, 0, len(r.keepers))
	for _, k := range r.keepers {
		ks = append(ks, k)
	}
	slices.SortFunc(ks, func(a, b *keeper) int { return strings.Compare(a.own.Ref(), b.own.Ref()) })
	return ks
}

// keep starts an agent's keeper.
func (r *Runner) keep(k *keeper) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.known[k.own.Key()]; ok {
		k.desire(a)
	}
	run := r.running
	run.work.Go(func() { k.run(run) })
}

// lookReady closes ready once every agent is where it is to be.
func (r *Runner) lookReady() {
	for _, k := range r.all() {
		if !k.settled() {
			return
		}
	}
	r.served()
}
