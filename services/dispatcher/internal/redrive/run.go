package redrive

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/status"
)

const (
	// maxBatch and maxBytes bound a transaction.
	maxBatch = 2000
	maxBytes = 8 << 20
	// maxHeld and maxHeldBytes bound what is read and waits: for the tasks of its failure, or for room on its partition.
	maxHeld      = 4000
	maxHeldBytes = 32 << 20
	// sayEvery is how often progress is told at most.
	sayEvery = 500 * time.Millisecond
	// linger is how long the last redriven tasks are waited for, so that the order's end can say what became of them.
	linger = time.Minute
)

const (
	stateWaiting = status.OrderWaiting
	stateRunning = status.OrderRunning
)

// run is the carrying out of one order. It may begin anew any number of times.
type run struct {
	*desk
	order command.Command

	scan    *scan
	version int                      // of the ledgers that the scan began with
	ledgers map[int32]offsets.Ledger // as of the last commit
	held    []*letter
	bytes   int

	since   map[int32]int64 // from where on what is under way is followed; nil: from now on
	stirred time.Time       // when something of it has moved last, or it got its seat
	trouble string          // why it was begun anew

	told    time.Time
	said    status.DLQOrder
	moved   int64
	mine    int64          // of moved: by this run
	opened  []status.Round // that nobody has been told of
	guarded int64
	unfit   int64
	kept    int64
	foreign string // why the last one of those that nobody can take was left

	unwanted int64 // of moved: rejected, since the agent doesn't take them any more

	tasks    sync.Mutex // guards what follows
	paces    map[string]*Pace
	examples map[string]string // a failure by its cause
	underway map[string]redriven
	unseen   int   // of those that were under way: nobody looked what became of them
	dead     int64 // of those that ended unrun: how many are dead once more
}

// conclusion is how an order ends before all is moved.
type conclusion struct{ state, why string }

// carryOut goes on with the order until it is finished. An error says that it is to be begun anew.
func (r *run) carryOut(ctx context.Context) error {
	if r.cfg.Finished(r.order.ID) {
		return nil
	}
	id, partitions, err := r.exists(ctx)
	if err != nil {
		return err
	}
	r.begin()
	if d := r.order.Dead; d != nil && (len(partitions) == 0 || d.TopicID != "" && d.TopicID != base64.RawURLEncoding.EncodeToString(id[:])) {
		return r.finish(ctx, status.OrderDone, "the dead-letter topic of that time is gone")
	}
	early, err := r.untilSeated(ctx)
	if err != nil {
		return err
	}
	if early != nil {
		return r.finish(ctx, early.state, early.why)
	}
	if r.order.Verb == command.Redrive {
		stop, err := r.to.follow(ctx, r.since, r.ended)
		if err != nil {
			return err
		}
		defer func() { r.since = stop() }()
	}
	r.say(stateRunning, "")
	if r.ledgers, r.version, err = r.join(ctx, id, partitions); err != nil {
		return err
	}
	// Whoever had the group before has noted by now what it has carried out.
	if err := r.cfg.CatchUp(ctx); err != nil {
		return fmt.Errorf("look whether the order is carried out: %w", err)
	}
	if r.cfg.Finished(r.order.ID) {
		return nil
	}
	r.trouble = ""
	r.count()
	if r.scan, err = newScan(ctx, r.cfg.Opts, r.topic, r.to, r.ledgers, r.order.Dead.Ends); err != nil {
		return err
	}
	defer r.scan.close()
	early, err = r.work(ctx)
	if err != nil {
		return err
	}
	if err := r.settleTails(ctx); err != nil {
		return err
	}
	r.linger(ctx)
	state, why := r.verdict(early)
	return r.finish(ctx, state, why)
}

// begin forgets what is known of an earlier try, but what is under way where that can be followed from where it was left:
// else each try would redrive as many as the first.
func (r *run) begin() {
	r.scan, r.held, r.bytes, r.guarded, r.unfit, r.kept, r.foreign = nil, nil, 0, 0, 0, 0, ""
	if r.since != nil {
		return
	}
	r.tasks.Lock()
	defer r.tasks.Unlock()
	r.unseen += len(r.underway)
	clear(r.underway)
	for _, p := range r.paces {
		p.underway = 0
	}
}

// mark is the order's id in the commits that count what it has moved: they are in the transactions that move, so that who
// goes on with an order after a restart knows what was moved before.
func (r *run) mark() int64 {
	sum := sha256.Sum256([]byte(r.order.ID))
	return int64(binary.BigEndian.Uint64(sum[:])>>2) | 1
}

