package dispatch

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/pkg/offsets"
)

// queue is a task queue to look at.
type queue struct {
	topic, group string
	room         *Room
}

// look finds out how long task queues are, all of them with a handful of requests.
func look(ctx context.Context, adm *kadm.Client, queues []queue) error {
	if len(queues) == 0 {
		return nil
	}
	names := make([]string, len(queues))
	groups := make([]string, len(queues))
	found := make([]func([]int64), len(queues))
	for i, q := range queues {
		names[i], groups[i], found[i] = q.topic, q.group, q.room.Look()
	}
	committed := adm.FetchManyOffsets(ctx, groups...)
	ends, err := adm.ListEndOffsets(ctx, names...)
	if err != nil && len(ends) == 0 {
		return fmt.Errorf("look at task queues: %w", err)
	}
	var starts kadm.ListedOffsets
	if uncommitted := withoutCommit(queues, committed, ends); len(uncommitted) > 0 {
		if starts, err = adm.ListStartOffsets(ctx, uncommitted...); err != nil && len(starts) == 0 {
			return fmt.Errorf("look at task queues: %w", err)
		}
	}
	for i, q := range queues {
		fetched := committed[q.group]
		if fetched.Err != nil && !errors.Is(fetched.Err, kerr.GroupIDNotFound) {
			continue // the last figures stay; a group that isn't there has settled nothing yet
		}
		found[i](unsettled(q.topic, fetched.Fetched, starts, ends))
	}
	return nil
}

// withoutCommit gives the topics that have records in a partition without a committed offset, where the count begins at
// the log's start.
func withoutCommit(queues []queue, committed kadm.FetchOffsetsResponses, ends kadm.ListedOffsets) []string {
	var topics []string
	for _, q := range queues {
		for p, end := range ends[q.topic] {
			if _, ok := committed[q.group].Fetched.Lookup(q.topic, p); !ok && end.Offset > 0 {
				topics = append(topics, q.topic)
				break
			}
		}
	}
	return topics
}

// unsettled counts a topic's tasks that aren't settled, by partition. Markers of transactions that are still ahead
// count as well: it is a bound, not a figure to bill by.
func unsettled(topic string, committed kadm.OffsetResponses, starts, ends kadm.ListedOffsets) []int64 {
	out := make([]int64, len(ends[topic]))
	for p, end := range ends[topic] {
		if end.Err != nil || p < 0 || int(p) >= len(out) {
			continue
		}
		low, settled := int64(0), 0
		if start, ok := starts.Lookup(topic, p); ok && start.Err == nil {
			low = start.Offset
		}
		if o, ok := committed.Lookup(topic, p); ok && o.Err == nil && o.At >= low {
			low = o.At
			if m, err := offsets.Decode(o.At, o.Metadata); err == nil {
				settled = m.Settled.Len()
			}
		}
		out[p] = max(end.Offset-low-int64(settled), 0)
	}
	return out
}
