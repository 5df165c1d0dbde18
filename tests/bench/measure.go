package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/pkg/task"
)

// partitions of the user's topic and of the yardstick's others.
const partitions = 8

// A rate is one measurement of throughput.
type rate struct {
	PerSecond float64
	Client    float64            // processor seconds per million events of the processes that move records
	Broker    float64            // of the broker
	Apart     float64            // of the registry
	Database  float64            // of its Postgres
	Each      map[string]float64 // Client by process
}

// throughput publishes n events, starts the subject and measures from its first outcome to its last.
func (b *bench) throughput(ctx context.Context, s *subject, n int) (rate, error) {
	if err := b.fill(ctx, s.input(), n); err != nil {
		return rate{}, err
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var c counter
	c.want, c.first, c.last = n, make(chan time.Time, 1), make(chan time.Time, 1)
	read := make(chan error, 1)
	go func() { read <- countRecords(reading, s.sys.Brokers, s.outcomes, c.count) }()
	if err := s.begin(ctx); err != nil {
		return rate{}, err
	}
	begun, err := wait(ctx, c.first, startLimit)
	if err != nil {
		return rate{}, fmt.Errorf("wait for the first outcome: %w", err)
	}
	before, broker, apart, database := each(s.movers), harness.CPU(b.kafka.PID), cpu(s.apart), tree(b.postgres.PID)
	ended, err := wait(ctx, c.last, 5*time.Minute)
	if err != nil {
		return rate{}, fmt.Errorf("wait for the last outcome: %w", err)
	}
	million := float64(n) / 1e6
	r := rate{
		PerSecond: float64(n-c.early) / ended.Sub(begun).Seconds(),
		Broker:    (harness.CPU(b.kafka.PID) - broker) / million,
		Apart:     (cpu(s.apart) - apart) / million,
		Database:  (tree(b.postgres.PID) - database) / million,
		Each:      each(s.movers),
	}
	for name := range r.Each {
		r.Each[name] = (r.Each[name] - before[name]) / million
		r.Client += r.Each[name]
	}
	stop()
	return r, <-read
}

// counter counts outcomes. Those of the first batch came before the time that is measured began.
type counter struct {
	want, seen, early int
	first, last       chan time.Time
}

func (c *counter) count(n int) {
	before := c.seen
	c.seen += n
	if before == 0 {
		c.early = n
		c.first <- time.Now()
	}
	if before < c.want && c.seen >= c.want {
		c.last <- time.Now()
	}
}

// fill publishes n events of about 390 bytes with distinct keys.
func (b *bench) fill(ctx context.Context, topic string, n int) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(b.kafka.Address), kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(50_000),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	var first error
	var once sync.Once
	for i := range n {
		cl.Produce(ctx, event(i), func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	return errors.Join(cl.Flush(ctx), first)
}

const filler = "the quick brown fox jumps over the lazy dog and runs through the forest until the evening comes; "

// event is a JSON object of about 390 bytes.
func event(i int) *kgo.Record {
	v := append(make([]byte, 0, 400), `{"seq":`...)
	v = strconv.AppendInt(v, int64(i), 10)
	v = append(v, `,"action":"opened","text":"`...)
	for len(v)+len(filler) < 390 {
		v = append(v, filler...)
	}
	v = append(v, filler[:390-len(v)-2]...)
	return &kgo.Record{Key: strconv.AppendInt([]byte("key-"), int64(i), 10), Value: append(v, `"}`...)}
}

// A latency is one measurement of the time from Produce to the outcome at a read_committed reader.
type latency struct {
	P50, P99 time.Duration
	// Stages are the medians from publish over dispatch, start and end of the attempt to the reader, to the millisecond;
	// nil where the subject doesn't tell them.
	Stages []time.Duration
}

// latency publishes at an even rate, after a warm-up, and joins each event with its outcome.
func (b *bench) latency(ctx context.Context, s *subject, perSecond int, during time.Duration) (latency, error) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	j := &joiner{sent: map[string]time.Time{}, seen: map[string]time.Time{}, joined: make(chan struct{}, 1)}
	read := make(chan error, 1)
	go func() {
		read <- harness.Follow(reading, s.sys.Brokers, []string{s.outcomes}, func(r *kgo.Record) {
			if id, stages, err := s.origin(r); err == nil {
				j.outcome(id, time.Now(), stages)
			}
		})
	}()
	// The warm-up also lasts until the reader has read the throughput's outcomes, which stand before these.
	const warm = 3 * time.Second
	for _, d := range []time.Duration{warm, during} {
		j.begin()
		if err := b.pace(ctx, s.input(), perSecond, d, event, j.event); err != nil {
			return latency{}, err
		}
		if err := j.await(ctx, int(d.Seconds())*perSecond); err != nil {
			return latency{}, err
		}
	}
	stop()
	return j.quantiles(), <-read
}

// pace publishes events at an even rate, and tells of each that Kafka has its task's id and when it was published.
func (b *bench) pace(ctx context.Context, topic string, perSecond int, during time.Duration, event func(int) *kgo.Record, told func(id string, at time.Time)) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Address), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0))
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.Ping(ctx); err != nil {
		return err
	}
	n := int(during.Seconds()) * perSecond
	begun := time.Now()
	for i := range n {
		due := begun.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		if d := time.Until(due); d > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d):
			}
		}
		at := time.Now()
		cl.Produce(ctx, event(i), func(r *kgo.Record, err error) {
			if err == nil {
				told(task.Origin{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}.ID(), at)
			}
		})
	}
	return cl.Flush(ctx)
}

