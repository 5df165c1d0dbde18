package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

// desk works on the orders about one dead-letter topic. As long as it has any it is the static member of its group.
type desk struct {
	all         *Desks
	cfg         *Config
	ref         string
	to          target
	topic       string // of the dead letters
	group       string // that says which of them are open
	agent, name string // the agent's topic and name, as commands have them
	log         *slog.Logger
	woken       chan struct{}

	// txn is held from the choice of a batch to the end of its transaction: a partition is given back only between.
	txn sync.Mutex

	// Only the desk's own goroutine looks.
	seated  bool
	yielded bool // it leaves its seat to others

	mu      sync.Mutex
	member  *hop.Member
	polling sync.WaitGroup
	stop    context.CancelFunc // of polling
	ledgers map[int32]offsets.Ledger
	version int   // of ledgers: other owners may have settled more
	denied  error // what Kafka doesn't let the member do
}

func newDesk(all *Desks, ref string) *desk {
	d := &desk{all: all, cfg: &all.cfg, ref: ref, woken: make(chan struct{}, 1), ledgers: map[int32]offsets.Ledger{}}
	d.agent, d.name = cut(ref)
	queue := deadletter.QueueOf(d.cfg.Names, command.Command{Topic: d.agent, Agent: d.name})
	d.to, d.topic, d.group = targetOf(d.cfg, ref), queue.Topic, queue.Group
	d.log = d.cfg.Logger.With(slog.String("topic", d.topic))
	return d
}

// run works on orders until there are none for a while, or the context ends.
func (d *desk) run(ctx context.Context) {
	defer d.leave(ctx)
	for last := time.Now(); ctx.Err() == nil && time.Since(last) < idle; {
		c, ok := d.all.head(d.ref)
		if !ok {
			await(ctx, look, d.woken)
			if d.currentMember() == nil {
				return
			}
			if d.yields() || d.waitsFor(command.Redrive) != "" { // others need the seat, or that nobody is in the group
				return
			}
			continue
		}
		if !d.carryOut(ctx, c) {
			return
		}
		last = time.Now()
	}
}

// carryOut goes on with an order until it has ended, and reports whether the desk goes on.
func (d *desk) carryOut(ctx context.Context, c command.Command) bool {
	r := &run{desk: d, order: c, paces: map[string]*Pace{}, examples: map[string]string{}, underway: map[string]redriven{}}
	for pause := look; ctx.Err() == nil; pause = min(2*pause, 8*look) {
		err := r.carryOut(ctx)
		switch {
		case err == nil:
			d.all.done(c)
			return true
		case errors.Is(err, hop.ErrReplaced):
			d.cfg.Fail(err)
			return false
		case errors.Is(err, errHeld):
			d.leave(ctx)
			pause, r.since = look, nil
		case errors.Is(err, errYields):
			d.leave(ctx)
			pause = look
		default:
			if ctx.Err() == nil && !errors.Is(err, errMoved) {
				d.log.Warn("an order about dead letters is gone on with", slog.String("order", c.ID), slog.Any("error", err))
				r.trouble = err.Error()
				r.say(stateWaiting, r.trouble)
			}
			if r.blocks() {
				d.leave(ctx)
			}
		}
		await(ctx, pause, nil)
		if !d.all.has(c) { // it has expired: nobody begins with it any more
			return true
		}
	}
	return false
}

// waitsFor says why nothing may be moved now; "" says that it may. While remains of the agent are deleted nobody is in its
// dead-letter group: what is redriven then would be deleted with its task topic.
func (d *desk) waitsFor(verb command.Verb) string {
	if a := d.cfg.Agent(d.ref); a != nil && a.Cleaning() {
		return "what is left of the agent's former life is deleted first"
	}
	if verb != command.Redrive {
		return ""
	}
	waiting, _ := d.to.takes()
	return waiting
}

func cut(ref string) (topic, name string) {
	for i := range ref {
		if ref[i] == '/' {
			return ref[:i], ref[i+1:]
		}
	}
	return ref, ""
}

