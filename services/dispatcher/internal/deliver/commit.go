package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
)

const (
	batchLimit = 1_000    // webhooks a transaction
	batchBytes = 16 << 20 // beyond which it takes no further one
	tidyEvery  = time.Second
	pauseMin   = 100 * time.Millisecond
	pauseMax   = 5 * time.Second
	alertPause = 2 * time.Second // a pause from which on a person is told
)

// transaction is what one commit is about.
type transaction struct {
	tx     hop.Tx
	batch  []*item
	owners []*item // of the records
	parts  []*part
}

// commits runs one transaction after the other while there is something to commit. What only moves positions on waits for
// an idle moment.
func (d *Deliverer) commits(ctx context.Context) {
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	for {
		always := false
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-tidy.C:
			always = true
		}
		for ctx.Err() == nil {
			settled, again := d.commit(ctx, always, nil, false)
			if !again {
				break
			}
			hop.Gather(ctx, settled)
		}
	}
}

// handOver commits what has finished of some partitions, or of all, as the last word about them.
func (d *Deliverer) handOver(ctx context.Context, ids []int32) {
	for ctx.Err() == nil {
		if _, again := d.commit(ctx, true, ids, true); !again {
			return
		}
	}
}

// commit runs one transaction, and says how many webhooks it settled and whether there may be more to commit at once.
// always is for positions alone as well.
func (d *Deliverer) commit(ctx context.Context, always bool, ids []int32, last bool) (settled int, again bool) {
	d.committing.Lock()
	defer d.committing.Unlock()
	d.makeDLQ(ctx)
	t := d.prepare(always, ids, last)
	if t == nil {
		return 0, false
	}
	// It outlives a stop: it is short, and its outcome should be known.
	err := d.cfg.Pool.Commit(context.WithoutCancel(ctx), t.tx)
	if err == nil {
		d.committed(t)
		return len(t.batch), len(t.batch) > 0
	}
	d.rolledBack(t, err)
	return 0, errors.As(err, new(*hop.RecordsError)) || errors.Is(err, hop.ErrOutdated)
}

// makeDLQ makes the topic of what is given up, before its first record.
func (d *Deliverer) makeDLQ(ctx context.Context) {
	d.mu.Lock()
	needed := !d.dlqReady && slices.ContainsFunc(d.finished, func(i *item) bool { return i.verdict.State == Failed })
	d.mu.Unlock()
	if !needed {
		return
	}
	err := d.cfg.MakeDLQ(ctx)
	if err != nil {
		d.log.Warn("the topic of webhooks that were given up can't be made", slog.Any("error", err)) // its record will be refused
		return
	}
	d.mu.Lock()
	d.dlqReady = true
	d.mu.Unlock()
}

// prepare takes what is to be committed together; nil where there is nothing.
func (d *Deliverer) prepare(always bool, ids []int32, last bool) *transaction {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if !last && now.UnixMilli() < d.held {
		return nil
	}
	t := &transaction{tx: hop.Tx{Member: d.member, Generation: d.member.Generation(), Offsets: map[int32]hop.Position{}}}
	d.take(t, ids, now)
	if len(t.batch) == 0 && !always {
		return nil
	}
	for _, p := range d.parts {
		if concerns(ids, p.id) && (p.dirty || last) {
			low, settled := p.tracker.Position()
			m := offsets.Metadata{Clean: last, TopicID: d.member.TopicID(), Node: d.cfg.Member.Node, Settled: settled}
			t.tx.Offsets[p.id] = hop.Position{Offset: low, Metadata: m.Encode(low)}
			t.parts = append(t.parts, p)
			p.dirty = false // what changes from now on is for the next
		}
	}
	if len(t.parts) == 0 {
		return nil
	}
	return t
}

// take takes what has finished, up to the limit, and makes its records.
func (d *Deliverer) take(t *transaction, ids []int32, now time.Time) {
	var rest []*item
	bytes := 0
	for n, i := range d.finished {
		if len(t.batch) >= batchLimit || bytes > batchBytes {
			rest = append(rest, d.finished[n:]...)
			break
		}
		if !concerns(ids, i.part.id) {
			rest = append(rest, i)
			continue
		}
		i.part.tracker.Settle(i.Record.Offset)
		i.part.dirty = true
		t.batch = append(t.batch, i)
		for _, r := range i.records(d.cfg.Names, d.cfg.Tiers, now) {
			t.tx.Records, t.owners = append(t.tx.Records, r), append(t.owners, i)
			bytes += len(r.Value)
		}
	}
	d.finished = rest
}

