package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"
)

// Neighbours measures what agents in trouble cost one that isn't, all of them in one supervisor: one whose DLQ can't be
// written, one whose attempts hang until they are timed out, and one whose process crashes at every task. The healthy one
// is measured alone and beside them, on one running installation.

const (
	healthyRate = 500 // events a second
	troubleRate = 20  // events a second, for each of the agents in trouble
	// The healthy one's p99 stays within the larger of these: a multiple of what it is alone, and that and some more.
	besideFactor = 1.5
	besideExtra  = 25 * time.Millisecond
)

// A company is what a round found: the healthy agent's p99.
type company struct{ Alone, Beside time.Duration }

func (b *bench) neighbours(ctx context.Context) error {
	var all []company
	for n := range b.Rounds {
		c, err := b.companyRound(ctx)
		if err != nil {
			return fmt.Errorf("round %d: %w", n+1, err)
		}
		all = append(all, c)
		b.Say("round %d: the healthy agent's p99 is %s alone and %s beside agents in trouble", n+1, tenths(c.Alone), tenths(c.Beside))
	}
	m := company{median(all, func(c company) time.Duration { return c.Alone }), median(all, func(c company) time.Duration { return c.Beside })}
	fmt.Fprintf(b.Out, "a healthy agent at %d/s, medians of %d rounds: p99 %s alone, %s beside three agents in trouble (%.2f ×)\n",
		healthyRate, b.Rounds, tenths(m.Alone), tenths(m.Beside), m.Beside.Seconds()/m.Alone.Seconds())
	return m.judge()
}

func (c company) judge() error {
	bound := max(time.Duration(besideFactor*float64(c.Alone)), c.Alone+besideExtra)
	if c.Beside > bound {
		return fmt.Errorf("the healthy agent's p99 beside agents in trouble is %s: the bound is %s", c.Beside, bound)
	}
	return nil
}

func (b *bench) companyRound(ctx context.Context) (c company, err error) {
	s, err := b.installation(ctx)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, s.close(), b.drop()) }()
	healthy := agent{topic: s.input(), name: "healthy", config: map[string]any{"concurrency": 64}}
	troubled := map[string]string{ // what the events of each ask for
		"unwritable": `{"poison":true}`,
		"hanging":    `{"work_us":3600000000}`,
		"crashing":   `{"die":true}`,
	}
	agents := []agent{healthy}
	for name := range troubled {
		agents = append(agents, agent{
			topic: s.sys.Prefix + "-" + name, name: name, config: map[string]any{"concurrency": 4, "max_retries": 1},
			process: map[string]any{"request_timeout": 2, "restart_policy": "immediate", "max_restart_attempts": 1_000_000},
		})
	}
	// Written only with two replicas in sync, of which there is one.
	two := "2"
	if err := harness.CreateTopic(ctx, s.sys.Brokers, s.sys.Names().DLQ(s.sys.Prefix+"-unwritable", "unwritable"), 1, map[string]*string{"min.insync.replicas": &two}); err != nil {
		return c, err
	}
	if err := b.begin(ctx, s, agents...); err != nil {
		return c, err
	}
	w := newWatch(s.sys)
	stop := w.follow(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	const warm = 3 * time.Second
	if err := b.load(ctx, s, w, warm); err != nil {
		return c, err
	}
	if err := b.load(ctx, s, w, b.During); err != nil {
		return c, err
	}
	c.Alone = quantile(w.healthy(), 0.99)

	making, end := context.WithCancel(ctx)
	made := make(chan error, len(troubled))
	for name, value := range troubled {
		event := func(i int) *kgo.Record { return &kgo.Record{Key: fmt.Append(nil, i), Value: []byte(value)} }
		go func() {
			made <- b.pace(making, s.sys.Prefix+"-"+name, troubleRate, time.Hour, event, func(string, time.Time) {})
		}()
	}
	err = b.load(ctx, s, w, warm)
	if err == nil {
		err = b.load(ctx, s, w, b.During)
	}
	end()
	for range troubled {
		if e := <-made; !errors.Is(e, context.Canceled) {
			err = errors.Join(err, e)
		}
	}
	c.Beside = quantile(w.healthy(), 0.99)
	return c, err
}

// load publishes for the healthy agent and waits until it has done everything.
func (b *bench) load(ctx context.Context, s *subject, w *watch, d time.Duration) error {
	w.begin()
	if err := b.pace(ctx, s.input(), healthyRate, d, event, w.event); err != nil {
		return err
	}
	if err := w.await(ctx, int(d.Seconds())*healthyRate); err != nil {
		return fmt.Errorf("%w\n%s", err, logs(s))
	}
	return nil
}
