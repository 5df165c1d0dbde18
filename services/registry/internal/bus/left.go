package bus

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

// Left counts the tasks of agents (topic and name) that aren't finished: those that stand on their task topics and aren't
// settled, and those on the retry topics. A retry that is moved meanwhile may count twice, or not at all.
func (b *Bus) Left(ctx context.Context, agents [][2]string, tiers []time.Duration) (map[[2]string]int64, error) {
	of := map[string][2]string{} // by task topic, and by topic/name
	groups := map[string]string{}
	for _, a := range agents {
		of[b.names.Tasks(a[0], a[1])], of[a[0]+"/"+a[1]] = a, a
		groups[b.names.Tasks(a[0], a[1])] = b.names.WorkGroup(a[0], a[1])
	}
	for _, tier := range tiers {
		groups[b.names.Retry(tier)] = b.names.RetryGroup(tier)
	}
	var topics, names []string
	for topic, group := range groups {
		topics, names = append(topics, topic), append(names, group)
	}
	ranges, err := peek.TopicBounds(ctx, b.client, topics...)
	if err != nil {
		return nil, err
	}
	committed := kadm.NewClient(b.client).FetchManyOffsets(ctx, names...)
	done := map[string]map[int32]settled{}
	for topic, partitions := range ranges {
		done[topic] = map[int32]settled{}
		for p, at := range partitions {
			if o, ok := committed[groups[topic]].Fetched.Lookup(topic, p); ok && o.At >= 0 {
				m, _ := offsets.Decode(o.At, o.Metadata) // what can't be read counts as empty
				done[topic][p] = settled{o.At, m.Settled}
				at.Start = min(max(at.Start, o.At), at.End)
				partitions[p] = at
			}
		}
	}
	out := map[[2]string]int64{}
	err = peek.Scan(ctx, b.opts, ranges, func(r *kgo.Record) {
		agent, ok := of[r.Topic]
		if !ok {
			agent, ok = of[route.Header(r, task.HeaderAgent)]
		}
		if at := done[r.Topic][r.Partition]; ok && !at.set.Has(r.Offset-at.low) {
			out[agent]++
		}
	})
	return out, err
}

// settled is what a group has settled of a partition beyond its position.
type settled struct {
	low int64
	set offsets.Set
}
