package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/pkg/task"
)

// Retries measures how late retries come, and what the ones that fail cost the others: every second event fails twice, and
// waits a second and then five. A round without failures stands beside each with them.

const (
	retryRate = 200 // events a second; since every second one fails twice, as many retries
	// The bounds of the medians.
	lateP50, lateP99  = 20 * time.Millisecond, 250 * time.Millisecond
	healthyFactor     = 1.5
	shortTier, longer = time.Second, 5 * time.Second
)

// A punctuality is what a round found.
type punctuality struct {
	P50, P99 time.Duration // of the lateness of a retry's start
	Early    int           // retries that started before their time
	Healthy  time.Duration // p99 of the events that don't fail
	Calm     time.Duration // the same in the round without failures
	Retries  int
}

func (b *bench) retries(ctx context.Context) error {
	var all []punctuality
	for n := range b.Rounds {
		p, err := b.retryRound(ctx)
		if err != nil {
			return fmt.Errorf("round %d: %w", n+1, err)
		}
		all = append(all, p)
		b.Say("round %d: %d retries, late p50 %s p99 %s, early %d; healthy events' p99 %s, without failures %s", n+1, p.Retries, tenths(p.P50), tenths(p.P99), p.Early, tenths(p.Healthy), tenths(p.Calm))
	}
	m := punctuality{
		P50: median(all, func(p punctuality) time.Duration { return p.P50 }), P99: median(all, func(p punctuality) time.Duration { return p.P99 }),
		Healthy: median(all, func(p punctuality) time.Duration { return p.Healthy }), Calm: median(all, func(p punctuality) time.Duration { return p.Calm }),
	}
	for _, p := range all {
		m.Early += p.Early
	}
	fmt.Fprintf(b.Out, "retries at %d/s, medians of %d rounds: late p50 %s, p99 %s, early %d; healthy events' p99 %s, without failures %s (%.2f ×)\n",
		retryRate, b.Rounds, tenths(m.P50), tenths(m.P99), m.Early, tenths(m.Healthy), tenths(m.Calm), m.Healthy.Seconds()/m.Calm.Seconds())
	return m.judge()
}

// judge says what is beyond its bound.
func (p punctuality) judge() error {
	var errs []error
	miss := func(bad bool, what string, got, bound any) {
		if bad {
			errs = append(errs, fmt.Errorf("%s is %v: the bound is %v", what, got, bound))
		}
	}
	miss(p.Early > 0, "the number of retries before their time", p.Early, 0)
	miss(p.P50 > lateP50, "the lateness of retries, p50,", p.P50, lateP50)
	miss(p.P99 > lateP99, "the lateness of retries, p99,", p.P99, lateP99)
	miss(p.Healthy.Seconds() > healthyFactor*p.Calm.Seconds(), "the healthy events' p99", p.Healthy, fmt.Sprintf("%.1f × %s", healthyFactor, p.Calm))
	return errors.Join(errs...)
}

// retryRound measures without failures and with them, on one running installation.
func (b *bench) retryRound(ctx context.Context) (p punctuality, err error) {
	s, err := b.installation(ctx)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, s.close(), b.drop()) }()
	a := agent{topic: s.input(), name: "worker", config: map[string]any{"concurrency": 64, "retry_delays": []string{"1s", "5s"}}}
	if err := b.begin(ctx, s, a); err != nil {
		return p, err
	}
	w := newWatch(s.sys)
	stop := w.follow(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	const warm = 3 * time.Second
	for _, failing := range []bool{false, true} {
		event := func(i int) *kgo.Record { return work(i, failing && i%2 == 1) }
		for _, d := range []time.Duration{warm, b.During} {
			if failing && d == warm {
				d = warm + shortTier + longer // until retries come as fast as events do
			}
			w.begin()
			if err := b.pace(ctx, s.input(), retryRate, d, event, w.event); err != nil {
				return p, err
			}
			if d == b.During { // until the last has ended, which is after both of its delays
				if err := w.await(ctx, int(d.Seconds())*retryRate); err != nil {
					return p, fmt.Errorf("%w\n%s", err, logs(s))
				}
			}
		}
		if !failing {
			p.Calm = quantile(w.healthy(), 0.99)
		}
	}
	late := w.lateness()
	p.Retries, p.P50, p.P99, p.Healthy = len(late), quantile(late, 0.5), quantile(late, 0.99), quantile(w.healthy(), 0.99)
	for _, l := range late {
		if l < 0 {
			p.Early++
		}
	}
	return p, nil
}

