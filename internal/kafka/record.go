package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/security"
)

// ErrGone says that a topic has no record at an offset: it has been deleted, was never committed, or is yet to come.
var ErrGone = errors.New("the record is kept no longer")

// RecordAt reads one committed record of a topic, with a client of its own made of opts; cl asks where the partition begins
// and ends. It is ErrGone where there is none.
func RecordAt(ctx context.Context, cl *kgo.Client, opts []kgo.Opt, topic string, partition int32, offset int64) (*kgo.Record, error) {
	switch there, err := stands(ctx, cl, topic, partition, offset); {
	case err != nil:
		return nil, err
	case !there:
		return nil, ErrGone
	}
	what := fmt.Sprintf("read %s/%d/%d", topic, partition, offset)
	// The least that a broker sends is a whole batch. Markers are wanted: one may be all that stands behind an aborted record.
	reader, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(offset)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.DisableFetchSessions(),
		kgo.FetchMaxBytes(1), kgo.FetchMaxPartitionBytes(1), kgo.FetchMaxWait(500*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer reader.Close()
	for {
		fetches := reader.PollRecords(ctx, 1)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", what, ctx.Err())
		}
		for _, e := range fetches.Errors() {
			return nil, fmt.Errorf("%s: %w", what, e.Err)
		}
		for _, r := range fetches.Records() {
			if r.Offset != offset || r.Attrs.IsControl() {
				return nil, ErrGone
			}
			return r, nil
		}
	}
}

// stands reports whether an offset lies between a partition's first record and the end of what is committed.
func stands(ctx context.Context, cl *kgo.Client, topic string, partition int32, offset int64) (bool, error) {
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return false, fmt.Errorf("read start offsets of %s: %w", topic, err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return false, fmt.Errorf("read end offsets of %s: %w", topic, err)
	}
	start, ok1 := starts.Lookup(topic, partition)
	end, ok2 := ends.Lookup(topic, partition)
	if security.Denied(end.Err) {
		return false, Explained("read the bounds of "+topic, end.Err)
	}
	return ok1 && ok2 && start.Err == nil && end.Err == nil && offset >= start.Offset && offset < end.Offset, nil
}
