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

// follow hands on the records of a topic that are written from now on, until stop is called. which says what of its
// partitions, by their number.
func follow(ctx context.Context, opts []kgo.Opt, topic string, which func(partitions int) []int32, each func(*kgo.Record)) (stop func(), err error) {
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
	at := map[int32]kgo.Offset{}
	for _, p := range which(len(ends[topic])) {
		at[p] = kgo.NewOffset().At(ends[topic][p].Offset)
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: at})
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachRecord(each)
		}
	})
	return func() {
		cancel()
		reading.Wait()
		cl.Close()
	}, nil
}
