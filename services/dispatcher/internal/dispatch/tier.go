package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Tier is the rule of a retry tier's topic: a record passes when it is due, which is its time of append plus the tier's
// delay. The delay is one for the whole topic, so a partition's head is always its earliest.
type Tier struct {
	names  topics.Names
	delay  time.Duration
	node   string
	agents func(ref string) *spec.Agent // nil for an agent that nobody knows
	now    func() time.Time
	alert  func(kind, message string)
	stands func(status.Alert) // as status.Reporter.Alert
	logger *slog.Logger

	spread   route.Spread
	patience patience
	refused  map[recordID]bool
	unknown  map[string]time.Time // agents that nobody knows, and when a retry of theirs was met last

	asks    *asks
	version int             // of the asks that were looked for
	looked  map[int32]int64 // by partition: below, every record was
	done    carriedOut
	// mend makes an agent's task topic anew where it is gone.
	mend func(ctx context.Context, ref string) error
	// leads is told whether this node reads partition 0 of the tier.
	leads func(bool)
}

// Take lets the due records pass: to their agent's task topic, also while it is paused, or to the outcomes as
// discarded where the agent was deleted. A retry of an agent that the control topic doesn't know goes round once more: a
// deleted one is known for long, so that it is rather the control topic that lacks something, and what is discarded is gone.
func (t *Tier) Take(p int32, records []*kgo.Record, limit int) ([]*kgo.Record, time.Duration) {
	now := t.now()
	for id := range t.refused {
		if id.partition == p && id.offset < records[0].Offset {
			delete(t.refused, id) // moved on
		}
	}
	return due(records[:min(limit, len(records))], t.delay, now, t.due)
}

// together is the grain of a tier's time: what comes due within it passes at its end, so that hundreds of retries a second are
// at most a hundred transactions, which leave the broker its time for the events.
const together = 10 * time.Millisecond

// passes is when a record passes that is due at a time, which it never precedes.
func passes(due time.Time) time.Time { return due.Add(together - 1).Truncate(together) }

// due makes what becomes of the records of a tier's partition that are due, and says how long the next one isn't.
func due(records []*kgo.Record, delay time.Duration, now time.Time, becomes func(*kgo.Record, time.Time) *kgo.Record) (outs []*kgo.Record, wait time.Duration) {
	for _, r := range records {
		if r.Attrs.IsControl() {
			outs = append(outs, nil)
			continue
		}
		if wait := passes(r.Timestamp.Add(delay)).Sub(now); wait > 0 {
			return outs, wait
		}
		outs = append(outs, becomes(r, now))
	}
	return outs, 0
}

// Ended tells of what was asked for. Apart from that it doesn't matter: a retry is due, however often it is tried.
func (t *Tier) Ended(committed bool) {
	if len(t.done) > 0 && !committed {
		t.looked = nil
	}
	t.done.ended(t.asks, committed)
	t.retract()
}

// due is what a due record becomes; nil where it is no task at all.
func (t *Tier) due(r *kgo.Record, now time.Time) *kgo.Record {
	if t.refused[recordID{r.Partition, r.Offset}] {
		return again(r)
	}
	ref := route.Header(r, task.HeaderAgent)
	a := t.agents(ref)
	switch {
	case a == nil && ref != "":
		t.meet(ref, now)
		return again(r)
	case a != nil && !t.orphaned(a, r):
		return route.Retry(t.names, a, &t.spread, r, now)
	}
	end := route.Ending{Outcome: task.Discarded, Settled: task.SettledDropped, Message: fmt.Sprintf("the agent %s was deleted", ref), Node: t.node}
	out, err := route.Outcome(t.names, r, end, now)
	if err != nil {
		t.logger.Warn("drop a record that is no retry", slog.String("topic", r.Topic), slog.Int("partition", int(r.Partition)), slog.Int64("offset", r.Offset), slog.Any("error", err))
		return nil
	}
	return out
}

// again sends a record to the end of its tier.
func again(r *kgo.Record) *kgo.Record {
	return &kgo.Record{Topic: r.Topic, Partition: hop.AnyPartition, Key: r.Key, Value: r.Value, Headers: r.Headers}
}

// orphaned reports whether a retry is from a life of its agent that ended and takes its retries along.
func (t *Tier) orphaned(a *spec.Agent, r *kgo.Record) bool {
	return a.CleanUp && (a.Phase == spec.Terminated || a.Cleaning()) || r.Offset < a.Floor(topics.Tier(t.delay), r.Partition)
}

// Refused sends a record whose task topic can't be written to the end of its own tier, so that the retries of other
// agents behind it aren't held up.
func (t *Tier) Refused(ctx context.Context, r *kgo.Record, reason error) {
	ref := route.Header(r, task.HeaderAgent)
	if err := t.mend(ctx, ref); err != nil {
		t.logger.Warn("make the task topic fit", slog.String("agent", ref), slog.Any("error", err))
	}
	t.refused[recordID{r.Partition, r.Offset}] = true
	if t.patience.lost(t.now()) {
		t.alert("destination_unwritable", fmt.Sprintf("retries of %s can't be written: %v", ref, reason))
	}
}

// Overtaken alerts people: something trimmed a topic that only Reeve trims.
func (t *Tier) Overtaken(p int32, from, to int64) {
	t.alert("records_lost", lostRange(t.names.Retry(t.delay), p, from, to))
}

// Truncated alerts people, and forgets what it knew of these records.
func (t *Tier) Truncated(p int32, end, read int64) {
	t.alert("records_lost", truncatedRange(t.names.Retry(t.delay), p, end, read))
	delete(t.looked, p)
	for id := range t.refused {
		if id.partition == p && id.offset >= end {
			delete(t.refused, id)
		}
	}
}

// Assigned and Released tell who leads.
func (t *Tier) Assigned(a hop.Assignment) {
	delete(t.looked, a.Partition) // what comes now may be read again
	if a.Partition == 0 && t.leads != nil {
		t.leads(true)
	}
}

// Released is the counterpart of Assigned.
func (t *Tier) Released(p int32) {
	if p == 0 && t.leads != nil {
		t.leads(false)
	}
}

func lostRange(topic string, p int32, from, to int64) string {
	if from < 0 {
		return fmt.Sprintf("retention removed records of %s, partition %d, below offset %d before they were consumed", topic, p, to)
	}
	return fmt.Sprintf("retention removed %d records of %s, partition %d, offsets %d to %d, before they were consumed", to-from, topic, p, from, to-1)
}
