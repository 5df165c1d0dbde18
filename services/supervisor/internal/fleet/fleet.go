package fleet

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/control"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
)

// Fleet is all agents of a supervisor. Run may be called once.
type Fleet struct {
	env     *Environment
	started chan struct{}
	fatal   chan error
	running sync.WaitGroup

	mu      sync.Mutex
	ctx     context.Context // nil while nothing may be started
	keepers map[string]*Keeper
}

var _ control.Handler = (*Fleet)(nil)

// New makes a fleet.
func New(env *Environment) *Fleet {
	return &Fleet{env: env, started: make(chan struct{}), fatal: make(chan error, 1), keepers: map[string]*Keeper{}}
}

// Started is closed when the desired state as of the start was read.
func (f *Fleet) Started() <-chan struct{} { return f.started }

// Run converges until the context ends and then stops all agents. An error says why it ended by itself.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	var parts sync.WaitGroup
	parts.Go(func() {
		err := control.Follow(ctx, f.env.Opts, f.env.Names, f.env.Logger, f)
		if ctx.Err() == nil {
			f.fail(err)
		}
	})
	parts.Go(func() {
		select { // what is asked for is about agents: they come first
		case <-ctx.Done():
			return
		case <-f.started:
		}
		err := command.NewFollower(command.Config{Opts: f.env.Opts, Names: f.env.Names, Handlers: f.handlers(), Logger: f.env.Logger}).Run(ctx)
		if ctx.Err() == nil {
			f.fail(err)
		}
	})
	parts.Go(func() { // where no agent runs, no work group would say that a newer process has come
		if err := hop.HoldName(ctx, f.env.Client, f.env.Names, f.env.Service, f.env.Node, f.env.Logger); err != nil {
			f.fail(f.env.replaced(ctx, err))
		}
	})
	beats, endBeats := context.WithCancel(context.WithoutCancel(ctx)) // they go on while the agents are stopped
	var beating sync.WaitGroup
	beating.Go(func() { f.heartbeats(beats) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-f.fatal:
	}
	stop()
	parts.Wait()
	f.mu.Lock()
	f.ctx = nil
	f.mu.Unlock()
	f.running.Wait()
	endBeats()
	beating.Wait()
	f.env.Reporter.Node(f.reports(), true)
	return err
}

func (f *Fleet) fail(err error) {
	select {
	case f.fatal <- err:
	default:
	}
}

// Ready takes over the desired state as of the start.
func (f *Fleet) Ready(all map[string]*spec.Agent) {
	for key, a := range all {
		f.Changed(key, a)
	}
	close(f.started)
}

// Changed takes over one agent's newer state.
func (f *Fleet) Changed(key string, a *spec.Agent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.keepers[key]
	switch {
	case k != nil:
		k.Desire(a)
	case a != nil && f.ctx != nil:
		k = newKeeper(f.env, a, f.fail)
		f.keepers[key] = k
		ctx := f.ctx
		f.running.Go(func() {
			for k.Run(ctx); !f.retire(ctx, key, k); k.Run(ctx) {
			}
		})
	}
}

// retire lets go of a keeper whose agent's record is gone. It reports false where the agent has a record again: the keeper goes
// on then.
func (f *Fleet) retire(ctx context.Context, key string, k *Keeper) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return true
	}
	if !k.gone() {
		return false
	}
	delete(f.keepers, key)
	return true
}

func (f *Fleet) heartbeats(ctx context.Context) {
	t := time.NewTicker(status.NodeInterval)
	defer t.Stop()
	for {
		f.env.Reporter.Node(f.reports(), false)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (f *Fleet) reports() []status.AgentReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]status.AgentReport, 0, len(f.keepers))
	for _, k := range f.keepers {
		if r, ok := k.Report(); ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b status.AgentReport) int {
		return strings.Compare(a.Topic+"/"+a.AgentName, b.Topic+"/"+b.AgentName)
	})
	return out
}
