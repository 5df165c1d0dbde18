package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/spec"
)

const trimInterval = time.Minute

// upkeep is what one dispatcher does for all: the one that reads the first partition of the first retry tier. If two
// do it for a moment, nothing bad comes of it.
type upkeep struct {
	env *Environment

	mu      sync.Mutex
	leading bool
}

func newUpkeep(env *Environment) *upkeep { return &upkeep{env: env} }

func (u *upkeep) lead(yes bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.leading = yes
}

func (u *upkeep) leads() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.leading
}

func (u *upkeep) run(ctx context.Context, agents func() []*spec.Agent) {
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	trimmed := make(map[string]map[int32]int64)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !u.leads() {
			continue
		}
		u.trim(ctx, agents(), trimmed)
	}
}

// trim deletes what is settled from task and retry topics. trimmed is what it has done before.
func (u *upkeep) trim(ctx context.Context, agents []*spec.Agent, trimmed map[string]map[int32]int64) {
	topicOf := make(map[string]string) // by group
	for _, a := range agents {
		topicOf[u.env.Names.WorkGroup(a.Topic, a.Name)] = u.env.Names.Tasks(a.Topic, a.Name)
	}
	for _, tier := range u.env.Tiers {
		topicOf[u.env.Names.RetryGroup(tier)] = u.env.Names.Retry(tier)
		topicOf[u.env.Names.WebhookRetryGroup(tier)] = u.env.Names.WebhookRetry(tier)
	}
	topicOf[u.env.Names.WebhookGroup()] = u.env.Names.Webhooks()
	fetched := u.env.admin().FetchManyOffsets(ctx, keys(topicOf)...)
	below := make(map[string]map[int32]int64)
	for group, topic := range topicOf {
		ps := committed(fetched[group], topic)
		if len(ps) > 0 && !maps.Equal(ps, trimmed[topic]) {
			below[topic] = ps
		}
	}
	err := kafka.Trim(ctx, u.env.Client, below)
	if err == nil {
		maps.Copy(trimmed, below)
	}
	err = u.env.Rights.Accept("trim task and retry topics behind what is settled", "they grow until somebody grants Delete on them", err)
	if err != nil && ctx.Err() == nil {
		u.env.Logger.Warn("trim behind committed offsets", slog.Any("error", err))
	}
}

func committed(r kadm.FetchOffsetsResponse, topic string) map[int32]int64 {
	if r.Err != nil {
		return nil
	}
	ps := make(map[int32]int64)
	for p, o := range r.Fetched[topic] {
		if o.Err == nil && o.At > 0 {
			ps[p] = o.At
		}
	}
	return ps
}

// idlePositions gives the committed positions of agents that nobody routes, by topic/name. Only one dispatcher reports
// them, or the sum over dispatchers would be wrong.
func (u *upkeep) idlePositions(ctx context.Context, keepers []*Keeper) map[string]map[int32]int64 {
	if !u.leads() {
		return nil
	}
	refOf, topicOf := make(map[string]string), make(map[string]string)
	for _, k := range keepers {
		if a := k.Spec(); a != nil && a.Phase != spec.Active && a.Phase != spec.Terminated {
			group := u.env.Names.Group(a.Topic, a.Name)
			refOf[group], topicOf[group] = a.Ref(), a.Topic
		}
	}
	if len(refOf) == 0 {
		return nil
	}
	at := make(map[string]map[int32]int64)
	fetched := u.env.admin().FetchManyOffsets(ctx, keys(refOf)...)
	for group, ref := range refOf {
		if r, ok := fetched[group]; ok && (r.Err == nil || errors.Is(r.Err, kerr.GroupIDNotFound)) {
			ps := make(map[int32]int64)
			for p, o := range r.Fetched[topicOf[group]] {
				ps[p] = o.At
			}
			ps[wholeTopic] = 0
			at[ref] = ps
		}
	}
	return at
}

// wholeTopic among positions says that they stand for a whole topic: a partition that isn't among them counts from its
// start.
const wholeTopic int32 = -1

// lag counts the records between positions and the ends of a topic's partitions; nil where there are no positions.
func lag(topic string, at map[int32]int64, starts, ends kadm.ListedOffsets) *int64 {
	if at == nil {
		return nil
	}
	_, whole := at[wholeTopic]
	var n int64
	for p, end := range ends[topic] {
		position, known := at[p]
		if end.Err != nil || !known && !whole {
			continue
		}
		if start, ok := starts.Lookup(topic, p); ok && start.Err == nil {
			position = max(position, start.Offset)
		}
		n += max(end.Offset-position, 0)
	}
	return &n
}

func isUnknownTopic(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
}

func keys(m map[string]string) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	return ks
}
