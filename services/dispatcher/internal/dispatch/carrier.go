package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/worker"
)

const (
	// maxBatch is how many records go into one transaction at most: enough that its own cost hardly counts, and so few
	// that the workers have begun before the next is through. Beyond maxBatchBytes no further partition is added.
	maxBatch      = 5_000
	maxBatchBytes = 16 << 20
	// Beyond these a partition's fetching is paused until a quarter is left: what is held is held in memory.
	maxHeldRecords = 20_000
	maxHeldBytes   = 8 << 20
	// enough is how many records held of each partition end the polling, and maxSilence for how long: a poll is where a
	// carrier learns that it was replaced.
	enough     = 1_000
	maxSilence = 2 * time.Second
	// sparse is how many records held are few.
	sparse = 500
)

// A Rule decides what becomes of the records of a topic.
type Rule interface {
	// Take is given the records held of a partition, in order, and says how many of them pass now, at most limit, and
	// what each of these becomes: outs[i] is produced for records[i], nothing where it is nil, which counts as passed over.
	// Control records are among them and become nothing. If fewer than all pass, wait says when to look again at the latest.
	Take(partition int32, records []*kgo.Record, limit int) (outs []*kgo.Record, wait time.Duration)
	// Ended says whether what the last Takes let pass was committed; what wasn't comes to Take again.
	Ended(committed bool)
	// Refused is told that the broker refuses what a record became. The record comes to Take again.
	Refused(ctx context.Context, record *kgo.Record, err error)
	// Overtaken says that the records in [from, to) were removed by the topic's retention before they were consumed.
	Overtaken(partition int32, from, to int64)
	// Truncated says that the log has lost its end: the records in [end, read) were read and aren't there any more, and others
	// will have their offsets. It doesn't overlap with Take.
	Truncated(partition int32, end, read int64)
	// Assigned gives a partition that is consumed from now on, Released takes it back. Neither overlaps with Take.
	Assigned(a hop.Assignment)
	Released(partition int32)
}

// CarrierConfig configures a Carrier. All fields but Wake and Unrun are required.
type CarrierConfig struct {
	Member hop.MemberConfig // without Handler
	Pool   *hop.Pool
	Rule   Rule
	Wake   <-chan struct{} // says that a Take may let more pass
	Unrun  *worker.Unrun   // tells of tasks that the rule settles; nil where it settles none
	Logger *slog.Logger
}

// Carrier consumes one topic as a group member and moves on what its rule lets pass.
type Carrier struct {
	cfg    CarrierConfig
	member *hop.Member
	moved  func(produced, over int)

	arrived chan struct{} // records were polled
	taken   chan struct{} // records were moved
	moving  atomic.Bool   // a transaction is under way
	ended   chan struct{} // it has ended

	// txn is held from the choice of a batch to the end of its transaction: a partition is given back only between.
	txn sync.Mutex

	mu     sync.Mutex
	parts  map[int32]*held
	behind int64 // the least that a partition had which the last transaction gave more
}

// NewCarrier joins the group. moved, if any, is told how many records were produced, and how many became nothing.
func NewCarrier(cfg CarrierConfig, moved func(produced, over int)) (*Carrier, error) {
	c := &Carrier{cfg: cfg, parts: make(map[int32]*held), moved: moved, arrived: make(chan struct{}, 1), taken: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
	cfg.Member.Handler = c
	cfg.Member.Logger = cfg.Logger
	c.mu.Lock() // the first assignment may come before the member is known here
	defer c.mu.Unlock()
	m, err := hop.NewMember(cfg.Member)
	if err != nil {
		return nil, err
	}
	c.member = m
	return c, nil
}

// Member is the carrier's place in the group.
func (c *Carrier) Member() *hop.Member { return c.member }

// Positions gives the committed position of each partition that it owns.
func (c *Carrier) Positions() map[int32]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	ps := make(map[int32]int64, len(c.parts))
	for p, h := range c.parts {
		ps[p] = h.next
	}
	return ps
}

// Passed counts what was produced of each partition that it owns, by all who ever owned it: the commits tell the next one.
func (c *Carrier) Passed() map[int32]offsets.Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	ps := make(map[int32]offsets.Count, len(c.parts))
	for p, h := range c.parts {
		ps[p] = h.passed
	}
	return ps
}

// Run moves records until the context ends, then commits where it stands and returns nil. What is held is read again
// by whoever consumes next. Any error means that the carrier can't go on; hop.ErrReplaced says that a newer process has
// this node's name. The member stays in the group in either case.
//
// Reading goes on beside the transactions: what has come by the end of one is in the next.
func (c *Carrier) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	read := make(chan error, 1)
	go func() {
		defer cancel()
		read <- c.read(ctx)
	}()
	c.moveAll(ctx)
	cancel()
	if err := <-read; err != nil {
		return err
	}
	c.txn.Lock()
	defer c.txn.Unlock()
	c.handOver(context.WithoutCancel(ctx))
	return nil
}