// count reads how much the order has moved.
func (r *run) count() {
	r.moved = 0
	mark := r.mark()
	for _, l := range r.ledgers {
		r.moved += l.CountOf(mark)
	}
}

// over says how the order ends now, whatever is left of it; nil says that it goes on. Other orders of the agent that were
// taken back end here too, or they would wait for this one.
func (r *run) over(ctx context.Context) *conclusion {
	for _, c := range r.all.othersTakenBack(r.ref, r.order.ID) {
		other := &run{desk: r.desk, order: c}
		if back, ok := r.all.takenBack(c.ID); ok && other.finish(ctx, status.OrderCancelled, back.Cancelled()) == nil {
			r.all.done(c)
		}
	}
	if back, ok := r.all.takenBack(r.order.ID); ok {
		return &conclusion{status.OrderCancelled, back.Cancelled()}
	}
	if r.order.Verb == command.Redrive {
		if _, refusal := r.to.takes(); refusal != "" {
			return &conclusion{status.OrderRefused, refusal}
		}
	}
	return nil
}

// work moves what the order means, batch by batch.
func (r *run) work(ctx context.Context) (early *conclusion, err error) {
	for ctx.Err() == nil {
		if early := r.over(ctx); early != nil {
			return early, nil
		}
		if r.waitsFor(r.order.Verb) != "" {
			return nil, errHeld
		}
		if !r.scan.done() && len(r.held) < maxHeld && r.bytes < maxHeldBytes {
			if err := r.scan.next(ctx, r.consider); err != nil {
				return nil, err
			}
		}
		batch := r.choose()
		switch {
		case len(batch) > 0:
			err := r.move(ctx, batch)
			r.tellOpened(ctx)
			if errors.Is(err, errFull) {
				return &conclusion{status.OrderStopped, err.Error()}, nil
			} else if err != nil {
				return nil, err
			}
			r.say(stateRunning, "")
		case r.scan.done() && len(r.held) == 0:
			return nil, nil
		case len(r.held) >= maxHeld || r.bytes >= maxHeldBytes || r.scan.done():
			if r.blocks() {
				return nil, errYields
			}
			r.say(stateRunning, "")
			await(ctx, look/2, r.woken)
		}
	}
	return nil, ctx.Err()
}

// consider takes an open dead letter that was read.
func (r *run) consider(l *letter) {
	switch deadletter.Choose(r.order, l.record) {
	case deadletter.Take:
		r.held = append(r.held, l)
		r.bytes += l.size()
		if r.order.OfOne() {
			clear(r.scan.ends) // there is one of a task
		}
	case deadletter.Guarded:
		r.guarded++
	case deadletter.Foreign:
		r.kept++
		r.foreign = r.to.foreign()
	case deadletter.Leave:
	}
}

// settleTails settles what stands behind the last open dead letters, so that Kafka's tools see no lag where nothing is open.
func (r *run) settleTails(ctx context.Context) error {
	r.txn.Lock()
	defer r.txn.Unlock()
	after := map[int32]offsets.Ledger{}
	for p, tail := range r.scan.tails {
		l := r.ledgers[p].Settle(tail.From, tail.To)
		if _, fits := positionOf(l, r.cfg.Node, [16]byte{}, true, maxStamp); fits {
			after[p] = l
		}
	}
	if len(after) == 0 {
		return nil
	}
	if err := r.commit(ctx, nil, after, r.version, true, 0); err != nil {
		return err
	}
	maps.Copy(r.ledgers, after)
	return nil
}

// linger waits a while for the tasks that are still under way, unless another order waits.
func (r *run) linger(ctx context.Context) {
	for until := time.Now().Add(linger); ctx.Err() == nil && time.Now().Before(until) && !r.all.waiting(r.order) && r.over(ctx) == nil && r.waitsFor(r.order.Verb) == ""; {
		r.tasks.Lock()
		left := len(r.underway)
		r.tasks.Unlock()
		if left == 0 {
			return
		}
		r.say(stateRunning, fmt.Sprintf("all are redriven, %d of them have not ended yet", left))
		await(ctx, look, r.woken)
	}
}

