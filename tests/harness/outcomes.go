package harness

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

// An Outcome is a record of the outcomes topic.
type Outcome struct {
	Origin   string // the task's id
	Agent    string
	Attempt  int
	Redrives int
	Outcome  task.Outcome
	Settled  task.Settled
	Final    bool
	Node     string // that ran it
	Value    []byte
	Seen     time.Time // when a read_committed reader had it
	// By the clocks of producer, dispatcher and worker, to the millisecond. Started and Ended are of this attempt.
	Published, Dispatched, Started, Ended time.Time
}

// ParseOutcome reads a record of the outcomes topic.
func ParseOutcome(r *kgo.Record) (Outcome, error) {
	o := Outcome{Value: r.Value}
	for _, h := range r.Headers {
		v := string(h.Value)
		var err error
		switch h.Key {
		case task.HeaderOrigin:
			var origin task.Origin
			origin, err = task.ParseOrigin(v)
			o.Origin = origin.ID()
		case task.HeaderAgent:
			o.Agent = v
		case task.HeaderAttempt:
			o.Attempt, err = strconv.Atoi(v)
		case task.HeaderRedrives:
			o.Redrives, err = strconv.Atoi(v)
		case task.HeaderOutcome:
			o.Outcome = task.Outcome(v)
		case task.HeaderSettled:
			o.Settled = task.Settled(v)
		case task.HeaderFinal:
			o.Final, err = strconv.ParseBool(v)
		case task.HeaderRunner:
			o.Node, _, _ = strings.Cut(v, " ")
		case task.HeaderTimes:
			err = o.readTimes(v)
		}
		if err != nil {
			return Outcome{}, fmt.Errorf("read outcome at %s/%d/%d: header %s: %w", r.Topic, r.Partition, r.Offset, h.Key, err)
		}
	}
	if o.Origin == "" || o.Outcome == "" {
		return Outcome{}, fmt.Errorf("read outcome at %s/%d/%d: origin or outcome is missing", r.Topic, r.Partition, r.Offset)
	}
	return o, nil
}

func (o *Outcome) readTimes(v string) error {
	var ms [4]int64
	if _, err := fmt.Sscan(v, &ms[0], &ms[1], &ms[2], &ms[3]); err != nil {
		return err
	}
	for i, at := range []*time.Time{&o.Published, &o.Dispatched, &o.Started, &o.Ended} {
		*at = time.UnixMilli(ms[i])
	}
	return nil
}

// Follow reads topics from their start, read_committed, and hands every record on until the context ends. Topics that
// don't exist yet are waited for.
func Follow(ctx context.Context, brokers []string, topics []string, each func(*kgo.Record)) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxPartitionBytes(8<<20), // an agent's outcomes stand on one partition
		kgo.MetadataMinAge(100*time.Millisecond),
		kgo.MetadataMaxAge(time.Second), // a topic that is made later is found soon
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachRecord(each)
	}
}

// CreateTopic makes a topic with the broker's defaults but for configs, which may be nil.
func CreateTopic(ctx context.Context, brokers []string, name string, partitions int32, configs map[string]*string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer cl.Close()
	resp, err := kadm.NewClient(cl).CreateTopics(ctx, partitions, 1, configs, name)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	if err := resp[name].Err; err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return shown(ctx, kadm.NewClient(cl), name)
}

// shown waits until the broker shows a topic with leaders: what the controller has made reaches it a moment later, and until
// then it refuses records.
func shown(ctx context.Context, adm *kadm.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ends, err := adm.ListEndOffsets(ctx, name)
		if err == nil {
			err = ends.Error()
		}
		if err == nil && len(ends[name]) > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("create topic %s: no broker shows it: %w", name, errors.Join(err, ctx.Err()))
		}
	}
}