// read polls records until the context ends, as long as there is need of more.
func (c *Carrier) read(ctx context.Context) error {
	for ctx.Err() == nil {
		if c.saturated() {
			await(ctx, maxSilence, c.taken, nil)
		}
		fetches, err := c.member.Poll(ctx, maxBatch)
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("consume %s: %w", c.cfg.Member.Topic, err)
		}
		c.hold(fetches)
		c.member.AllowRebalance()
		signal(c.arrived)
		for c.moving.Load() && c.sparse() && ctx.Err() == nil {
			await(ctx, maxSilence, c.ended, nil)
		}
	}
	return nil
}

// moveAll runs one transaction after the other until the context ends, and waits where nothing passes.
func (c *Carrier) moveAll(ctx context.Context) {
	var failures failures
	for ctx.Err() == nil {
		moved, wait, err := c.move(ctx)
		if errors.Is(err, hop.ErrOutdated) {
			continue
		}
		pause, complain := failures.next(err, time.Now())
		if complain {
			c.cfg.Logger.Warn("move records: it is tried again", slog.String("group", c.cfg.Member.Group), slog.Any("error", err))
		}
		switch {
		case err != nil:
			await(ctx, pause, c.cfg.Wake, nil)
		case moved > 0:
			signal(c.taken)
			hop.Gather(ctx, moved)
		default:
			await(ctx, wait, c.cfg.Wake, c.arrived)
		}
	}
}

// move runs one transaction with what passes, and says how many records that were, markers included; where none passes,
// wait says when to look again.
func (c *Carrier) move(ctx context.Context) (moved int, wait time.Duration, err error) {
	c.txn.Lock()
	defer c.txn.Unlock()
	b, wait := c.choose(c.member.Generation())
	if len(b.taken) == 0 {
		c.cfg.Rule.Ended(false)
		return 0, wait, nil
	}
	c.tell(ctx, &b)
	c.moving.Store(true)
	defer func() {
		c.moving.Store(false)
		signal(c.ended)
	}()
	// The commit outlives a stop: it is short, and its outcome should be known.
	err = c.cfg.Pool.Commit(context.WithoutCancel(ctx), hop.Tx{
		Member: c.member, Generation: b.generation, Records: b.records, Offsets: c.positions(b),
	})
	if err != nil {
		c.failed(ctx, b, err)
	}
	c.cfg.Rule.Ended(err == nil)
	if err != nil {
		return 0, 0, err
	}
	c.done(b)
	if c.moved != nil {
		var over int64
		for _, t := range b.taken {
			over += t.over
		}
		c.moved(b.produced(), int(over))
	}
	return b.size(), wait, nil
}

// handOver commits where all partitions stand, marked clean: nothing of this process is under way for them, so that
// a next owner needn't end anything. It doesn't matter much if it fails. txn is held.
func (c *Carrier) handOver(ctx context.Context, only ...int32) {
	generation := c.member.Generation()
	ps := make(map[int32]hop.Position)
	c.mu.Lock()
	for p, h := range c.parts {
		ps[p] = h.position(c.cfg.Member.Node, h.next, h.passed, h.settled(h.next, nil), true)
	}
	if len(only) > 0 {
		all := ps
		ps = make(map[int32]hop.Position)
		for _, p := range only {
			if at, ok := all[p]; ok {
				ps[p] = at
			}
		}
	}
	c.mu.Unlock()
	if len(ps) == 0 {
		return
	}
	if err := c.cfg.Pool.Commit(ctx, hop.Tx{Member: c.member, Generation: generation, Offsets: ps}); err != nil {
		c.cfg.Logger.Debug("mark positions clean", slog.String("group", c.cfg.Member.Group), slog.Any("error", err))
	}
}

// Assigned begins to hold partitions.
func (c *Carrier) Assigned(_ context.Context, as []hop.Assignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range as {
		passed := a.Metadata.Passed
		if passed.Since == 0 {
			passed.Since = time.Now().UnixMilli()
		}
		c.parts[a.Partition] = &held{topicID: a.TopicID, next: a.Offset, end: a.Offset, passed: passed, ahead: aheadOf(a)}
		if a.Reached > a.LogEnd {
			c.cfg.Rule.Truncated(a.Partition, a.LogEnd, a.Reached)
		}
		c.cfg.Rule.Assigned(a)
	}
}

// Revoked waits for the transaction under way, then gives partitions back.
func (c *Carrier) Revoked(ctx context.Context, ps []int32) {
	c.txn.Lock()
	defer c.txn.Unlock()
	c.handOver(ctx, ps...)
	c.release(ps)
}

// Lost lets go of partitions that may have another owner. A transaction under way is fenced by its generation.
func (c *Carrier) Lost(ps []int32) { c.release(ps) }

func (c *Carrier) release(ps []int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range ps {
		if h := c.parts[p]; h != nil && h.paused {
			h.paused = false   // a transaction under way must not take back the pause of a later assignment
			c.member.Resume(p) // a pause outlives this one
		}
		delete(c.parts, p)
		c.cfg.Rule.Released(p)
	}
}

// Overtaken passes on what retention took.
func (c *Carrier) Overtaken(p int32, from, to int64) { c.cfg.Rule.Overtaken(p, from, to) }
