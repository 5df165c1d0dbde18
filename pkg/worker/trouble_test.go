package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// A task whose execution kills its host is found and dead-lettered; its neighbours burn no retry.
func TestHostKillerIsIsolated(t *testing.T) {
	s := newSweep(t)
	const n, poison = 300, 77
	t.Setenv("REEVE_TEST_POISON", "orders/0/77")
	s.publish(n)
	deaths := 0
	var c *exec.Cmd
	died := make(chan *os.ProcessState, 1)
	launch := func() {
		c = s.start("a")
		go func(c *exec.Cmd) {
			_ = c.Wait() // killed: the state says more than the error
			died <- c.ProcessState
		}(c)
	}
	launch()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.finished() < n {
		select {
		case <-died:
			if deaths++; deaths > 12 {
				t.Fatalf("the host died %d times", deaths)
			}
			launch()
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d of %d finished", s.finished(), n)
		}
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-died
	t.Logf("the host died %d times", deaths)
	s.verify(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	for origin, h := range s.headers {
		if crashed := h[task.HeaderOutcome] == "crashed"; crashed != (origin == "orders/0/77") {
			t.Errorf("%s: %s after %s attempts", origin, h[task.HeaderOutcome], h[task.HeaderAttempt])
		}
	}
}

func TestReplyIsAnEnvelope(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create("answers", 1)
		s.publish(0, 1, kgo.RecordHeader{Key: task.HeaderReplyTo, Value: []byte("answers")}, kgo.RecordHeader{Key: task.HeaderCorrelationID, Value: []byte("c-1")})
		s.engine("a", runner(t, 1, ok))
		r := s.read("answers", func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
		var e struct {
			Topic   string
			Payload struct {
				Content any
				Webhook any
			}
			Correlation string `json:"correlation_id"`
			Causation   string `json:"causation_id"`
			Source      string
		}
		if err := json.Unmarshal(r.Value, &e); err != nil {
			t.Fatal(err)
		}
		if e.Topic != "answers" || e.Payload.Content != "ok" || e.Payload.Webhook != nil || e.Correlation != "c-1" || e.Causation != "event-0" || e.Source != "orders/biller" {
			t.Errorf("reply %s", r.Value)
		}
	})
}

// A reply that can't be delivered is said so and holds nothing up.
func TestUndeliverableReplySettles(t *testing.T) {
	for _, topic := range []string{"nowhere", "reeve.control", "orders"} {
		t.Run(topic, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStand(t)
				s.publish(0, 1, kgo.RecordHeader{Key: task.HeaderReplyTo, Value: []byte(topic)})
				s.engine("a", runner(t, 1, ok))
				r := s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
				if h := header(r); h[task.HeaderReply] != "reply_undeliverable" || h[task.HeaderOutcome] != "completed" {
					t.Errorf("%v", h)
				}
			})
		})
	}
}

func TestTooLargeResultIsDeadLettered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.publish(0, 20)
		s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
			r := ok(ctx, a)
			if string(a.Record.Value) == "7" {
				r.Value = bytes.Repeat([]byte("x"), 3<<20)
			}
			return r
		}))
		for _, o := range s.outcomes(20) {
			if large := o.origin == "orders/1/7"; large != (o.settled == "dlq") {
				t.Errorf("%s: %s, %s", o.origin, o.outcome, o.settled)
			} else if large && !strings.Contains(o.value, "result_too_large") {
				t.Errorf("%s", o.value)
			}
		}
	})
}

