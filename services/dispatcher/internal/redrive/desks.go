package redrive

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

const (
	// look is how often a wait looks whether what it waits for has come.
	look = 250 * time.Millisecond
	// idle is how long a desk without orders stays in the group: to join takes seconds.
	idle = 30 * time.Second
	// joinLimit is how long partitions are waited for. It is longer than a session of who had them.
	joinLimit = time.Minute
	// leaveLimit bounds how long leaving a group may take.
	leaveLimit = 10 * time.Second
	// slack is how far the clocks of an installation may be apart.
	slack = 10 * time.Minute
)

// Config configures Desks. All fields are required.
type Config struct {
	Opts          []kgo.Opt // of further clients
	Client        *kgo.Client
	Pool          *hop.Pool
	Names         topics.Names
	Service, Node string
	// Agent is an agent's spec by topic/name, or nil.
	Agent func(ref string) *spec.Agent
	// Gate makes the gate of an agent, nil where it takes everything.
	Gate func(a *spec.Agent) (*route.Gate, error)
	// Unrun tells of tasks that end instead of being redriven.
	Unrun *worker.Unrun
	// Place takes a place on a task partition of the agent; on any where it is negative.
	Place func(ref string, partition int32) (p int32, ok bool)
	// Mend makes the agent's task topic take what it has refused.
	Mend func(ctx context.Context, ref string) error
	// WebhooksRedriven counts webhooks that were redriven.
	WebhooksRedriven func(n int)
	// Leads reports whether this dispatcher works on orders. If two do for a moment the group lets one of them.
	Leads func() bool
	// Finished reports whether an order is known to be carried out. After CatchUp it is known of all that were.
	Finished func(id string) bool
	CatchUp  func(context.Context) error
	// Opened says which rounds of an agent's tasks are opened, and returns once Kafka has it.
	Opened func(ctx context.Context, topic, name string, rounds []status.Round) error
	// Report says how far an order has come. It must not block.
	Report func(status.DLQOrder)
	// Ended says how an order has ended, and returns once Kafka has it.
	Ended func(context.Context, status.DLQOrder) error
	// Trim deletes what is settled from the beginning of a dead-letter topic.
	Trim func(ctx context.Context, topic string, below map[int32]int64) error
	// Fail ends the process.
	Fail   func(error)
	Logger *slog.Logger
}

// Desks takes orders, from any goroutine, and works on them while this dispatcher leads.
type Desks struct {
	cfg  Config
	wake chan struct{}

	seating seating

	mu      sync.Mutex
	pending map[string][]command.Command // by topic/name, in the order in which they came
	cancels map[string]command.Command   // of orders that were taken back, by the orders' ids, until they expire
}

// NewDesks does nothing before Run.
func NewDesks(cfg Config) *Desks {
	return &Desks{cfg: cfg, wake: make(chan struct{}, 1), pending: map[string][]command.Command{}, cancels: map[string]command.Command{}}
}

// Order takes an order. It doesn't block.
func (d *Desks) Order(c command.Command) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.order(c)
}

// Cancel takes the command that takes an order back. It doesn't block. An order that was never heard of here, since its
// command has expired, ends all the same: else the registry would ask for ever.
func (d *Desks) Cancel(c command.Command) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cancels[c.Order] = c
	d.order(command.Command{ID: c.Order, Verb: c.Verb, Topic: c.Topic, Agent: c.Agent, Actor: c.Actor, Expires: c.Expires})
}

// order takes an order. One that is known counts for longer then. The lock is held.
func (d *Desks) order(c command.Command) {
	waiting := d.current(c.Ref(), time.Now())
	if i := slices.IndexFunc(waiting, is(c.ID)); i < 0 {
		waiting = append(waiting, c)
	} else if c.Expires.After(waiting[i].Expires) {
		waiting[i].Expires = c.Expires
	}
	d.pending[c.Ref()] = waiting
	signal(d.wake)
}

func is(id string) func(command.Command) bool {
	return func(c command.Command) bool { return c.ID == id }
}

