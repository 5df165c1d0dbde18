package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

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
		if deadletter.Leaves(r.order) && !r.to.takesIt(l) {
			r.unfit++
			r.bytes -= l.size()
			continue
		}
		if r.order.Verb == command.Redrive && !r.order.OfOne() {
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
		if r.order.Verb == command.Redrive && !r.to.place(l, full) {
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
		p = r.to.pace()
		r.paces[l.cause] = p
		r.examples[l.cause] = clip(route.Header(l.record, task.HeaderErrorClass) + ": " + route.Header(l.record, task.HeaderErrorMessage))
	}
	return p
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
	b, ok, err := r.become(ctx, fitting)
	if err != nil || !ok {
		r.hold(batch)
		return err
	}
	r.begun(b.again)
	if err := r.commit(ctx, b.records, after, r.version, false, 0); err != nil {
		r.hold(batch)
		r.notBegun(b.again)
		return r.refused(ctx, fitting, b.records, err)
	}
	maps.Copy(r.ledgers, after)
	r.stirred = time.Now()
	r.count()
	r.mine += int64(len(fitting))
	r.unwanted += int64(b.unwanted)
	r.opened = append(r.opened, Opened(r.cfg.Names.Tasks(r.agent, r.name), b.records)...)
	if r.order.Verb == command.Redrive {
		r.to.moved(len(fitting))
	}
	r.hold(back)
	return nil
}

// settled gives as much of a batch as a commit can say, and the ledgers that say it.
func (r *run) settled(batch []*letter) ([]*letter, map[int32]offsets.Ledger) {
	mark := r.mark()
	for n := len(batch); n > 0; n /= 2 {
		after, fits := map[int32]offsets.Ledger{}, true
		for _, l := range batch[:n] {
			p := l.record.Partition
			before, ok := after[p]
			if !ok {
				before = r.ledgers[p]
			}
			after[p] = before.Settle(l.from, l.record.Offset+1).Count(mark, 1)
		}
		for _, l := range after {
			_, ok := positionOf(l, r.cfg.Node, [16]byte{}, false, maxStamp)
			fits = fits && ok
		}
		if fits {
			return batch[:n], after
		}
	}
	return nil, nil
}

// become is what dead letters become: a record each, and behind these what tells of those that end so.
type become struct {
	records  []*kgo.Record
	again    []*letter // of them: those that are under way then
	unwanted int       // how many of them end so, because nobody takes them any more
}

// become makes it; nothing where they are purged. ok is false where their agent is gone meanwhile: they stay then.
func (r *run) become(ctx context.Context, batch []*letter) (b become, ok bool, err error) {
	if r.order.Verb != command.Redrive {
		return b, true, nil
	}
	now := time.Now()
	var endings []worker.Ending
	for _, l := range batch {
		record, outcome, err := r.to.record(l, r.order.ID, now)
		switch {
		case err != nil || record == nil:
			return b, false, err
		case outcome == nil:
			if l.unrun = unrun(record); l.unrun {
				b.unwanted++
			}
			b.records, b.again = append(b.records, record), append(b.again, l)
		default:
			b.unwanted++
			b.records = append(b.records, outcome)
			endings = append(endings, worker.Ending{Task: record, Outcome: outcome})
		}
	}
	b.records = append(b.records, slices.Concat(r.cfg.Unrun.Ended(ctx, endings...)...)...)
	return b, true, nil
}

// unrun reports whether a worker dead-letters a task again without running it, since its agent doesn't take it.
func unrun(r *kgo.Record) bool { return route.Header(r, task.HeaderErrorClass) != "" }

// hold puts letters back, where they were.
func (r *run) hold(batch []*letter) {
	for _, l := range batch {
		r.bytes += l.size()
	}
	r.held = append(slices.Clone(batch), r.held...)
}

// refused decides what it means that a transaction was not committed: letters that the task topic won't ever take are left
// where they are.
func (r *run) refused(ctx context.Context, batch []*letter, records []*kgo.Record, err error) error {
	if errors.Is(err, hop.ErrOutdated) {
		return nil
	}
	left := r.cfg.Unrun.NotCommitted(ctx, records, len(batch), err)
	if refused := (*hop.RecordsError)(nil); !errors.As(err, &refused) {
		return err
	}
	if err := r.to.mend(ctx); err != nil {
		r.log.Warn("make the topic of redriven records fit", slog.String("to", r.to.topic()), slog.Any("error", err))
	}
	for i, reason := range left {
		if i >= len(batch) {
			r.say(stateWaiting, fmt.Sprintf("%s can't be written: %v", records[i].Topic, reason))
			continue
		}
		l := batch[i]
		if l.refusals++; l.refusals < 3 || !errors.Is(reason, kerr.MessageTooLarge) && !errors.Is(reason, kerr.InvalidRecord) {
			r.say(stateWaiting, fmt.Sprintf("%s can't be written: %v", records[i].Topic, reason))
			continue
		}
		r.kept++
		r.foreign = fmt.Sprintf("%s refuses it: %v", r.to.topic(), reason)
		r.held = slices.DeleteFunc(r.held, func(h *letter) bool { return h == l })
		r.bytes -= l.size()
	}
	await(ctx, look, nil)
	return nil
}