// concerns reports whether a partition is among some; nil are all.
func concerns(ids []int32, id int32) bool { return ids == nil || slices.Contains(ids, id) }

// committed makes a transaction count.
func (d *Deliverer) committed(t *transaction) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pause, d.held = 0, 0
	for _, i := range t.batch {
		if i.verdict.State == Failed && d.toldDLQ {
			d.toldDLQ = false
			d.cfg.Alert(alertDLQ, "webhooks that are given up are kept again", true)
		}
		d.left(i)
		i.part.live--
		i.part.bytes -= len(i.Record.Value)
		d.cfg.Metrics.settled(i.verdict)
	}
	for _, p := range t.parts {
		p.tracker.Advance()
		if !p.gone {
			d.admit(p)
		}
	}
	d.start()
	if len(t.batch) > 0 && d.toldWrite {
		d.toldWrite = false
		d.cfg.Alert(alertWrite, "what becomes of webhooks is written again", true)
	}
}

// ours leaves out what is somebody else's by now.
func (d *Deliverer) ours(all []*item) []*item {
	return slices.DeleteFunc(all, func(i *item) bool {
		if i.part.gone {
			d.left(i)
		}
		return i.part.gone
	})
}

// rolledBack puts everything back as it was, and decides about what the broker refused.
func (d *Deliverer) rolledBack(t *transaction, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range t.batch {
		i.part.tracker.Unsettle(i.Record.Offset)
	}
	for _, p := range t.parts {
		p.dirty = true
	}
	d.finished = append(d.ours(slices.Clone(t.batch)), d.finished...)
	d.start()
	refused := (*hop.RecordsError)(nil)
	if errors.Is(err, hop.ErrOutdated) || errors.As(err, &refused) && d.resolve(t, refused) {
		return
	}
	d.pause = min(max(2*d.pause, pauseMin), pauseMax)
	d.held = time.Now().Add(d.pause).UnixMilli()
	time.AfterFunc(d.pause, func() { signal(d.wake) })
	if d.pause == alertPause/5 || d.pause == pauseMax {
		d.log.Warn("a commit of webhooks is tried again", slog.Int("webhooks", len(t.batch)), slog.Any("error", err))
	}
	if d.pause >= alertPause && !d.toldWrite {
		d.toldWrite = true
		d.cfg.Alert(alertWrite, fmt.Sprintf("what becomes of webhooks can't be written (%v): they wait and may be sent again, none is lost", err), false)
	}
}

// resolve finds another way for what was refused. It reports whether there is one for all of it.
func (d *Deliverer) resolve(t *transaction, refused *hop.RecordsError) bool {
	all := true
	for n, reason := range refused.Refused {
		i, topic := t.owners[n], t.tx.Records[n].Topic
		switch {
		case topic == d.cfg.Names.Status():
			i.silent = true // nobody hears of it, but it is settled
		case topic == d.cfg.Names.WebhookDLQ():
			// Nothing is dropped, and nothing else waits for it.
			d.dlqReady = false
			wait := d.cfg.Tiers[len(d.cfg.Tiers)-1]
			i.verdict = Verdict{State: Retrying, Deferred: true, Wait: wait}
			d.toldDLQ = true
			d.cfg.Alert(alertDLQ, fmt.Sprintf("%s can't be written (%v): webhooks that were given up wait %s and are tried once more; create the topic or grant the right to write it",
				topic, reason, wait), false)
		case errors.Is(reason, kerr.MessageTooLarge) && i.verdict.State == Retrying:
			i.verdict = Verdict{State: Failed, Class: "result_too_large", Message: fmt.Sprintf("%s takes no record of its size, so it can't wait there", topic)}
		default:
			all = false
		}
	}
	return all
}

// since is when a webhook began to be sent: its task ended, or it was redriven.
func since(r *kgo.Record) time.Time {
	if times, at := route.WebhookRedrives(r); times > 0 {
		return at
	}
	if at := ended(r); at > 0 {
		return time.UnixMilli(at)
	}
	return r.Timestamp
}