// work is an event for the worker: done at once, or failing twice.
func work(i int, fails bool) *kgo.Record {
	r := event(i)
	if fails {
		r.Value = fmt.Appendf(nil, `{"seq":%d,"fails":2}`, i)
	}
	return r
}

func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	return ds[min(len(ds)-1, int(q*float64(len(ds))))]
}

// A watch joins what it reads of the retry topics and of the outcomes.
type watch struct {
	sys *harness.System

	mu    sync.Mutex
	sent  map[string]time.Time
	done  map[string]bool      // tasks that are finished
	first map[string]time.Time // when a task that never failed was seen to be done
	due   map[string]time.Time // by task and attempt
	begun map[string]time.Time // by task and attempt
	moved chan struct{}
}

func newWatch(sys *harness.System) *watch {
	return &watch{sys: sys, sent: map[string]time.Time{}, done: map[string]bool{}, first: map[string]time.Time{}, due: map[string]time.Time{}, begun: map[string]time.Time{}, moved: make(chan struct{}, 1)}
}

// begin forgets the events so far. Retries that are under way count.
func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.sent)
	clear(w.due)
	clear(w.begun)
}

// follow reads until stop is called.
func (w *watch) follow(ctx context.Context) (stop func() error) {
	reading, cancel := context.WithCancel(ctx)
	read := make(chan error, 1)
	names := w.sys.Names()
	topics := []string{names.Outcomes(), names.Retry(shortTier), names.Retry(longer)}
	go func() { read <- harness.Follow(reading, w.sys.Brokers, topics, w.record) }()
	return func() error {
		cancel()
		return <-read
	}
}

func (w *watch) event(id string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent[id] = at
}

func (w *watch) record(r *kgo.Record) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !strings.HasSuffix(r.Topic, ".outcomes") {
		w.retry(r)
		return
	}
	o, err := harness.ParseOutcome(r)
	if err != nil {
		return
	}
	w.begun[attempt(o.Origin, o.Attempt)] = o.Started
	if !o.Final {
		return
	}
	w.done[o.Origin] = true
	if o.Attempt == 1 {
		w.first[o.Origin] = now
	}
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

func attempt(id string, n int) string { return fmt.Sprintf("%s#%d", id, n) }

// retry notes when a retry is due, by the broker's clock. The record has the number of the attempt that it is for.
func (w *watch) retry(r *kgo.Record) {
	delay := shortTier
	if strings.HasSuffix(r.Topic, ".5s") {
		delay = longer
	}
	var id string
	n := 0
	for _, h := range r.Headers {
		switch h.Key {
		case task.HeaderOrigin:
			if origin, err := task.ParseOrigin(string(h.Value)); err == nil {
				id = origin.ID()
			}
		case task.HeaderAttempt:
			_, _ = fmt.Sscan(string(h.Value), &n) // 0 joins nothing
		}
	}
	w.due[attempt(id, n)] = r.Timestamp.Add(delay)
}

// await waits until so many of the events are finished.
func (w *watch) await(ctx context.Context, want int) error {
	limit := time.After(time.Minute)
	for {
		n := w.finished()
		if n >= want {
			return nil
		}
		select {
		case <-w.moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("only %d of %d events are finished a minute after the last", n, want)
		}
	}
}

func (w *watch) finished() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.sent {
		if w.done[id] {
			n++
		}
	}
	return n
}

// lateness is how long after their time retries started, negative if before.
func (w *watch) lateness() (late []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, due := range w.due {
		if begun, ok := w.begun[key]; ok {
			late = append(late, begun.Sub(due))
		}
	}
	return late
}

// healthy is how long the events took that never failed.
func (w *watch) healthy() (took []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, at := range w.sent {
		if seen, ok := w.first[id]; ok {
			took = append(took, seen.Sub(at))
		}
	}
	return took
}
