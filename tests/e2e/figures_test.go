package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"
)

// What is shown of an agent's tasks is never more than what was published, never falls, and always adds up; a moment
// after a pause it is exact: with no worker, after kills of every service, and with the gaps that transactions leave on
// the user's topic.
func TestFiguresAreTrueAtEveryMoment(t *testing.T) {
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic := sys.Prefix + "-in"
		if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
			t.Fatal(err)
		}
		ps := start(t, sys, "registry.r0", "dispatcher.d0")
		registerStock(t, sys, topic)
		p := newPublisher(t, sys, topic)

		p.burst(t, 50)
		p.exactly(t, 50)
		p.burst(t, 150) // killed while it routes
		if err := ps[1].End(); err != nil {
			t.Fatal(err)
		}
		ps[1] = start(t, sys, "dispatcher.d0")[0]
		p.exactly(t, 200)
		if err := ps[0].End(); err != nil {
			t.Fatal(err)
		}
		ps[0] = start(t, sys, "registry.r0")[0]
		p.exactly(t, 200)

		super := start(t, sys, "supervisor.s0")[0]
		flow, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan error, 1)
		go func() { done <- p.trickle(flow) }()
		p.watch(t, 3*time.Second)
		if err := super.End(); err != nil {
			t.Fatal(err)
		}
		p.watch(t, time.Second)
		start(t, sys, "supervisor.s0")
		start(t, sys, "dispatcher.d1")
		p.watch(t, 3*time.Second)
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		n := int(p.sent.Load())
		awaitMetric(t, sys, topic, "completed", float64(n))
		p.exactly(t, 0)

		call(t, sys, http.MethodDelete, "/storage/metrics", nil, nil)
		p.sent.Store(0)
		p.last = 0
		p.exactly(t, 0)
		p.burst(t, 30)
		awaitMetric(t, sys, topic, "completed", 30)
		p.exactly(t, 0)
	})
}

// publisher publishes in transactions of random sizes, of which it aborts some, and looks at what is shown.
type publisher struct {
	sys   *harness.System
	topic string
	cl    *kgo.Client
	sent  atomic.Int64 // or about to be
	last  int64        // received, as shown last
}

func newPublisher(t *testing.T, sys *harness.System, topic string) *publisher {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...), kgo.TransactionalID(topic+"-publisher"), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &publisher{sys: sys, topic: topic, cl: cl}
}

// transaction publishes n events, or with abort leaves a gap of n.
func (p *publisher) transaction(ctx context.Context, n int, abort bool) error {
	if err := p.cl.BeginTransaction(); err != nil {
		return err
	}
	if !abort {
		p.sent.Add(int64(n))
	}
	for i := range n {
		r := &kgo.Record{Topic: p.topic, Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, `{"n": %d}`, i)}
		if err := p.cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			return err
		}
	}
	return p.cl.EndTransaction(ctx, kgo.TransactionEndTry(!abort))
}

func (p *publisher) burst(t *testing.T, n int) {
	t.Helper()
	for n > 0 {
		size := min(n, 1+rand.IntN(20))
		n -= size
		for _, abort := range []bool{false, true} {
			if err := p.transaction(t.Context(), size, abort); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// trickle publishes with pauses until the context ends.
func (p *publisher) trickle(ctx context.Context) error {
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := p.transaction(context.WithoutCancel(ctx), 1+rand.IntN(10), rand.IntN(4) == 0); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

type shown struct {
	Received, Completed, Failed, Rejected, Cancelled, Discarded, Waiting, Running int64
	DeadLettered                                                                  int64 `json:"dead_lettered"`
}

// look checks what must hold at every moment.
func (p *publisher) look(t *testing.T) shown {
	t.Helper()
	var m shown
	call(t, p.sys, http.MethodGet, "/v1/agents/"+p.topic+"/stock/metrics", nil, &m)
	finished := m.Completed + m.Failed + m.DeadLettered + m.Rejected + m.Cancelled + m.Discarded
	if sent := p.sent.Load(); m.Received > sent || m.Received < p.last || m.Received != finished+m.Waiting+m.Running || m.Waiting < 0 || m.Running < 0 {
		t.Errorf("%d were published, %d received at the last look, now %+v", sent, p.last, m)
	}
	p.last = m.Received
	return m
}

func (p *publisher) watch(t *testing.T, d time.Duration) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(d); ; {
		p.look(t)
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
}

// exactly waits until all that was published is shown, so many of it waiting.
func (p *publisher) exactly(t *testing.T, waiting int64) {
	t.Helper()
	eventually(t, time.Minute, func() string {
		if m := p.look(t); m.Received != p.sent.Load() || m.Waiting != waiting || m.Running != 0 {
			return fmt.Sprintf("%d were published, shown is %+v", p.sent.Load(), m)
		}
		return ""
	})
	p.watch(t, time.Second)
}