// current gives an agent's orders, without those that are carried out or expire. These go early: that one was carried out
// is known for as long as its command lives at most, by another clock. Its registry issues an open order again long before.
// The lock is held.
func (d *Desks) current(ref string, now time.Time) []command.Command {
	return slices.DeleteFunc(d.pending[ref], func(c command.Command) bool {
		return now.After(c.Expires.Add(-slack)) || d.cfg.Finished(c.ID)
	})
}

// Run works on orders until the context ends.
func (d *Desks) Run(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var team team
	for ctx.Err() == nil {
		refs := d.asked()
		if d.cfg.Leads() {
			for _, ref := range refs {
				team.employ(ctx, ref, func(ctx context.Context) { newDesk(d, ref).run(ctx) })
			}
		} else {
			team.dismiss()
		}
		select {
		case <-ctx.Done():
		case <-d.wake:
		case <-tick.C:
		}
	}
	team.dismiss()
}

// asked gives the agents that have orders. What has expired is dropped, an order no later than what takes it back: on its
// own it would be carried out.
func (d *Desks) asked() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	var refs []string
	open := map[string]bool{}
	for ref := range d.pending {
		left := d.current(ref, now)
		if len(left) == 0 {
			delete(d.pending, ref)
			continue
		}
		d.pending[ref] = left
		refs = append(refs, ref)
		for _, c := range left {
			open[c.ID] = true
		}
	}
	maps.DeleteFunc(d.cancels, func(id string, c command.Command) bool { return now.After(c.Expires) && !open[id] })
	return refs
}

// head is the order that is next for an agent: one that was taken back comes first. One that is carried out already is
// dropped.
func (d *Desks) head(ref string) (command.Command, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.current(ref, time.Now())
	if len(left) == 0 {
		delete(d.pending, ref)
		return command.Command{}, false
	}
	d.pending[ref] = left
	for _, c := range left {
		if _, ok := d.cancels[c.ID]; ok {
			return c, true
		}
	}
	return left[0], true
}

// has reports whether an order still counts.
func (d *Desks) has(c command.Command) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.pending[c.Ref()], is(c.ID))
}

// done drops an order.
func (d *Desks) done(c command.Command) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending[c.Ref()] = slices.DeleteFunc(d.pending[c.Ref()], is(c.ID)); len(d.pending[c.Ref()]) == 0 {
		delete(d.pending, c.Ref())
	}
}

// takenBack gives the command that takes an order back, if there is one.
func (d *Desks) takenBack(id string) (command.Command, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.cancels[id]
	return c, ok
}

// othersTakenBack gives an agent's orders that were taken back, but one.
func (d *Desks) othersTakenBack(ref, but string) (others []command.Command) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.cancels) == 0 {
		return nil
	}
	for _, c := range d.pending[ref] {
		if _, ok := d.cancels[c.ID]; ok && c.ID != but {
			others = append(others, c)
		}
	}
	return others
}

// waiting reports whether others wait behind an order.
func (d *Desks) waiting(c command.Command) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.pending[c.Ref()], func(other command.Command) bool { return other.ID != c.ID })
}

// team is the desks that are at work. Only the goroutine of Run uses it, but for what a desk says at its end.
type team struct {
	mu      sync.Mutex
	at      map[string]context.CancelFunc
	working sync.WaitGroup
}

// employ starts a desk, unless the agent has one.
func (t *team) employ(ctx context.Context, ref string, work func(ctx context.Context)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at[ref] != nil {
		return
	}
	if t.at == nil {
		t.at = map[string]context.CancelFunc{}
	}
	ctx, cancel := context.WithCancel(ctx)
	t.at[ref] = cancel
	t.working.Go(func() {
		defer cancel()
		work(ctx)
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.at, ref)
	})
}

// dismiss ends all and waits for them.
func (t *team) dismiss() {
	t.mu.Lock()
	for _, cancel := range t.at {
		cancel()
	}
	t.mu.Unlock()
	t.working.Wait()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits for a time, a signal or the end.
func await(ctx context.Context, d time.Duration, woken <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-woken:
	}
}
