package bus

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

// Stream is a user topic.
type Stream struct {
	Name string
	// Length is how many offsets it holds: its events, and what transactions and compaction have left between them.
	Length int64
}

// Streams lists user topics by name, at most limit: those that are neither Reeve's own nor Kafka's own.
func (b *Bus) Streams(ctx context.Context, limit int) ([]Stream, error) {
	listed, err := kadm.NewClient(b.client).ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var names []string
	for name, t := range listed {
		if t.Err == nil && !t.IsInternal && !strings.HasPrefix(name, "__") && !b.names.Reserved(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = names[:min(len(names), limit)]
	bounds, err := peek.TopicBounds(ctx, b.client, names...)
	if err != nil {
		return nil, err
	}
	out := make([]Stream, len(names))
	for i, name := range names {
		out[i].Name = name
		for _, at := range bounds[name] {
			out[i].Length += at.End - at.Start
		}
	}
	return out, nil
}

// Latest gives the newest records of a topic, the newest first. ok is false where the topic doesn't exist.
func (b *Bus) Latest(ctx context.Context, topic string, limit int) (records []*kgo.Record, ok bool, err error) {
	listed, err := kadm.NewClient(b.client).ListTopics(ctx, topic)
	if err != nil {
		return nil, false, fmt.Errorf("look at topic %s: %w", topic, err)
	}
	if listed[topic].Err != nil {
		return nil, false, nil
	}
	records, err = peek.Tail(ctx, b.client, b.opts, limit, nil, topic)
	return records, true, err
}

// Brokers counts the brokers of the cluster.
func (b *Bus) Brokers(ctx context.Context) (int, error) {
	m, err := kadm.NewClient(b.client).BrokerMetadata(ctx)
	if err != nil {
		return 0, fmt.Errorf("list brokers: %w", err)
	}
	return len(m.Brokers), nil
}