// errHeld says that the order waits, and that the desk leaves its group meanwhile.
var errHeld = errors.New("the order waits")

// errYields says that nothing of the order moves for now, and that the desk gives its seat to others.
var errYields = errors.New("others go on meanwhile")

// errMoved says that the partitions have moved, or somebody else has settled dead letters: what was read is out of date.
var errMoved = errors.New("the dead-letter group has moved on")

// exists gives the id of the dead-letter topic and its partitions; there are none where it doesn't exist.
func (d *desk) exists(ctx context.Context) (id kadm.TopicID, partitions []int32, err error) {
	found, err := kafka.ListTopics(ctx, d.cfg.Client, d.topic) // never what the client remembers
	if err != nil {
		return id, nil, fmt.Errorf("look up topic %s: %w", d.topic, err)
	}
	t := found[d.topic]
	if errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
		return id, nil, nil
	}
	if t.Err != nil {
		return id, nil, fmt.Errorf("look up topic %s: %w", d.topic, t.Err)
	}
	return t.ID, t.Partitions.Numbers(), nil
}

func (d *desk) currentMember() *hop.Member {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.member
}

// join joins the group and waits until it owns all partitions of the topic with this id. It gives what is settled of them,
// and the version of that. A topic that was made again has dead letters of its own: what was settled says nothing of them.
func (d *desk) join(ctx context.Context, id kadm.TopicID, partitions []int32) (map[int32]offsets.Ledger, int, error) {
	if m := d.currentMember(); m != nil && m.TopicID() != [16]byte{} && m.TopicID() != id {
		d.quit(ctx, m)
	}
	if err := d.begin(); err != nil {
		return nil, 0, err
	}
	for until := time.Now().Add(joinLimit); ctx.Err() == nil; {
		d.mu.Lock()
		ledgers, version, denied, m := maps.Clone(d.ledgers), d.version, d.denied, d.member
		d.mu.Unlock()
		switch {
		case len(ledgers) >= len(partitions) && m.TopicID() != id:
			return nil, 0, errMoved
		case len(ledgers) >= len(partitions):
			return ledgers, version, nil
		case time.Now().After(until): // the topic may be gone, and its partitions never come
			return nil, 0, fmt.Errorf("join the group %s of %s: its partitions haven't come within %s", d.group, d.topic, joinLimit)
		}
		if denied != nil {
			return nil, 0, fmt.Errorf("join the group %s of %s: %w", d.group, d.topic, denied)
		}
		await(ctx, look, d.woken)
	}
	return nil, 0, ctx.Err()
}

// begin makes the member, unless there is one. Its seat is taken.
func (d *desk) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.member != nil {
		return nil
	}
	// The first assignment may come before the member is known here; it waits for the lock.
	m, err := hop.NewMember(hop.MemberConfig{
		Opts: d.cfg.Opts, Names: d.cfg.Names, Group: d.group, Topic: d.topic,
		Service: d.cfg.Service, Node: d.cfg.Node, Handler: d, Logger: d.log,
		Denied: func(err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.denied = err
		},
	})
	if err != nil {
		return err
	}
	d.member = m
	ctx, cancel := context.WithCancel(context.Background()) // leave ends it
	d.stop = cancel
	d.polling.Go(func() { d.poll(ctx, m) })
	return nil
}

// poll learns that the member was replaced. Dead letters are read beside it: its own partitions are paused.
func (d *desk) poll(ctx context.Context, m *hop.Member) {
	for ctx.Err() == nil {
		_, err := m.Poll(ctx, 1)
		if err == nil {
			m.AllowRebalance()
			continue
		}
		if ctx.Err() == nil {
			if errors.Is(err, hop.ErrReplaced) {
				d.cfg.Fail(err)
			}
			d.log.Warn("the membership of the dead-letter group has ended", slog.Any("error", err))
		}
		return
	}
}

