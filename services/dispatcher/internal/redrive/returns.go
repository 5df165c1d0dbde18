package redrive

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// follow hands on the outcomes of an agent's redriven tasks that are written from now on, until stop is called. An agent's
// outcomes stand on one partition.
func follow(ctx context.Context, opts []kgo.Opt, names topics.Names, ref string, each func(*kgo.Record)) (stop func(), err error) {
	topic := names.Outcomes()
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
		return nil, fmt.Errorf("look where outcomes stand: %w", err)
	}
	p := hop.Among(hop.PartitionOf([]byte(ref)), len(ends[topic]))
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().At(ends[topic][p].Offset)}})
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				if route.Redrives(r) > 0 && route.Header(r, task.HeaderAgent) == ref {
					each(r)
				}
			})
		}
	})
	return func() {
		cancel()
		reading.Wait()
		cl.Close()
	}, nil
}
