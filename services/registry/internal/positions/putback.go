package positions

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

// putBack commits again what Kafka has forgotten, brought up to date. It reports whether all of it is done.
func (k *Keeper) putBack(ctx context.Context, forgotten []seen) bool {
	b := back{keeper: k, tasks: map[string][]taskRecord{}}
	if err := b.readOutcomes(ctx); err != nil {
		k.Logger.Warn("put back the positions of groups that Kafka has forgotten: it is tried again", slog.Int("groups", len(forgotten)), slog.Any("error", err))
		return false
	}
	all := true
	for _, s := range forgotten {
		err := b.group(ctx, s)
		switch {
		case err == nil:
			delete(k.told, s.name)
		case !k.told[s.name]:
			k.told[s.name] = true
			k.Logger.Warn("put back the positions of a group that Kafka has forgotten: it is tried again", slog.String("group", s.name), slog.Any("error", err))
		}
		all = all && err == nil
	}
	return all
}

// back is the work of one putBack, with what it has read.
type back struct {
	keeper  *Keeper
	settled settled
	tasks   map[string][]taskRecord // of an agent's task topic, behind its kept position
}

// readOutcomes reads what was settled since the last look.
func (b *back) readOutcomes(ctx context.Context) error {
	k := b.keeper
	topic := k.Names.Outcomes()
	now, err := k.outcomesEnd(ctx)
	if err != nil {
		return err
	}
	starts, err := peek.PartitionBounds(ctx, k.Client, topic)
	if err != nil {
		return err
	}
	ranges := map[int32]peek.Bounds{}
	for p, at := range starts {
		if now.topicID == k.asOf.topicID {
			at.Start = max(at.Start, k.asOf.ends[p])
		}
		ranges[p] = at
	}
	b.settled = settled{}
	return peek.Scan(ctx, k.Opts, peek.Ranges{topic: ranges}, func(r *kgo.Record) { b.settled.add(r) })
}

// group puts one group back.
func (b *back) group(ctx context.Context, s seen) error {
	k := b.keeper
	adm := kadm.NewClient(k.Client)
	described, err := adm.DescribeGroups(ctx, s.name)
	if err != nil {
		return fmt.Errorf("describe group %s: %w", s.name, err)
	}
	n := len(described[s.name].Members)
	if n > 0 && s.agent == nil && k.kept[s.name] == nil {
		return nil // of a young installation: they were faster, and begin where it would be committed
	}
	if n > 0 {
		return fmt.Errorf("group %s has members already (%d), which began without them: only they can commit", s.name, n)
	}
	bounds, err := peek.PartitionBounds(ctx, k.Client, s.topic)
	if err != nil {
		return err
	}
	at := k.copyOf(s, bounds)
	switch s.kind {
	case ofEvents:
		err = b.user(ctx, s, at)
	case ofTasks:
		err = b.work(ctx, s, at)
	case ofRetries:
		err = b.tier(ctx, s, bounds, at)
	}
	if err != nil {
		return err
	}
	var commit kadm.Offsets
	for p, to := range at {
		commit.Add(kadm.Offset{Topic: s.topic, Partition: p, At: to.Next, LeaderEpoch: -1, Metadata: to.Metadata})
	}
	committed, err := adm.CommitOffsets(ctx, s.name, commit)
	if err == nil {
		err = committed.Error()
	}
	if err != nil {
		return fmt.Errorf("commit positions of group %s: %w", s.name, err)
	}
	what := "put back the positions of a group that Kafka had forgotten"
	if k.kept[s.name] == nil {
		what = "committed where a group begins of which no position is known"
	}
	k.Logger.Info(what, slog.String("group", s.name), slog.Any("positions", nexts(at)))
	return nil
}

// copyOf is what is kept of a group; a partition that isn't, of a group without a copy, stands at its log's start. What was
// trimmed from a topic of Reeve's own was done with.
func (k *Keeper) copyOf(s seen, bounds map[int32]peek.Bounds) map[int32]position {
	at := map[int32]position{}
	if c := k.kept[s.name]; c != nil && c.topicID == s.topicID && c.life == s.life() {
		for p, from := range c.at {
			if start := bounds[p].Start; from.Next < start && s.kind != ofEvents && s.kind != ofLetters {
				from = position{start, moved(from, start)}
			}
			at[p] = from
		}
		return at
	}
	for p, b := range bounds {
		at[p] = position{Next: b.Start}
	}
	return at
}

