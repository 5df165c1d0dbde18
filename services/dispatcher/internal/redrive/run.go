package redrive

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
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

	told    time.Time
	said    status.DLQOrder
	moved   int64
	guarded int64
	kept    int64
	unfit   string // why the last one of those that nobody takes was left

	tasks    sync.Mutex // guards what follows
	paces    map[string]*Pace
	examples map[string]string // a failure by its cause
	underway map[string]redriven
}

// redriven is a task that is under way.
type redriven struct {
	cause string
	round int
}

// carryOut goes on with the order until it is finished. An error says that it is to be begun anew.
func (r *run) carryOut(ctx context.Context) error {
	id, partitions, err := r.exists(ctx)
	if err != nil {
		return err
	}
	r.begin()
	if d := r.order.Dead; len(partitions) == 0 || d.TopicID != "" && d.TopicID != base64.RawURLEncoding.EncodeToString(id[:]) {
		return r.finish(ctx, status.OrderDone, "the dead-letter topic of that time is gone")
	}
	if r.order.Verb == command.Redrive {
		refusal, err := r.untilActive(ctx)
		if err != nil {
			return err
		}
		if refusal != "" {
			return r.finish(ctx, status.OrderRefused, refusal)
		}
		stop, err := follow(ctx, r.cfg.Opts, r.cfg.Names, r.ref, r.ended)
		if err != nil {
			return err
		}
		defer stop()
	}
	r.say(stateRunning, "")
	if r.ledgers, r.version, err = r.join(ctx, partitions); err != nil {
		return err
	}
	if r.scan, err = newScan(ctx, r.cfg.Opts, r.topic, r.ledgers, r.order.Dead.Ends); err != nil {
		return err
	}
	defer r.scan.close()
	refusal, err := r.work(ctx)
	if err != nil {
		return err
	}
	if err := r.settleTails(ctx); err != nil {
		return err
	}
	r.linger(ctx)
	state, why := r.verdict(refusal)
	return r.finish(ctx, state, why)
}

// begin forgets what is known of an earlier try: what is under way from then on is followed from then on.
func (r *run) begin() {
	r.scan, r.held, r.bytes, r.guarded, r.kept, r.unfit = nil, nil, 0, 0, 0, ""
	r.tasks.Lock()
	defer r.tasks.Unlock()
	clear(r.underway)
	for _, p := range r.paces {
		p.underway = 0
	}
}

// untilActive waits while the agent isn't active. refusal says why it is in vain.
func (r *run) untilActive(ctx context.Context) (refusal string, err error) {
	for ctx.Err() == nil {
		a := r.cfg.Agent(r.ref)
		switch {
		case a == nil || a.Phase == spec.Terminated:
			return "the agent is deleted: register it again, its dead letters are still there", nil
		case a.Phase == spec.Active:
			return "", nil
		}
		r.say(stateWaiting, fmt.Sprintf("the agent is %s: its dead letters are redriven once it is active", a.Phase))
		await(ctx, look, nil)
	}
	return "", ctx.Err()
}

// work moves what the order means, batch by batch.
func (r *run) work(ctx context.Context) (refusal string, err error) {
	for ctx.Err() == nil {
		if r.order.Verb == command.Redrive {
			if refusal, err := r.untilActive(ctx); err != nil || refusal != "" {
				return refusal, err
			}
		}
		if !r.scan.done() && len(r.held) < maxHeld && r.bytes < maxHeldBytes {
			if err := r.scan.next(ctx, r.consider); err != nil {
				return "", err
			}
		}
		batch := r.choose()
		switch {
		case len(batch) > 0:
			if err := r.move(ctx, batch); errors.Is(err, errFull) {
				return err.Error(), nil
			} else if err != nil {
				return "", err
			}
			r.say(stateRunning, "")
		case r.scan.done() && len(r.held) == 0:
			return "", nil
		case len(r.held) >= maxHeld || r.bytes >= maxHeldBytes || r.scan.done():
			r.say(stateRunning, "")
			await(ctx, look/2, r.woken)
		}
	}
	return "", ctx.Err()
}

// consider takes an open dead letter that was read.
func (r *run) consider(l *letter) {
	switch Choose(r.order, l.record) {
	case Take:
		r.held = append(r.held, l)
		r.bytes += l.size()
		if r.order.Task != "" {
			clear(r.scan.ends) // there is one of a task
		}
	case Guarded:
		r.guarded++
	case Foreign:
		r.kept++
		r.unfit = "it is no task of this agent"
	case Leave:
	}
}

