package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/control"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/dispatcher/internal/redrive"
)

// Fleet is all that a dispatcher does: one keeper an agent, one carrier a retry tier, and the looks and reports that they
// share.
type Fleet struct {
	env      *Environment
	upkeep   *upkeep
	commands *command.Follower
	dead     *redrive.Desks
	reopener *reopener
	ready    chan struct{}
	fatal    chan error // the first counts

	mu      sync.Mutex
	ctx     context.Context // of the keepers; nil before Run and after its end
	keepers map[string]*Keeper
	running sync.WaitGroup
}

// NewFleet does nothing before Run.
func NewFleet(env *Environment) *Fleet {
	f := &Fleet{env: env, upkeep: newUpkeep(env), ready: make(chan struct{}), fatal: make(chan error, 1),
		keepers: make(map[string]*Keeper)}
	env.unrun = worker.NewUnrun(worker.UnrunConfig{Names: env.Names, Client: env.Client, CreateReplyTopics: env.CreateTopics, Replication: env.Kafka.Replication})
	f.dead = f.deadLetters()
	// What finds a command finished is the follower, which is made of what the commands go to.
	env.asks = newAsks(func(id string) bool { return f.commands.Finished(id) }, func(c command.Command, state, message string) { env.Reporter.Command(c, state, message) })
	f.commands = command.NewFollower(command.Config{Opts: env.Opts, Names: env.Names, Handlers: f.handlers(), Logger: env.Logger})
	f.reopener = &reopener{env: env, commands: f.commands, keeper: f.keeper, wake: make(chan struct{}, 1)}
	return f
}

// Started is closed when the desired state was read.
func (f *Fleet) Started() <-chan struct{} { return f.ready }

// Run dispatches until the context ends, and returns nil after an orderly stop. An error says why the process has to
// end, such as a newer one of its name.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	var parts sync.WaitGroup
	for i, tier := range f.env.Tiers {
		parts.Go(func() { f.runTier(ctx, tier, i == 0) })
	}
	for _, tier := range f.env.Tiers {
		parts.Go(func() { f.runWebhookTier(ctx, tier) })
	}
	parts.Go(func() { f.runWebhooks(ctx) })
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
		case <-f.ready:
		}
		if err := f.commands.Run(ctx); ctx.Err() == nil {
			f.fail(err)
		}
	})
	parts.Go(func() { f.dead.Run(ctx) })
	parts.Go(func() { f.reopener.run(ctx) })
	parts.Go(func() { f.looks(ctx) })
	parts.Go(func() { f.heartbeats(ctx) })
	parts.Go(func() { f.upkeep.run(ctx, f.specs) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-f.fatal:
	}
	stop()
	f.mu.Lock()
	f.ctx = nil
	f.mu.Unlock()
	parts.Wait()
	f.running.Wait()
	f.env.Reporter.Node(f.counted(false), true)
	return err
}

func (f *Fleet) fail(err error) {
	select {
	case f.fatal <- err:
	default:
	}
}

// deniedTier alerts that due retries can't be moved for want of a right, and takes it back with nil.
func (f *Fleet) deniedTier(delay time.Duration, err error) {
	f.deniedShared(f.env.Names.RetryGroup(delay), f.env.Names.Retry(delay), "retries are moved again", err)
}

// deniedShared alerts that one of Reeve's own topics can't be consumed for want of a right, and takes it back with nil. Each
// group has an alert of its own.
func (f *Fleet) deniedShared(group, topic, again string, err error) {
	a := status.Alert{Kind: status.KindDenied, Subject: group, Severity: "critical", Resolved: err == nil, Message: again}
	if err != nil {
		a.Message = fmt.Sprintf("consume %s in the group %s: %v: %s; the dispatcher goes on by itself then", topic, group, err, kafka.Remedy(err))
	}
	f.env.Reporter.Alert(a)
}

// awaitTier waits while Kafka has no position of a group on one of Reeve's own topics, a tier's as a rule, though the topic
// has held records: it has forgotten it, and moving on from the start would repeat what has been moved since the topic was
// last trimmed.
func (f *Fleet) awaitTier(ctx context.Context, group, topic string) {
	told := false
	for ctx.Err() == nil {
		ends, err := f.env.admin().ListEndOffsets(ctx, topic)
		used := false
		ends.Each(func(end kadm.ListedOffset) { used = used || end.Err == nil && end.Offset > 0 })
		if err == nil && !used {
			return
		}
		forgotten, err := hop.Forgotten(ctx, f.env.Client, group, topic)
		if err == nil && !forgotten {
			return
		}
		if !told {
			told = true
			f.env.Logger.Warn("what waits on a topic of Reeve's own waits on", slog.String("topic", topic), slog.Any("error", cmp.Or(err, error(&hop.ForgottenError{Group: group}))))
		}
		await(ctx, tryAgain, nil, nil)
	}
}

