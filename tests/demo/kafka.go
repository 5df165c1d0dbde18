package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/security"
)

// userPartitions is how many partitions a topic of webhooks gets where the demo creates it.
const userPartitions = 4

func newClient(brokers string, opts ...kgo.Opt) (*kgo.Client, error) {
	way := security.FromEnvironment(os.Getenv).Opts() // as the services of the demo go
	client, err := kgo.NewClient(slices.Concat(opts, way, []kgo.Opt{kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.ClientID("github-bridge")})...)
	if err != nil {
		return nil, fmt.Errorf("make Kafka client for %s: %w", brokers, err)
	}
	return client, nil
}

// createTopics creates the agents' topics that aren't there, and counts the records on those that are.
func createTopics(ctx context.Context, brokers string, as []agent) (records int64, err error) {
	client, err := newClient(brokers)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	var names []string
	for _, a := range as {
		if !slices.Contains(names, a.Topic) {
			names = append(names, a.Topic)
		}
	}
	for _, name := range names {
		_, err := admin.CreateTopic(ctx, userPartitions, -1, nil, name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return 0, fmt.Errorf("create topic %s: %w", name, err)
		}
	}
	starts, err := admin.ListStartOffsets(ctx, names...)
	if err != nil {
		return 0, fmt.Errorf("list start offsets: %w", err)
	}
	ends, err := admin.ListEndOffsets(ctx, names...)
	if err != nil {
		return 0, fmt.Errorf("list end offsets: %w", err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok && start.Err == nil && end.Err == nil {
			records += end.Offset - start.Offset
		}
	})
	return records, nil
}

// hasTopic says whether a topic is there.
func hasTopic(ctx context.Context, brokers, name string) (bool, error) {
	client, err := newClient(brokers)
	if err != nil {
		return false, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := kadm.NewClient(client).ListTopics(ctx, name)
	if err != nil {
		return false, fmt.Errorf("reach Kafka at %s: %w: is it running, and is REEVE_KAFKA_BROKERS right?", brokers, err)
	}
	return found.Has(name), nil
}

// deleteTopics deletes every topic whose name begins with a prefix. Their groups, empty by then, go when the broker next
// looks. It has a time limit of its own, since it also runs after a Ctrl-C.
func deleteTopics(brokers, prefix string) error {
	client, err := newClient(brokers)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	admin := kadm.NewClient(client)
	found, err := admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics %s*: %w", prefix, err)
	}
	var names []string
	for _, name := range found.Names() {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	answers, err := admin.DeleteTopics(ctx, names...)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		return fmt.Errorf("delete topics %s*: %w", prefix, err)
	}
	return nil
}

// publisher publishes deliveries as a webhook bridge would, with nothing of Reeve in it.
type publisher struct {
	client *kgo.Client
	mu     sync.Mutex
	acked  []published
	err    error
}

func newPublisher(brokers string) (*publisher, error) {
	client, err := newClient(brokers)
	if err != nil {
		return nil, err
	}
	return &publisher{client: client}, nil
}

func (p *publisher) close() { p.client.Close() }

// published returns the deliveries that Kafka has accepted so far; they don't change any more.
func (p *publisher) published() []published {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked[:len(p.acked):len(p.acked)]
}

// publish sends the deliveries evenly at a rate a second and returns when all are accepted.
func (p *publisher) publish(ctx context.Context, ds []delivery, rate int) error {
	const interval = 20 * time.Millisecond
	tick := time.NewTicker(interval)
	defer tick.Stop()
	start := time.Now()
	for sent := 0; sent < len(ds); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			due := min(len(ds), 1+int(now.Sub(start).Seconds()*float64(rate)))
			for ; sent < due; sent++ {
				p.send(ctx, ds[sent])
			}
		}
	}
	if err := p.client.Flush(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *publisher) send(ctx context.Context, d delivery) {
	at := time.Now()
	p.client.Produce(ctx, d.record(), func(r *kgo.Record, err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			p.err = fmt.Errorf("publish delivery %s to %s: %w", d.ID, r.Topic, err)
			return
		}
		d.Payload = nil // no longer needed, and large
		p.acked = append(p.acked, published{delivery: d, origin: fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset), at: at})
	})
}

// watcher reads the outcomes topic from its beginning, read_committed, without a group.
type watcher struct {
	client  *kgo.Client
	batches chan batch
}

// batch is what one poll brought.
type batch struct {
	outcomes []outcome
	at       time.Time
}

func newWatcher(brokers, topic string) (*watcher, error) {
	client, err := newClient(brokers, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMaxAge(5*time.Second), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	return &watcher{client: client, batches: make(chan batch)}, nil
}

// run hands on batches until ctx ends, and closes the client.
func (w *watcher) run(ctx context.Context) {
	defer w.client.Close()
	for ctx.Err() == nil {
		fetches := w.client.PollFetches(ctx)
		b := batch{at: time.Now()}
		fetches.EachRecord(func(r *kgo.Record) {
			if o, err := readOutcome(r); err == nil { // what is no outcome finishes no task, and is missed at the end
				b.outcomes = append(b.outcomes, o)
			}
		})
		if len(b.outcomes) == 0 {
			continue
		}
		select {
		case w.batches <- b:
		case <-ctx.Done():
		}
	}
}
