package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

// since is how far back a registry that starts reads: a few heartbeats of every live node.
const since = time.Minute

// Follow feeds a fleet from the status topic until ctx ends; ready is called once, when the end seen at start was read.
// It returns ctx's error, or why it couldn't begin.
func (f *Fleet) Follow(ctx context.Context, client *kgo.Client, opts []kgo.Opt, topic string, ready func()) error {
	from, old, err := recent(ctx, client, topic)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(fetchWait), kgo.WithHooks(listener{f}))...)
	if err != nil {
		return fmt.Errorf("configure the reader of %s: %w", topic, err)
	}
	defer cl.Close()
	if len(old) == 0 {
		ready()
	}
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now, waiting := time.Now(), len(old) > 0
		fetches.EachRecord(func(r *kgo.Record) {
			// What stood on the topic before is as old as its timestamp says; from then on a record is as young as its
			// arrival, so that a clock that is off doesn't make a live node look dead.
			seen := now
			if end, ok := old[r.Partition]; ok && r.Offset < end {
				seen = r.Timestamp
			}
			if end, ok := old[r.Partition]; ok && r.Offset >= end-1 {
				delete(old, r.Partition)
			}
			f.Apply(r.Value, seen)
		})
		if waiting && len(old) == 0 {
			ready()
		}
	}
}

// recent finds where a minute ago begins in each partition, and the ends of those that have anything since.
func recent(ctx context.Context, client *kgo.Client, topic string) (from map[int32]kgo.Offset, old map[int32]int64, err error) {
	bounds, err := peek.PartitionBounds(ctx, client, topic)
	if err != nil {
		return nil, nil, err
	}
	begins, err := kadm.NewClient(client).ListOffsetsAfterMilli(ctx, time.Now().Add(-since).UnixMilli(), topic)
	if err != nil {
		return nil, nil, fmt.Errorf("find the last minute of %s: %w", topic, err)
	}
	from, old = map[int32]kgo.Offset{}, map[int32]int64{}
	for partition, at := range bounds {
		begin := at.End
		if o, ok := begins.Lookup(topic, partition); ok && o.Err == nil && o.Offset >= 0 {
			begin = min(o.Offset, at.End)
		}
		from[partition] = kgo.NewOffset().At(begin)
		if begin < at.End {
			old[partition] = at.End
		}
	}
	if len(from) == 0 {
		return nil, nil, fmt.Errorf("read %s: the topic does not exist", topic)
	}
	return from, old, nil
}