// runTier moves a tier's due retries.
func (f *Fleet) runTier(ctx context.Context, delay time.Duration, first bool) {
	tier := &Tier{
		names: f.env.Names, delay: delay, node: f.env.Node, agents: f.spec, now: time.Now, logger: f.env.Logger,
		refused: make(map[recordID]bool), mend: f.mendTaskTopic, asks: f.env.asks,
		alert:  func(kind, message string) { f.env.Reporter.Meet("", "", kind, message) },
		stands: func(a status.Alert) { f.env.Reporter.Alert(a) },
	}
	if first {
		tier.leads = f.upkeep.lead
	}
	select { // before it is known what agents there are, nothing can be said of a retry
	case <-ctx.Done():
		return
	case <-f.ready:
	}
	group := f.env.Names.RetryGroup(delay)
	f.awaitTier(ctx, group, f.env.Names.Retry(delay))
	count := f.env.Metrics.moved(delay)
	c, err := NewCarrier(CarrierConfig{
		Member: hop.MemberConfig{Opts: clientOptions(f.env.Opts), Names: f.env.Names, Group: group, Topic: f.env.Names.Retry(delay), Service: f.env.Service, Node: f.env.Node,
			Denied: func(err error) { f.deniedTier(delay, err) }},
		Pool: f.env.Pool, Rule: tier, Wake: f.env.asks.wake(), Unrun: f.env.unrun, Logger: f.env.Logger,
	}, func(n, _ int) { count.Add(float64(n)) })
	if err != nil {
		f.fail(err)
		return
	}
	defer c.Member().Close()
	switch err := c.Run(ctx); {
	case errors.Is(err, hop.ErrReplaced):
		f.fail(f.env.replaced(ctx))
	case err != nil:
		f.fail(err)
	}
}

// mendTaskTopic makes an agent's task topic where it is missing.
func (f *Fleet) mendTaskTopic(ctx context.Context, ref string) error {
	k := f.keeper(ref)
	if k == nil {
		return nil
	}
	if a := k.Spec(); a != nil {
		return k.taskTopic(ctx, a)
	}
	return nil
}

// keeper is an agent's by topic/name, or nil.
func (f *Fleet) keeper(ref string) *Keeper {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keepers["agent/"+ref]
}

// Ready takes over the desired state as of the start.
func (f *Fleet) Ready(all map[string]*spec.Agent) {
	for key, a := range all {
		f.Changed(key, a)
	}
	f.env.Reporter.Node(f.reports(), false) // a process of this name that is still there learns who it was
	close(f.ready)
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
		k = newKeeper(f.env, a, f.upkeep.leads, f.fail)
		f.keepers[key] = k
		ctx := f.ctx
		f.running.Go(func() {
			for k.Run(ctx); !f.retire(ctx, key, k); k.Run(ctx) {
			}
		})
	}
}

// retire lets go of a keeper whose agent's record is gone. It reports false where the agent has a record again: the keeper goes
// on then, since another beside it would join the agent's groups under the name that this one leaves them by.
func (f *Fleet) retire(ctx context.Context, key string, k *Keeper) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return true
	}
	if k.Spec() != nil {
		return false
	}
	delete(f.keepers, key)
	r := k.Report()
	f.env.Metrics.forget(r.Topic, r.AgentName)
	return true
}

// spec is an agent's spec by topic/name.
func (f *Fleet) spec(ref string) *spec.Agent {
	k := f.keeper(ref)
	if k == nil {
		return nil
	}
	return k.Spec()
}

func (f *Fleet) all() []*Keeper {
	f.mu.Lock()
	defer f.mu.Unlock()
	ks := make([]*Keeper, 0, len(f.keepers))
	for _, k := range f.keepers {
		ks = append(ks, k)
	}
	return ks
}

func (f *Fleet) specs() []*spec.Agent {
	var as []*spec.Agent
	for _, k := range f.all() {
		if a := k.Spec(); a != nil {
			as = append(as, a)
		}
	}
	return as
}

var _ control.Handler = (*Fleet)(nil)

// fetchBytes is how much one fetch brings at most. An agent that is slower than its events keeps about twice as much in
// memory: what is held, and the fetch behind it.
const fetchBytes = 8 << 20

// clientOptions are those of members: new partitions are found soon, since their first events count like any others.
func clientOptions(opts []kgo.Opt) []kgo.Opt {
	return append(append([]kgo.Opt{}, opts...), kgo.MetadataMaxAge(5*time.Second), kgo.FetchMaxBytes(fetchBytes))
}
