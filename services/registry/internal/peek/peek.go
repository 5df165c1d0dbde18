// Package peek reads records where they stand, without a group: a result by its place, the dead letters of an agent,
// the control topic as it is.
package peek

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/security"
)

// Bounds are a partition's first offset and the one after its last stable record.
type Bounds struct{ Start, End int64 }

// PartitionBounds reads the bounds of a topic's partitions, as a read_committed reader sees them. A topic that doesn't
// exist has none.
func PartitionBounds(ctx context.Context, cl *kgo.Client, topic string) (map[int32]Bounds, error) {
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("read start offsets of %s: %w", topic, err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("read end offsets of %s: %w", topic, err)
	}
	out := map[int32]Bounds{}
	for p, end := range ends[topic] {
		if security.Denied(end.Err) {
			return nil, kafka.Explained("read the bounds of "+topic, end.Err)
		}
		if start, ok := starts.Lookup(topic, p); ok && end.Err == nil && start.Err == nil {
			out[p] = Bounds{start.Offset, end.Offset}
		}
	}
	return out, nil
}

// Read gives committed records of one partition from an offset up to end (exclusive), in order, at most limit. It returns
// the offset to go on from, which passes transaction markers and aborted records.
func Read(ctx context.Context, opts []kgo.Opt, topic string, partition int32, from, end int64, limit int) ([]*kgo.Record, int64, error) {
	if from >= end || limit < 1 {
		return nil, from, nil
	}
	cl, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.DisableFetchSessions(), kgo.FetchMaxWait(500*time.Millisecond))...)
	if err != nil {
		return nil, from, fmt.Errorf("configure a reader of %s: %w", topic, err)
	}
	defer cl.Close()
	var out []*kgo.Record
	for next := from; ; {
		fetches := cl.PollRecords(ctx, limit)
		if err := firstError(ctx, fetches); err != nil {
			return nil, from, fmt.Errorf("read %s/%d at %d: %w", topic, partition, next, err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			if r.Offset >= end {
				return out, end, nil
			}
			next = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			if out = append(out, r); len(out) == limit {
				return out, next, nil
			}
		}
		if next >= end {
			return out, next, nil
		}
	}
}

func firstError(ctx context.Context, fetches kgo.Fetches) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, e := range fetches.Errors() {
		return e.Err
	}
	return nil
}
