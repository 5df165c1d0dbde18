package redrive

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// all reads all partitions.
func all(partitions int) []int32 {
	out := make([]int32, partitions)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}

// follow hands on the records of a topic that are written from now on, or stand behind since, until stop is called, which
// says how far it has come. which says what of its partitions, by their number.
func follow(ctx context.Context, opts []kgo.Opt, topic string, since map[int32]int64, which func(partitions int) []int32, each func(*kgo.Record)) (stop func() map[int32]int64, err error) {
	cl, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DisableFetchSessions())...)
	if err != nil {
		return nil, fmt.Errorf("configure a reader of %s: %w", topic, err)
	}
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err == nil && len(ends[topic]) == 0 {
		err = fmt.Errorf("the topic %s has no partitions", topic)
	}
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("look where %s ends: %w", topic, err)
	}
	next, at := map[int32]int64{}, map[int32]kgo.Offset{}
	for _, p := range which(len(ends[topic])) {
		next[p] = ends[topic][p].Offset
		if before, ok := since[p]; ok {
			next[p] = min(before, next[p])
		}
		at[p] = kgo.NewOffset().At(next[p])
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: at})
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				each(r)
				next[r.Partition] = r.Offset + 1
			})
		}
	})
	return func() map[int32]int64 {
		cancel()
		reading.Wait()
		cl.Close()
		return next
	}, nil
}