// choose takes from what is held what may move now, in order, and drops what won't.
func (r *run) choose() []*letter {
	r.tasks.Lock()
	defer r.tasks.Unlock()
	var batch []*letter
	size := 0
	full := map[int32]bool{}
	chosen := map[string]int{}
	kept := r.held[:0]
	for _, l := range r.held {
		if len(batch) == maxBatch || size > maxBytes {
			kept = append(kept, l)
			continue
		}
		if r.order.Verb == command.Redrive && r.order.Task == "" {
			p := r.pace(l)
			if p.Hopeless() {
				r.kept++
				r.bytes -= l.size()
				continue
			}
			if p.Room() <= chosen[l.cause] {
				kept = append(kept, l)
				continue
			}
		}
		if r.order.Verb == command.Redrive && !r.placed(l, full) {
			kept = append(kept, l)
			continue
		}
		chosen[l.cause]++
		size += l.size()
		r.bytes -= l.size()
		batch = append(batch, l)
	}
	clear(r.held[len(kept):])
	r.held = kept
	return batch
}

// pace is that of a letter's failure.
func (r *run) pace(l *letter) *Pace {
	p := r.paces[l.cause]
	if p == nil {
		p = &Pace{}
		r.paces[l.cause] = p
		r.examples[l.cause] = clip(route.Header(l.record, task.HeaderErrorClass) + ": " + route.Header(l.record, task.HeaderErrorMessage))
	}
	return p
}

// placed takes a place on the letter's task partition, which is then its record's. Once one had to wait, those behind it
// do too.
func (r *run) placed(l *letter, full map[int32]bool) bool {
	a := r.cfg.Agent(r.ref)
	if a == nil {
		return false
	}
	want := int32(-1)
	if l.record.Key != nil {
		want = route.Partition(l.record.Key, a.Partitions)
	}
	if full[want] {
		return false
	}
	p, ok := r.cfg.Place(r.ref, want)
	full[want] = !ok
	l.place = p
	return ok
}

