package bus

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

// exactCount is how many records of a partition are counted one by one, and exactTotal how many of all partitions that
// one request asks for.
const (
	exactCount = 1000
	exactTotal = 20 * exactCount
)

// Group is an agent's group on its user topic.
type Group struct {
	Name      string
	State     string
	Consumers int
	Position  map[int32]int64 // committed offsets
	Behind    Range           // what is still to be routed
}

// Range is a part of a topic.
type Range struct{ ranges peek.Ranges }

// Length is how many offsets it has: events, and markers of transactions.
func (r Range) Length() (n int64) {
	for _, partitions := range r.ranges {
		for _, at := range partitions {
			n += at.End - at.Start
		}
	}
	return n
}

// Groups describes the groups of agents (topic and name) on their user topics, in the order of the agents.
func (b *Bus) Groups(ctx context.Context, agents [][2]string) ([]Group, error) {
	if len(agents) == 0 {
		return nil, nil
	}
	names, of := make([]string, len(agents)), make([]string, len(agents))
	for i, a := range agents {
		names[i], of[i] = b.names.Group(a[0], a[1]), a[0]
	}
	slices.Sort(of)
	bounds, err := peek.TopicBounds(ctx, b.client, slices.Compact(of)...)
	if err != nil {
		return nil, err
	}
	adm := kadm.NewClient(b.client)
	described, err := adm.DescribeGroups(ctx, names...)
	if err != nil && len(described) == 0 {
		return nil, fmt.Errorf("describe %d groups: %w", len(names), err)
	}
	committed := adm.FetchManyOffsets(ctx, names...)
	out := make([]Group, len(names))
	for i, name := range names {
		topic := agents[i][0]
		if err := committed[name].Err; err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("read the offsets of group %s: %w", name, err)
		}
		out[i] = Group{Name: name, State: described[name].State, Consumers: len(described[name].Members), Position: map[int32]int64{}}
		behind := map[int32]peek.Bounds{}
		for partition, at := range bounds[topic] {
			if o, ok := committed[name].Fetched.Lookup(topic, partition); ok && o.At >= 0 {
				at.Start = max(o.At, at.Start)
				out[i].Position[partition] = o.At
			}
			behind[partition] = at
		}
		out[i].Behind.ranges = peek.Ranges{topic: behind}
	}
	return out, nil
}

// Count counts the events of a range without transaction markers; those of a partition that has more than 1,000 offsets
// in it are not told from markers.
func (b *Bus) Count(ctx context.Context, r Range) (int64, error) {
	counts, err := peek.Count(ctx, b.opts, r.ranges, exactCount)
	var n int64
	for _, c := range counts {
		n += c
	}
	return n, err
}

// Dispatched reports whether an agent's group has passed an event; exists is whether the topic has reached the offset and
// still has it.
func (b *Bus) Dispatched(ctx context.Context, topic, agent string, partition int32, offset int64) (dispatched, exists bool, err error) {
	bounds, err := peek.PartitionBounds(ctx, b.client, topic)
	if err != nil {
		return false, false, err
	}
	at, ok := bounds[partition]
	if !ok || offset >= at.End || offset < at.Start {
		return false, false, nil
	}
	offsets, err := b.offsets(ctx, b.names.Group(topic, agent))
	if err != nil {
		return false, true, err
	}
	o, ok := offsets.Lookup(topic, partition)
	return ok && o.At > offset, true, nil
}

// offsets reads a group's committed offsets; a group that doesn't exist has none.
func (b *Bus) offsets(ctx context.Context, group string) (kadm.OffsetResponses, error) {
	offsets, err := kadm.NewClient(b.client).FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("read the offsets of group %s: %w", group, err)
	}
	return offsets, nil
}

// Place is where a record stands in its topic.
type Place struct {
	Partition int32 `json:"p"`
	Offset    int64 `json:"o"`
}

// Outcome reads the record of an attempt from the outcomes topic.
func (b *Bus) Outcome(ctx context.Context, partition int32, offset int64) (*kgo.Record, error) {
	return kafka.RecordAt(ctx, b.client, b.opts, b.names.Outcomes(), partition, offset)
}

// Event reads a record of a user's topic. It is kafka.ErrGone where it isn't kept any more.
func (b *Bus) Event(ctx context.Context, topic string, partition int32, offset int64) (*kgo.Record, error) {
	return kafka.RecordAt(ctx, b.client, b.opts, topic, partition, offset)
}

// Outcomes reads the records of attempts from the outcomes topic, by their places; those that are gone are left out.
func (b *Bus) Outcomes(ctx context.Context, at []Place) (map[Place]*kgo.Record, error) {
	offsets := map[int32][]int64{}
	for _, p := range at {
		offsets[p.Partition] = append(offsets[p.Partition], p.Offset)
	}
	records, err := peek.Pick(ctx, b.client, b.opts, b.names.Outcomes(), offsets)
	if err != nil {
		return nil, err
	}
	out := make(map[Place]*kgo.Record, len(records))
	for _, r := range records {
		out[Place{r.Partition, r.Offset}] = r
	}
	return out, nil
}

// ForgetOutcomes deletes the outcomes below offsets, by partition.
func (b *Bus) ForgetOutcomes(ctx context.Context, below map[int32]int64) error {
	topic := b.names.Outcomes()
	bounds, err := peek.PartitionBounds(ctx, b.client, topic)
	if err != nil {
		return err
	}
	for partition, offset := range below {
		if at, ok := bounds[partition]; ok && offset > at.Start {
			below[partition] = min(offset, at.End)
		} else {
			delete(below, partition)
		}
	}
	return kafka.Trim(ctx, b.client, map[string]map[int32]int64{topic: below})
}

// TopicID is a topic's UUID as Kafka's tools write it; "" where there is none.
func (b *Bus) TopicID(ctx context.Context, topic string) (string, error) {
	found, err := kafka.ListTopics(ctx, b.client, topic)
	if err != nil {
		return "", fmt.Errorf("look up the topic %s: %w", topic, err)
	}
	if t, ok := found[topic]; ok && t.Err == nil && t.ID != (kadm.TopicID{}) {
		return base64.RawURLEncoding.EncodeToString(t.ID[:]), nil
	}
	return "", nil
}