// A retry topic that can't be written holds up what goes there, and nothing else; once it can, that goes too.
func TestUnwritableDestinationHoldsOnlyItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		if _, err := s.adm.DeleteTopics(t.Context(), s.names.Retry(tiers[0])); err != nil {
			t.Fatal(err)
		}
		var told unwritable
		s.publish(0, 100)
		s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
			if string(a.Record.Value) == "0" {
				return worker.Result{Outcome: task.Failed, Class: task.ClassNetwork, Message: "reset"}
			}
			return ok(ctx, a)
		}), func(c *worker.Config) { c.Alert = told.add })
		for _, o := range s.outcomes(99) {
			if o.settled != "done" {
				t.Errorf("%+v", o)
			}
		}
		told.await(t, false, s.names.Retry(tiers[0]))
		s.create(s.names.Retry(tiers[0]), 1)
		s.read(s.names.Retry(tiers[0]), func(rs []*kgo.Record) bool { return len(rs) == 1 })
		told.await(t, true, "")
		s.outcomes(100)
	})
}

// A worker that the group drops again and again, and that comes back to partitions which nobody touched meanwhile, goes
// on where it was: nothing is lost among the markers that it reads again, and nothing is repeated.
func TestLostAndKeptPartitionsLoseNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		const rounds, each = 200, 40
		var drops atomic.Int32
		s.cluster.ControlKey(heartbeat, func(req kmsg.Request) (kmsg.Response, error, bool) {
			s.cluster.KeepControl()
			if drops.Add(1)%4 != 0 {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
			resp.ErrorCode = kerr.UnknownMemberID.Code
			return resp, nil, true
		})
		e, _ := s.engine("a", runner(t, 8, func(ctx context.Context, a *worker.Attempt) worker.Result {
			<-time.After(time.Duration(rand.N(4_000)) * time.Microsecond)
			return ok(ctx, a)
		}), func(c *worker.Config) { c.Session = 500 * time.Millisecond })
		pace := time.NewTicker(15 * time.Millisecond) // so that the window stays small and moves on
		defer pace.Stop()
		for i := range rounds {
			<-pace.C
			s.publishInTransaction(i*each, each)
		}
		got := map[string]int{}
		for _, o := range s.outcomes(rounds * each) {
			got[o.origin]++
		}
		if len(got) != rounds*each {
			t.Errorf("%d of %d tasks were settled", len(got), rounds*each)
		}
		if f := e.Figures(); f.Partitions != 2 {
			t.Errorf("%d partitions are owned", f.Partitions)
		}
		t.Logf("%d heartbeats", drops.Load())
	})
}

const heartbeat = 12

// publishInTransaction is publish as a dispatcher does it: with a marker behind.
func (s *stand) publishInTransaction(from, n int) {
	s.t.Helper()
	manual := s.cl
	defer func() { s.cl = manual }()
	var err error
	if s.cl, err = kgo.NewClient(append(s.opts(), kgo.TransactionalID("publisher"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		s.t.Fatal(err)
	}
	defer s.cl.Close()
	if err := s.cl.BeginTransaction(); err != nil {
		s.t.Fatal(err)
	}
	s.publish(from, n)
	if err := s.cl.EndTransaction(s.t.Context(), kgo.TryCommit); err != nil {
		s.t.Fatal(err)
	}
}

// The dead letters of one transaction may be thousands.
func TestADeadLetterTopicThatCantBeMadeIsAskedForOnceATransaction(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		var asked, ended atomic.Int64
		s.cluster.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
			s.cluster.KeepControl()
			asked.Add(1)
			resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
			rt := kmsg.NewCreateTopicsResponseTopic()
			rt.Topic, rt.ErrorCode = req.(*kmsg.CreateTopicsRequest).Topics[0].Topic, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		})
		enough := make(chan struct{})
		s.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			s.cluster.KeepControl()
			if ended.Add(1) == 3 {
				close(enough)
			}
			return nil, nil, false
		})
		s.publish(0, 500)
		s.engine("a", runner(t, 16, func(context.Context, *worker.Attempt) worker.Result {
			return worker.Result{Outcome: task.Failed, Class: task.ClassPermanent, Message: "no"}
		}))
		<-enough
		if n, of := asked.Load(), ended.Load(); n == 0 || n > of+1 {
			t.Errorf("asked %d times in %d transactions", n, of)
		}
	})
}