func clip(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// move settles a batch in one transaction, with the tasks that it becomes. What doesn't move is held again.
func (r *run) move(ctx context.Context, batch []*letter) error {
	r.txn.Lock()
	defer r.txn.Unlock()
	fitting, after := r.settled(batch)
	back := batch[len(fitting):]
	if len(fitting) == 0 {
		r.hold(batch)
		return errFull
	}
	records := r.records(fitting)
	r.begun(fitting)
	err := r.commit(ctx, records, after, r.version, false)
	if err != nil {
		r.hold(batch)
		r.notBegun(fitting)
		return r.refused(ctx, fitting, err)
	}
	maps.Copy(r.ledgers, after)
	r.moved += int64(len(fitting))
	r.hold(back)
	return nil
}

// settled gives as much of a batch as a commit can say, and the ledgers that say it.
func (r *run) settled(batch []*letter) ([]*letter, map[int32]offsets.Ledger) {
	for n := len(batch); n > 0; n /= 2 {
		after, fits := map[int32]offsets.Ledger{}, true
		for _, l := range batch[:n] {
			p := l.record.Partition
			before, ok := after[p]
			if !ok {
				before = r.ledgers[p]
			}
			after[p] = before.Settle(l.from, l.record.Offset+1)
		}
		for _, l := range after {
			_, ok := positionOf(l, r.cfg.Node, [16]byte{}, false)
			fits = fits && ok
		}
		if fits {
			return batch[:n], after
		}
	}
	return nil, nil
}

// records are what dead letters become; nothing where they are purged.
func (r *run) records(batch []*letter) []*kgo.Record {
	a := r.cfg.Agent(r.ref)
	if r.order.Verb != command.Redrive || a == nil {
		return nil
	}
	now := time.Now()
	out := make([]*kgo.Record, len(batch))
	for i, l := range batch {
		out[i] = route.Redrive(r.cfg.Names, a, l.record, l.place, now)
	}
	return out
}

// begun notes tasks that are about to be redriven; they may end before the transaction's answer is here.
func (r *run) begun(batch []*letter) {
	if r.order.Verb != command.Redrive {
		return
	}
	r.tasks.Lock()
	defer r.tasks.Unlock()
	for _, l := range batch {
		r.pace(l).Move()
		r.underway[l.origin.ID()] = redriven{l.cause, route.Redrives(l.record) + 1}
	}
}

// notBegun takes begun back.
func (r *run) notBegun(batch []*letter) {
	if r.order.Verb != command.Redrive {
		return
	}
	r.tasks.Lock()
	defer r.tasks.Unlock()
	for _, l := range batch {
		if u, ok := r.underway[l.origin.ID()]; ok {
			delete(r.underway, l.origin.ID())
			r.paces[u.cause].takeBack()
		}
	}
}

// hold puts letters back, where they were.
func (r *run) hold(batch []*letter) {
	for _, l := range batch {
		r.bytes += l.size()
	}
	r.held = append(slices.Clone(batch), r.held...)
}

// refused decides what it means that a transaction was not committed: letters that the task topic won't ever take are left
// where they are.
func (r *run) refused(ctx context.Context, batch []*letter, err error) error {
	var refused *hop.RecordsError
	if !errors.As(err, &refused) {
		return err
	}
	if err := r.cfg.Mend(ctx, r.ref); err != nil {
		r.log.Warn("make the task topic fit", slog.Any("error", err))
	}
	for i, reason := range refused.Refused {
		l := batch[i]
		if l.refusals++; l.refusals < 3 || !errors.Is(reason, kerr.MessageTooLarge) && !errors.Is(reason, kerr.InvalidRecord) {
			r.say(stateWaiting, fmt.Sprintf("%s can't be written: %v", r.cfg.Names.Tasks(r.agent, r.name), reason))
			continue
		}
		r.kept++
		r.unfit = fmt.Sprintf("the task topic refuses it: %v", reason)
		r.held = slices.DeleteFunc(r.held, func(h *letter) bool { return h == l })
		r.bytes -= l.size()
	}
	await(ctx, look, nil)
	return nil
}

// ended takes the outcome of a redriven task. It is called from another goroutine.
func (r *run) ended(rec *kgo.Record) {
	o, err := task.ParseOrigin(route.Header(rec, task.HeaderOrigin))
	if err != nil {
		return
	}
	r.tasks.Lock()
	defer r.tasks.Unlock()
	u, ok := r.underway[o.ID()]
	if !ok || u.round != route.Redrives(rec) {
		return
	}
	if how, ok := endOf(rec, u.cause); ok {
		delete(r.underway, o.ID())
		r.paces[u.cause].End(how)
		signal(r.woken)
	}
}

// settleTails settles what stands behind the last open dead letters, so that Kafka's tools see no lag where nothing is open.
func (r *run) settleTails(ctx context.Context) error {
	r.txn.Lock()
	defer r.txn.Unlock()
	after := map[int32]offsets.Ledger{}
	for p, tail := range r.scan.tails {
		l := r.ledgers[p].Settle(tail.From, tail.To)
		if _, fits := positionOf(l, r.cfg.Node, [16]byte{}, true); fits {
			after[p] = l
		}
	}
	if len(after) == 0 {
		return nil
	}
	if err := r.commit(ctx, nil, after, r.version, true); err != nil {
		return err
	}
	maps.Copy(r.ledgers, after)
	return nil
}

// linger waits a while for the tasks that are still under way, unless another order waits.
func (r *run) linger(ctx context.Context) {
	for until := time.Now().Add(linger); ctx.Err() == nil && time.Now().Before(until) && !r.all.waiting(r.ref); {
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
func (r *run) verdict(refusal string) (state, why string) {
	r.tasks.Lock()
	defer r.tasks.Unlock()
	reasons := []string{}
	if refusal != "" {
		reasons = append(reasons, refusal)
	}
	if r.kept > 0 {
		for _, cause := range slices.Sorted(maps.Keys(r.paces)) {
			if why := r.paces[cause].Reason(r.examples[cause]); why != "" {
				reasons = append(reasons, why)
			}
		}
		if r.unfit != "" {
			reasons = append(reasons, "a dead letter was left: "+r.unfit)
		}
	}
	if len(reasons) > 0 {
		return status.OrderStopped, strings.Join(reasons, "; ")
	}
	if left := len(r.underway); left > 0 {
		return status.OrderDone, fmt.Sprintf("%d of the redriven tasks have not ended yet", left)
	}
	return status.OrderDone, ""
}

// finish notes that the order is carried out, deletes what is settled at the topic's beginning, and says how it ended.
func (r *run) finish(ctx context.Context, state, why string) error {
	record, err := r.order.Finished(r.cfg.Names, r.cfg.Service+"/"+r.cfg.Node, time.Now())
	if err != nil {
		return err
	}
	if err := r.cfg.Client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return fmt.Errorf("note that the order is carried out: %w", err)
	}
	below := map[int32]int64{}
	for p, l := range r.ledgers {
		below[p] = l.Low
	}
	if err := r.cfg.Trim(ctx, r.topic, below); err != nil && ctx.Err() == nil {
		r.log.Warn("delete settled dead letters", slog.String("topic", r.topic), slog.Any("error", err))
	}
	r.told = time.Time{}
	r.say(state, why)
	r.log.Info("an order about dead letters is carried out", slog.String("order", r.order.ID), slog.String("verb", string(r.order.Verb)), slog.String("by", r.order.Actor),
		slog.String("state", state), slog.Int64("moved", r.moved), slog.Int64("kept", r.kept), slog.String("reason", why))
	return nil
}

// say tells how far it has come, not too often.
func (r *run) say(state, why string) {
	s := status.DLQOrder{Event: status.EventDLQOrder, Topic: r.agent, AgentName: r.name, ID: r.order.ID, Verb: string(r.order.Verb),
		State: state, Reason: why, Moved: r.moved, Kept: r.kept, Guarded: r.guarded}
	r.tasks.Lock()
	for _, p := range r.paces {
		s.Completed += int64(p.Completed)
		s.CameBack += int64(p.Same + p.Other)
	}
	r.tasks.Unlock()
	now := time.Now()
	if s == r.said || now.Sub(r.told) < sayEvery && s.State == r.said.State {
		return
	}
	r.said, r.told = s, now
	s.Timestamp = status.Seconds(now)
	r.cfg.Report(s)
}
