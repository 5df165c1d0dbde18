package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

// since is how far back a registry that starts reads: a few heartbeats of every live node.
const since = time.Minute

// Follow feeds a fleet from the status topic until ctx ends; ready is called once, when the end seen at start was read.
// changed is called after every batch. It returns ctx's error, or why it couldn't begin.
func (f *Fleet) Follow(ctx context.Context, opts []kgo.Opt, topic string, ready func(), changed func()) error {
	cl, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeStartOffset(kgo.NewOffset().AfterMilli(time.Now().Add(-since).UnixMilli())))...)
	if err != nil {
		return fmt.Errorf("configure the reader of %s: %w", topic, err)
	}
	defer cl.Close()
	left, err := peek.PartitionBounds(ctx, cl, topic)
	if err != nil {
		return err
	}
	// What stood on the topic before is as old as its timestamp says; from then on a record is as young as its arrival,
	// so that a clock that is off doesn't make a live node look dead.
	caughtUp := time.Now().Add(2 * time.Second)
	ended := false
	for {
		wait, cancel := context.WithTimeout(ctx, patience(ended))
		fetches := cl.PollFetches(wait)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now := time.Now()
		fetches.EachRecord(func(r *kgo.Record) {
			seen := now
			if !ended && r.Offset < left[r.Partition].End {
				seen = r.Timestamp
			}
			f.Apply(r.Value, seen)
		})
		if !ended && (fetches.Empty() || now.After(caughtUp)) {
			ended = true
			ready()
		}
		changed()
	}
}

// patience is how long a poll waits: shortly until what stood on the topic is read, since the start waits for that.
func patience(ended bool) time.Duration {
	if ended {
		return time.Second
	}
	return 250 * time.Millisecond
}