// verdict is the state that the order ends in, and why.
func (r *run) verdict(early *conclusion) (state, why string) {
	r.tasks.Lock()
	defer r.tasks.Unlock()
	reasons := []string{}
	if early != nil {
		if early.state == status.OrderCancelled {
			return early.state, early.why
		}
		reasons = append(reasons, early.why)
	}
	if r.kept > 0 {
		for _, cause := range slices.Sorted(maps.Keys(r.paces)) {
			if why := r.to.reason(r.paces[cause], cause, r.examples[cause]); why != "" {
				reasons = append(reasons, why)
			}
		}
		if r.foreign != "" {
			reasons = append(reasons, "a dead letter was left: "+r.foreign)
		}
	}
	stopped := len(reasons) > 0
	if r.unwanted > 0 {
		reasons = append(reasons, fmt.Sprintf("%d are rejected, since the agent doesn't take them any more", r.unwanted))
	}
	if stopped {
		return status.OrderStopped, strings.Join(reasons, "; ")
	}
	if left := len(r.underway); left > 0 {
		reasons = append(reasons, fmt.Sprintf("%d of the redriven tasks have not ended yet", left))
	}
	if unseen := int64(r.unseen) + max(r.moved-r.mine, 0); unseen > 0 && r.order.Verb == command.Redrive {
		reasons = append(reasons, fmt.Sprintf("%d were redriven before a restart or a pause, and are counted as they end", unseen))
	}
	return status.OrderDone, strings.Join(reasons, "; ")
}

// finish says how the order ended, notes that it is carried out, and deletes what is settled at the topic's beginning. The
// note comes last: no dispatcher looks at an order again that has it, so an end that nobody has heard of then would never
// be told, and the registry would issue the order again for ever. Where the desk has the group the note is fenced by it, so
// that whoever has it next finds the note.
func (r *run) finish(ctx context.Context, state, why string) error {
	said := r.progress(state, why)
	said.Timestamp = status.Seconds(time.Now())
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit) // a stop waits for it
	defer cancel()
	if err := r.cfg.Ended(ending, said); err != nil {
		return fmt.Errorf("say how the order ended: %w", err)
	}
	if err := r.note(ending); err != nil {
		return fmt.Errorf("note that the order is carried out: %w", err)
	}
	below := map[int32]int64{}
	for p, l := range r.ledgers {
		below[p] = l.Low
	}
	if err := r.cfg.Trim(ctx, r.topic, below); err != nil && ctx.Err() == nil {
		r.log.Warn("delete settled dead letters", slog.String("topic", r.topic), slog.Any("error", err))
	}
	r.log.Info("an order about dead letters is carried out", slog.String("order", r.order.ID), slog.String("verb", string(r.order.Verb)), slog.String("by", r.order.Actor),
		slog.String("state", state), slog.Int64("moved", r.moved), slog.Int64("kept", r.kept), slog.String("reason", why))
	return nil
}

// maxStamp bounds what makes two commits of the same differ.
const maxStamp = 1 << 13

// note writes that the order is carried out.
func (r *run) note(ctx context.Context) error {
	now := time.Now()
	record, err := r.order.Finished(r.cfg.Names, r.cfg.Service+"/"+r.cfg.Node, now)
	if err != nil {
		return err
	}
	if r.scan == nil {
		return r.cfg.Client.ProduceSync(ctx, record).FirstErr()
	}
	r.txn.Lock()
	defer r.txn.Unlock()
	return r.commit(ctx, []*kgo.Record{record}, nil, r.version, true, 1+now.UnixMilli()%(maxStamp-1))
}

// progress is how far it has come.
func (r *run) progress(state, why string) status.DLQOrder {
	s := status.DLQOrder{Event: status.EventDLQOrder, Topic: r.agent, AgentName: r.name, ID: r.order.ID, Verb: string(r.order.Verb),
		State: state, Reason: why, Moved: r.moved, Kept: r.kept, Guarded: r.guarded, Unfit: r.unfit}
	r.tasks.Lock()
	for _, p := range r.paces {
		s.Completed += int64(p.Completed)
		s.CameBack += int64(p.Same + p.Other)
	}
	s.CameBack += r.dead
	r.tasks.Unlock()
	return s
}

// say tells how far it has come, not too often.
func (r *run) say(state, why string) {
	s, now := r.progress(state, why), time.Now()
	if s == r.said || now.Sub(r.told) < sayEvery && s.State == r.said.State {
		return
	}
	r.said, r.told = s, now
	s.Timestamp = status.Seconds(now)
	r.cfg.Report(s)
}
