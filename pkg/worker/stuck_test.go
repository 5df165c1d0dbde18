package worker_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// A partition whose fetching was paused, since too much of it was held, is fetched again when it comes back.
func TestPausedPartitionGoesAndComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		const n = 60_000 // beyond what is held of both partitions
		s.publish(0, n)
		hold := make(chan struct{})
		a, _ := s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
			select {
			case <-hold:
			case <-ctx.Done():
			}
			return ok(ctx, a)
		}))
		s.until("everything is held", func() bool { return a.Figures().Held > 2*(16_384+8_192) })
		b, _ := s.engine("b", runner(t, 64, ok))
		s.until("a partition went", func() bool { return a.Figures().Partitions == 1 && b.Figures().Partitions == 1 })
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.until("it came back", func() bool { return a.Figures().Partitions == 2 })
		close(hold)
		s.publish(n, 100)
		s.outcomes(n + 100)
	})
}

func (s *stand) until(what string, ok func() bool) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("never: %s", what)
		}
	}
}

// Suspects are tried though more tasks than the metadata can name wait for a later attempt.
func TestTrialBesideManyInterrupted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.Ordering = spec.OrderingNone
		const n = 400
		s.publish(0, n)
		r := &interrupted{n: n}
		s.engine("a", r)
		for _, o := range s.outcomes(n) {
			if o.outcome != "completed" {
				t.Errorf("%+v", o)
			}
		}
	})
}

// interrupted stands in for a process that takes n attempts and is restarted, crashes with the next, and is well then.
type interrupted struct {
	mu       sync.Mutex
	n, life  int
	inFlight []*worker.Attempt
}

func (p *interrupted) Slots() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life > 0 {
		return 8 - len(p.inFlight)
	}
	return p.n - len(p.inFlight)
}

func (p *interrupted) Run(batch []*worker.Attempt) {
	p.mu.Lock()
	p.inFlight = append(p.inFlight, batch...)
	life := p.life
	if life == 0 && len(p.inFlight) < p.n {
		p.mu.Unlock()
		return
	}
	ended := p.inFlight
	p.inFlight = nil
	p.life++
	p.mu.Unlock()
	for _, a := range ended {
		switch life {
		case 0:
			a.Finish(worker.Result{CutShort: true})
		case 1:
			a.Finish(worker.Result{Outcome: task.Crashed, Class: task.ClassCrash, Message: "exit status 3", Shared: true})
		default:
			a.Finish(ok(context.Background(), a))
		}
	}
}

func (p *interrupted) Cancel(*worker.Attempt) {}

// An error is clipped where it would be too large to be settled.
func TestTooLargeErrorIsSettled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.publish(0, 20)
		s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
			if string(a.Record.Value) == "7" {
				return worker.Result{Outcome: task.Failed, Class: task.ClassPermanent, Message: "a" + strings.Repeat("\x00", 3<<20), Traceback: string(bytes.Repeat([]byte("x"), 3<<20))}
			}
			return ok(ctx, a)
		}))
		for _, o := range s.outcomes(20) {
			if failed := o.origin == "orders/1/7"; failed != (o.settled == "dlq") {
				t.Errorf("%s: %s, %s", o.origin, o.outcome, o.settled)
			}
		}
	})
}

// Where outcomes can't be written, a person is told, and told again when they can.
func TestMissingOutcomesTopicIsAlerted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		if _, err := s.adm.DeleteTopics(t.Context(), s.names.Outcomes()); err != nil {
			t.Fatal(err)
		}
		alerts := make(chan worker.Alert, 100)
		s.publish(0, 20)
		s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
			if string(a.Record.Value) == "7" {
				return worker.Result{Outcome: task.Failed, Class: task.ClassNetwork, Message: "reset"}
			}
			return ok(ctx, a)
		}), func(c *worker.Config) { c.Alert = func(a worker.Alert) { alerts <- a } })
		next := func() worker.Alert {
			select {
			case a := <-alerts:
				return a
			case <-time.After(20 * time.Second):
				t.Fatal("no alert")
				return worker.Alert{}
			}
		}
		if a := next(); a.Resolved {
			t.Errorf("%+v", a)
		}
		s.create(s.names.Outcomes(), 1)
		s.outcomes(20)
		if a := next(); !a.Resolved {
			t.Errorf("%+v", a)
		}
	})
}

// An engine can be stopped that wasn't started, and twice.
func TestStopIsTolerant(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		never := worker.New(worker.Config{Spec: s.spec, Tiers: tiers})
		never.Stop(t.Context())
		if err := never.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		e, stop := s.engine("a", runner(t, 1, ok))
		s.publish(0, 1)
		s.outcomes(1)
		if err := e.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		stop()
	})
}

// What a dispatcher's transaction wrote that was aborted leaves a gap in the offsets, however wide.
func TestGapWiderThanTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		topic := s.names.Tasks("orders", "biller")
		cl, err := kgo.NewClient(append(s.opts(), kgo.TransactionalID("gap"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		s.publish(0, 10)
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for range 17_000 {
			cl.Produce(t.Context(), &kgo.Record{Topic: topic, Value: []byte("aborted")}, nil)
		}
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		s.publish(10, 10)
		s.engine("a", runner(t, 4, ok))
		s.outcomes(20)
		s.awaitLag(0)
	})
}

// An event that a retry topic doesn't take, for its size, is dead-lettered; other retries go their way.
func TestTooLargeForItsRetry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		if _, err := s.adm.DeleteTopics(t.Context(), s.names.Retry(tiers[0])); err != nil {
			t.Fatal(err)
		}
		if _, err := s.adm.CreateTopic(t.Context(), 1, 1, map[string]*string{"max.message.bytes": kadm.StringPtr("2000")}, s.names.Retry(tiers[0])); err != nil {
			t.Fatal(err)
		}
		s.publish(0, 10)
		s.publish(10, 1, kgo.RecordHeader{Key: "user", Value: bytes.Repeat([]byte("x"), 3000)})
		s.publish(11, 10)
		s.engine("a", runner(t, 4, func(context.Context, *worker.Attempt) worker.Result {
			return worker.Result{Outcome: task.Failed, Class: task.ClassNetwork, Message: "reset"}
		}))
		for _, o := range s.outcomes(21) {
			if large := o.origin == "orders/0/10"; large != (o.settled == "dlq") {
				t.Errorf("%+v", o)
			}
		}
	})
}
