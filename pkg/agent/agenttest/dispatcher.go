package agenttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/filter"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// anyPartition as a record's partition leaves the choice to its key.
const anyPartition int32 = -1

// dispatcher routes the events of agents that are active, and brings back retries at once.
type dispatcher struct {
	names   topics.Names
	brokers []string
	client  *kgo.Client // produces
	log     interface{ Logf(string, ...any) }

	life context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	agents map[string]*routing
}

// routing is one agent's.
type routing struct {
	spec *spec.Agent
	gate atomic.Pointer[route.Gate]
	stop func()               // nil while it isn't active
	next map[int32]kgo.Offset // where it goes on
}

func (d *dispatcher) start() {
	d.life, d.end = context.WithCancel(context.Background())
	d.agents = map[string]*routing{}
	d.done.Go(d.retries)
}

func (d *dispatcher) stop() {
	d.end()
	d.mu.Lock()
	for _, r := range d.agents {
		if r.stop != nil {
			r.stop()
		}
	}
	d.mu.Unlock()
	d.done.Wait()
}

// changed follows an agent's spec. Its topics are made before it returns.
func (d *dispatcher) changed(ctx context.Context, a *spec.Agent) error {
	adm := kadm.NewClient(d.client)
	if err := create(ctx, adm, userPartitions, a.Topic); err != nil {
		return err
	}
	if err := create(ctx, adm, a.Partitions, d.names.Tasks(a.Topic, a.Name)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.agents[a.Ref()]
	if r == nil {
		next, err := start(ctx, adm, a)
		if err != nil {
			return err
		}
		r = &routing{next: next}
		d.agents[a.Ref()] = r
	}
	gate, err := route.NewGate(a, compile)
	if err != nil {
		return err
	}
	r.gate.Store(gate)
	r.spec = a
	switch active := a.Phase == spec.Active; {
	case active && r.stop == nil:
		return d.route(r)
	case !active && r.stop != nil:
		r.stop()
		r.stop = nil
	}
	return nil
}

// route starts an agent's routing. The lock is held.
func (d *dispatcher) route(r *routing) error {
	a := r.spec
	cl, err := kgo.NewClient(kgo.SeedBrokers(d.brokers...), kgo.DisableClientMetrics(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{a.Topic: r.next}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(250*time.Millisecond))
	if err != nil {
		return fmt.Errorf("route the events of %s: %w", a.Ref(), err)
	}
	next := make(map[int32]kgo.Offset, len(r.next)) // the client keeps the other
	for p, o := range r.next {
		next[p] = o
	}
	r.next = next
	ctx, cancel := context.WithCancel(d.life)
	var done sync.WaitGroup
	done.Go(func() {
		defer cl.Close()
		var spread route.Spread
		for ctx.Err() == nil {
			records := cl.PollFetches(ctx).Records()
			for _, rec := range records {
				next[rec.Partition] = kgo.NewOffset().At(rec.Offset + 1)
			}
			d.produce(through(d.names, a, r.gate.Load(), &spread, records)...)
		}
	})
	r.stop = func() { cancel(); done.Wait() }
	return nil
}

// through is what becomes of events: tasks, outcomes of those that are rejected, and nothing of those that aren't the
// agent's.
func through(names topics.Names, a *spec.Agent, gate *route.Gate, spread *route.Spread, records []*kgo.Record) []*kgo.Record {
	var passing []*kgo.Record
	var partitions []int32
	var why []route.Passage
	for _, rec := range records {
		var p route.Passage
		if gate != nil {
			p = gate.Decide(rec)
		}
		if !p.Over {
			passing, partitions, why = append(passing, rec), append(partitions, spread.Partition(rec.Key, a.Partitions)), append(why, p)
		}
	}
	now := time.Now()
	outs := route.New(names, a, "").Tasks(passing, partitions, now)
	for i, p := range why {
		if outs[i] = p.Settle(names, outs[i], "agenttest", now); p.Reject {
			outs[i].Partition = anyPartition
		}
	}
	return outs
}

func compile(expression string) (route.Filter, error) {
	f, err := filter.Compile(expression)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// start is where an agent begins that is registered for the first time.
func start(ctx context.Context, adm *kadm.Client, a *spec.Agent) (map[int32]kgo.Offset, error) {
	next := map[int32]kgo.Offset{}
	for p := range int32(userPartitions) {
		next[p] = kgo.NewOffset().AtStart()
	}
	since, err := a.StartTime()
	if err != nil || a.Start == "" || a.Start == spec.StartEarliest {
		return next, err
	}
	var at kadm.ListedOffsets
	if since.IsZero() {
		at, err = adm.ListEndOffsets(ctx, a.Topic)
	} else {
		at, err = adm.ListOffsetsAfterMilli(ctx, since.UnixMilli(), a.Topic)
	}
	if err = errors.Join(err, at.Error()); err != nil {
		return nil, fmt.Errorf("find where %s starts: %w", a.Ref(), err)
	}
	at.Each(func(o kadm.ListedOffset) { next[o.Partition] = kgo.NewOffset().At(o.Offset) })
	return next, nil
}

// retries brings retries back to their agents.
func (d *dispatcher) retries() {
	var names []string
	for _, tier := range topics.DefaultTiers() {
		names = append(names, d.names.Retry(tier))
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(d.brokers...), kgo.DisableClientMetrics(), kgo.ConsumeTopics(names...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(250*time.Millisecond), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		d.log.Logf("read retries: %v", err)
		return
	}
	defer cl.Close()
	var spread route.Spread
	for d.life.Err() == nil {
		for _, rec := range cl.PollFetches(d.life).Records() {
			if a := d.spec(route.Header(rec, task.HeaderAgent)); a != nil {
				d.produce(route.Retry(d.names, a, &spread, rec, time.Now()))
			}
		}
	}
}

// spec is an agent's by topic/name; nil where there is none.
func (d *dispatcher) spec(ref string) *spec.Agent {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.agents[ref]; r != nil {
		return r.spec
	}
	return nil
}

func (d *dispatcher) produce(rs ...*kgo.Record) {
	if len(rs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.life), patience)
	defer cancel()
	if err := d.client.ProduceSync(ctx, rs...).FirstErr(); err != nil {
		d.log.Logf("route %d events: %v", len(rs), err)
	}
}

// create makes topics that don't exist.
func create(ctx context.Context, adm *kadm.Client, partitions int32, names ...string) error {
	resps, err := adm.CreateTopics(ctx, partitions, 1, nil, names...)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for _, r := range resps {
		if r.Err != nil && !errors.Is(r.Err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", r.Topic, r.Err)
		}
	}
	return nil
}

// partitioner takes a record's own partition, or its key's.
func partitioner() kgo.Partitioner {
	return kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		var spread route.Spread
		return func(r *kgo.Record, n int) int {
			if r.Partition != anyPartition {
				return int(r.Partition)
			}
			return int(spread.Partition(r.Key, int32(n)))
		}
	})
}
