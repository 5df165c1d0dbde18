package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Purge is the rule of a task topic that is to be deleted: every task that isn't settled is settled as discarded.
type Purge struct {
	names  topics.Names
	agent  *spec.Agent
	node   string
	logger *slog.Logger

	mu       sync.Mutex
	assigned map[int32]purged
}

type purged struct {
	low      int64
	metadata offsets.Metadata
}

// Take lets everything pass.
func (u *Purge) Take(p int32, records []*kgo.Record, limit int) ([]*kgo.Record, time.Duration) {
	u.mu.Lock()
	from := u.assigned[p]
	u.mu.Unlock()
	outs := make([]*kgo.Record, min(limit, len(records)))
	now := time.Now()
	for i := range outs {
		r := records[i]
		if r.Attrs.IsControl() || from.metadata.Settled.Has(r.Offset-from.low) {
			continue
		}
		outs[i] = u.discard(r, from.metadata, now)
	}
	return outs, 0
}

// Ended doesn't matter.
func (u *Purge) Ended(bool) {}

func (u *Purge) discard(r *kgo.Record, m offsets.Metadata, now time.Time) *kgo.Record {
	end := route.Ending{Outcome: task.Discarded, Settled: task.SettledDropped, Node: u.node,
		Message: fmt.Sprintf("the agent %s was deleted", u.agent.Ref())}
	for _, e := range m.Entries {
		if e.Offset == r.Offset {
			end.Begun = e.Attempt
		}
	}
	out, err := route.Outcome(u.names, r, end, now)
	if err != nil {
		u.logger.Warn("drop a record that is no task", slog.String("topic", r.Topic), slog.Int("partition", int(r.Partition)), slog.Int64("offset", r.Offset), slog.Any("error", err))
		return nil
	}
	return out
}

// Refused is logged; the record is tried again.
func (u *Purge) Refused(_ context.Context, _ *kgo.Record, reason error) {
	u.logger.Warn("settle a discarded task", slog.String("agent", u.agent.Ref()), slog.Any("error", reason))
}

// Overtaken doesn't matter for what is deleted anyway.
func (u *Purge) Overtaken(int32, int64, int64) {}

// Truncated forgets what was settled of records that are gone.
func (u *Purge) Truncated(p int32, end, _ int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if from, ok := u.assigned[p]; ok {
		u.assigned[p] = purged{from.low, from.metadata.Below(from.low, end)}
	}
}

// Assigned keeps what is settled beyond the position.
func (u *Purge) Assigned(a hop.Assignment) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.assigned[a.Partition] = purged{a.Offset, a.Metadata}
}

// Released forgets it.
func (u *Purge) Released(p int32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.assigned, p)
}