// A joiner pairs events with outcomes, whichever it hears of first.
type joiner struct {
	mu         sync.Mutex
	sent, seen map[string]time.Time
	took       []time.Duration
	stages     [][]time.Duration // by stage
	joined     chan struct{}
}

// begin forgets what was joined so far. What was published before must have its outcome.
func (j *joiner) begin() {
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(j.sent)
	clear(j.seen)
	j.took, j.stages = nil, nil
}

// await waits until this many events have their outcome.
func (j *joiner) await(ctx context.Context, want int) error {
	limit := time.After(30 * time.Second)
	for j.count() < want {
		select {
		case <-j.joined:
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("only %d of %d events have an outcome 30 s after the last", j.count(), want)
		}
	}
	return nil
}

func (j *joiner) event(id string, at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if seen, ok := j.seen[id]; ok {
		j.pair(seen.Sub(at))
		return
	}
	j.sent[id] = at
}

func (j *joiner) outcome(id string, at time.Time, points []time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(points) > 0 {
		points = append(points, at)
		j.stages = append(j.stages, make([][]time.Duration, max(0, len(points)-1-len(j.stages)))...)
		for i := range j.stages {
			j.stages[i] = append(j.stages[i], points[i+1].Sub(points[i]))
		}
	}
	if sent, ok := j.sent[id]; ok {
		j.pair(at.Sub(sent))
		return
	}
	j.seen[id] = at
}

func (j *joiner) pair(d time.Duration) {
	j.took = append(j.took, d)
	select {
	case j.joined <- struct{}{}:
	default:
	}
}

func (j *joiner) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.took)
}

func (j *joiner) quantiles() latency {
	j.mu.Lock()
	defer j.mu.Unlock()
	slices.Sort(j.took)
	l := latency{P50: j.took[len(j.took)/2], P99: j.took[min(len(j.took)-1, len(j.took)*99/100)]}
	for _, stage := range j.stages {
		slices.Sort(stage)
		l.Stages = append(l.Stages, stage[len(stage)/2])
	}
	return l
}

func wait(ctx context.Context, c <-chan time.Time, limit time.Duration) (time.Time, error) {
	select {
	case at := <-c:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	case <-time.After(limit):
		return time.Time{}, fmt.Errorf("not in %s", limit)
	}
}