// leave gives the group back, with everything marked as handed over. The membership stays where the process ends, so that a
// restart needn't wait for it.
func (d *desk) leave(ctx context.Context) {
	defer d.stand()
	m := d.currentMember()
	if m == nil {
		return
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	d.handOver(limited)
	d.quit(ctx, m)
}

// quit gives the group back as it is.
func (d *desk) quit(ctx context.Context, m *hop.Member) {
	d.mu.Lock()
	d.member, d.ledgers = nil, map[int32]offsets.Ledger{} // nothing more is committed
	d.version++
	d.mu.Unlock()
	d.stop()
	d.polling.Wait()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	if err := m.Leave(limited); err != nil {
		d.log.Warn("leave the dead-letter group", slog.Any("error", err))
	}
}

// handOver commits what is settled once more, marked clean: nothing of this process is under way for it.
func (d *desk) handOver(ctx context.Context) {
	d.txn.Lock()
	defer d.txn.Unlock()
	if err := d.commit(ctx, nil, nil, -1, true, 0); err != nil && !errors.Is(err, errMoved) {
		d.log.Debug("mark dead letters clean", slog.Any("error", err))
	}
}

// commit settles dead letters, and produces what they become, in one transaction. With a version of -1 it takes the ledgers
// as they are; else they have to be of that version. after has what changes. A stamp makes the commit differ from the last
// one where nothing has changed: a lost answer is decided by looking at what is committed. txn is held.
func (d *desk) commit(ctx context.Context, records []*kgo.Record, after map[int32]offsets.Ledger, version int, clean bool, stamp int64) error {
	d.mu.Lock()
	m := d.member
	if m == nil || len(d.ledgers) == 0 || version >= 0 && version != d.version {
		d.mu.Unlock()
		return errMoved
	}
	generation := m.Generation()
	id := m.TopicID()
	next := maps.Clone(d.ledgers)
	maps.Copy(next, after)
	if after == nil {
		after = next
	}
	before := d.version
	d.mu.Unlock()
	tx := hop.Tx{Member: m, Generation: generation, Records: records, Offsets: map[int32]hop.Position{}}
	for p, l := range after {
		tx.Offsets[p], _ = positionOf(l, d.cfg.Node, id, clean, stamp)
	}
	// It outlives a stop: it is short, and its outcome should be known.
	if err := d.cfg.Pool.Commit(context.WithoutCancel(ctx), tx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.version == before {
		d.ledgers = next
	}
	return nil
}

// positionOf is the commit that says a ledger; fits is false where Kafka wouldn't take it. Nobody starts anything by a
// dead-letter group, so what is reserved is free to be a stamp.
func positionOf(l offsets.Ledger, node string, topicID [16]byte, clean bool, stamp int64) (p hop.Position, fits bool) {
	m := offsets.Metadata{Clean: clean, TopicID: topicID, Node: node, Passed: l.Counted, Far: l.Settled, Reserved: l.Low + stamp}
	p = hop.Position{Offset: l.Low, Metadata: m.Encode(l.Low)}
	return p, offsets.Fits(p.Metadata)
}

// Assigned takes over what is settled.
func (d *desk) Assigned(_ context.Context, as []hop.Assignment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range as {
		if d.member == nil { // it is about to leave
			return
		}
		d.ledgers[a.Partition] = offsets.LedgerAt(a.Offset, a.Metadata)
		d.member.Pause(a.Partition)
	}
	d.version++
	signal(d.woken)
}

// Revoked waits for the transaction under way, then gives partitions back.
func (d *desk) Revoked(ctx context.Context, ps []int32) {
	d.handOver(ctx)
	d.Lost(ps)
}

// Lost lets go of partitions. A transaction under way is fenced by its generation.
func (d *desk) Lost(ps []int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range ps {
		delete(d.ledgers, p)
	}
	d.version++
	signal(d.woken)
}

// Overtaken doesn't matter: what is gone from the topic needn't be settled.
func (d *desk) Overtaken(int32, int64, int64) {}

// Truncated forgets what is settled of dead letters that are gone: others will have their offsets.
func (d *desk) Truncated(_ context.Context, p int32, end int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.ledgers[p]; ok {
		d.ledgers[p] = l.Below(end)
		d.version++
		signal(d.woken)
	}
	return end
}
