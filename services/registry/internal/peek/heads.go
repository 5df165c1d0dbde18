package peek

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Head is the first committed record of a partition at or behind an offset.
type Head struct {
	Offset int64
	At     time.Time // its timestamp
}

// headBytes is how much is fetched of a partition for its head; a larger batch comes whole.
const headBytes = 64 << 10

// Heads finds the heads of ranges, each the first record at or behind its start; a range without one is left out. It
// needs its context's end where a topic is deleted meanwhile, and then gives what it has with the error.
func Heads(ctx context.Context, opts []kgo.Opt, ranges Ranges) (map[string]map[int32]Head, error) {
	starts, open := ranges.open()
	out := map[string]map[int32]Head{}
	if len(open) == 0 {
		return out, nil
	}
	cl, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumePartitions(starts), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.DisableFetchSessions(), kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchMaxPartitionBytes(headBytes))...)
	if err != nil {
		return nil, fmt.Errorf("configure a reader: %w", err)
	}
	defer cl.Close()
	for len(open) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := firstError(ctx, fetches); err != nil {
			return out, fmt.Errorf("read the oldest records: %w", err)
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			at := place{f.Topic, f.Partition}
			end, ok := open[at]
			if !ok {
				return
			}
			head, done := headOf(f.Records, end)
			if head != nil {
				if out[f.Topic] == nil {
					out[f.Topic] = map[int32]Head{}
				}
				out[f.Topic][f.Partition] = Head{head.Offset, head.Timestamp}
			}
			if done {
				delete(open, at)
				cl.PauseFetchPartitions(map[string][]int32{f.Topic: {f.Partition}})
			}
		})
	}
	return out, nil
}

// headOf is the first record below end that is no marker; done says that nothing more is to be looked at.
func headOf(records []*kgo.Record, end int64) (head *kgo.Record, done bool) {
	for _, r := range records {
		if r.Offset >= end {
			return nil, true
		}
		if !r.Attrs.IsControl() {
			return r, true
		}
		if r.Offset+1 >= end {
			return nil, true
		}
	}
	return nil, false
}