func nexts(at map[int32]position) []string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(at)) {
		out = append(out, fmt.Sprintf("%d:%d", p, at[p].Next))
	}
	return out
}

// taskRecord is a task or a retry as it stands on a topic.
type taskRecord struct {
	partition int32
	offset    int64
	round
	attempt int
	event   task.Origin
}

// tasksOf reads an agent's task topic behind the kept position of its work group.
func (b *back) tasksOf(ctx context.Context, topic, name string) ([]taskRecord, error) {
	k, ref := b.keeper, topic+"/"+name
	if read, ok := b.tasks[ref]; ok {
		return read, nil
	}
	tasks := k.Names.Tasks(topic, name)
	bounds, err := peek.PartitionBounds(ctx, k.Client, tasks)
	if err != nil {
		return nil, err
	}
	c := k.kept[k.Names.WorkGroup(topic, name)]
	for p, at := range bounds {
		if c != nil {
			at.Start = min(max(at.Start, c.at[p].Next), at.End)
		}
		bounds[p] = at
	}
	out := []taskRecord{}
	err = peek.Scan(ctx, k.Opts, peek.Ranges{tasks: bounds}, func(r *kgo.Record) {
		if t, ok := taskOf(r); ok {
			out = append(out, t)
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(x, y taskRecord) int {
		return cmp.Or(cmp.Compare(x.partition, y.partition), cmp.Compare(x.offset, y.offset))
	})
	b.tasks[ref] = out
	return out, nil
}

func (b *back) user(ctx context.Context, s seen, at map[int32]position) error {
	tasks, err := b.tasksOf(ctx, s.agent.Topic, s.agent.Name)
	if err != nil {
		return err
	}
	advance(at, s.agent, s.topicID, tasks, b.settled)
	return nil
}

func (b *back) work(ctx context.Context, s seen, at map[int32]position) error {
	tasks, err := b.tasksOf(ctx, s.agent.Topic, s.agent.Name)
	if err != nil {
		return err
	}
	for p, from := range at {
		at[p] = settle(from, on(tasks, p), b.settled.has)
	}
	return nil
}

// on are the records of a partition.
func on(records []taskRecord, p int32) []taskRecord {
	return slices.DeleteFunc(slices.Clone(records), func(t taskRecord) bool { return t.partition != p })
}

// tier brings a retry topic's positions up to date: a record that was moved is on its agent's task topic, or its attempt is
// settled. Most are moved in order, some before they are due.
func (b *back) tier(ctx context.Context, s seen, bounds map[int32]peek.Bounds, at map[int32]position) error {
	ranges := map[int32]peek.Bounds{}
	for p, from := range at {
		if log, ok := bounds[p]; ok {
			ranges[p] = peek.Bounds{Start: min(max(log.Start, from.Next), log.End), End: log.End}
		}
	}
	var pending []taskRecord
	err := peek.Scan(ctx, b.keeper.Opts, peek.Ranges{s.topic: ranges}, func(r *kgo.Record) {
		if t, ok := taskOf(r); ok {
			pending = append(pending, t)
		}
	})
	if err != nil {
		return err
	}
	waiting := map[round]int{} // up to which attempt a round is on its task topic
	for _, ref := range agentsOf(pending) {
		topic, name, _ := strings.Cut(ref, "/")
		tasks, err := b.tasksOf(ctx, topic, name)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			waiting[t.round] = max(waiting[t.round], t.attempt)
		}
	}
	for p, from := range at {
		at[p] = settle(from, on(pending, p), func(t taskRecord) bool { return b.settled.has(t) || t.attempt > 0 && waiting[t.round] >= t.attempt })
	}
	return nil
}

func agentsOf(records []taskRecord) []string {
	var refs []string
	for _, t := range records {
		refs = append(refs, t.agent)
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

// taskOf reads what a record on a task topic or retry topic says of its task; false where it is none.
func taskOf(r *kgo.Record) (taskRecord, bool) {
	origin, err := task.ParseOrigin(route.Header(r, task.HeaderOrigin))
	if err != nil {
		return taskRecord{}, false
	}
	return taskRecord{partition: r.Partition, offset: r.Offset, attempt: number(route.Header(r, task.HeaderAttempt)), round: roundOf(r),
		event: origin}, true
}

// moved is a position's metadata for a later position, where all before is settled.
func moved(from position, to int64) string {
	m, err := offsets.Decode(from.Next, from.Metadata)
	if err != nil {
		return ""
	}
	m = m.From(from.Next, to)
	return m.Encode(to)
}
