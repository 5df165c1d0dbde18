package worker_test

import (
	"context"
	"encoding/json"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// reply is what a test looks at of one.
type reply struct {
	ID      string
	Payload struct {
		Content json.RawMessage
		Webhook *string
		ReplyTo *string `json:"reply_to"`
	}
	Correlation string `json:"correlation_id"`
	Causation   string `json:"causation_id"`
	Tenant      string `json:"tenant_id"`
}

func replyTo(topic string, more ...kgo.RecordHeader) []kgo.RecordHeader {
	return append(more, kgo.RecordHeader{Key: task.HeaderReplyTo, Value: []byte(topic)})
}

func TestAReplyTellsTheFinalFailureOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.MaxRetries = 0
		s.create("answers", 1)
		s.create(s.names.Webhooks(), 1)
		s.publish(0, 1, replyTo("answers", kgo.RecordHeader{Key: task.HeaderTenantID, Value: []byte("acme")}, kgo.RecordHeader{Key: task.HeaderWebhook, Value: []byte("https://h/")})...)
		s.engine("a", runner(t, 1, func(context.Context, *worker.Attempt) worker.Result {
			return worker.Result{Outcome: task.Failed, Class: task.ClassNetwork, Message: "reset by peer"}
		}))
		r := s.read("answers", func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
		var e reply
		if err := json.Unmarshal(r.Value, &e); err != nil {
			t.Fatal(err)
		}
		var content struct {
			Error string
			Class string `json:"error_class"`
		}
		if err := json.Unmarshal(e.Payload.Content, &content); err != nil || content.Error != "reset by peer" || content.Class != "network" {
			t.Errorf("%s", r.Value)
		}
		if e.Causation != "event-0" || e.Tenant != "acme" || e.Payload.Webhook != nil || e.Payload.ReplyTo != nil || header(r)[task.HeaderOutcome] != "failed" {
			t.Errorf("%s", r.Value)
		}
	})
}

// A reply asks for nothing itself, whatever it answers: else two agents that answer each other would never end.
func TestRepliesAloneNeverGoInCircles(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create("answers", 1)
		s.publish(0, 1, replyTo("answers")...)
		s.engine("a", runner(t, 1, ok))
		r := s.read("answers", func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
		e, err := event.Recognise("answers", r)
		if err != nil || e.Format != event.Envelope || e.ReplyTo != "" || e.Webhook != "" || e.CausationID != "event-0" {
			t.Errorf("as an event of the reply topic it is %+v, %v", e, err)
		}
	})
}

func TestARoundsReplyHasItsOwnID(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create("answers", 1)
		s.publish(0, 1, replyTo("answers")...)
		s.publish(0, 1, replyTo("answers", kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte("1")})...)
		s.engine("a", runner(t, 1, ok))
		ids := map[string]bool{}
		for _, r := range s.read("answers", func(rs []*kgo.Record) bool { return len(rs) == 2 }) {
			var e reply
			if err := json.Unmarshal(r.Value, &e); err != nil {
				t.Fatal(err)
			}
			ids[e.ID] = true
		}
		if len(ids) != 2 {
			t.Errorf("%v", ids)
		}
	})
}

// A failed reply never runs the agent again: it is said so, and the task is settled.
func TestAReplyThatCantBeWrittenSettlesAndRunsNothingAgain(t *testing.T) {
	denied := func(s *stand) { // writes to the topic are refused by the broker
		id := topicID(s, "answers")
		s.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			s.cluster.KeepControl()
			for _, rt := range req.(*kmsg.ProduceRequest).Topics {
				if rt.Topic == "answers" || rt.TopicID == id {
					return refuse(req.(*kmsg.ProduceRequest), kerr.TopicAuthorizationFailed.Code), nil, true
				}
			}
			return nil, nil, false
		})
	}
	for name, tt := range map[string]struct {
		prepare func(s *stand)
		reason  string
		result  string
	}{
		"no such topic":      {func(*stand) {}, "doesn't exist", `"ok"`},
		"too large for it":   {func(s *stand) { s.create("answers", 1) }, "larger than the topic takes", `"` + strings.Repeat("x", 800<<10) + `"`},
		"denied by its ACLs": {func(s *stand) { s.create("answers", 1); denied(s) }, "grant the right", `"ok"`},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStand(t)
				tt.prepare(s)
				if name == "too large for it" {
					s.limit("answers", "500000")
				}
				var runs atomic.Int32
				s.publish(0, 20)
				s.publish(20, 1, replyTo("answers")...)
				s.engine("a", runner(t, 4, func(_ context.Context, a *worker.Attempt) worker.Result {
					runs.Add(1)
					return worker.Result{Outcome: task.Completed, Value: []byte(tt.result)}
				}))
				for _, r := range s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= 21 }) {
					h := header(r)
					if asked := string(r.Key) == "orders/0/20"; asked != (h[task.HeaderReply] == task.ReplyUndeliverable) || asked != strings.Contains(h[task.HeaderReplyReason], tt.reason) ||
						h[task.HeaderSettled] != "done" || h[task.HeaderAttempt] != "1" {
						t.Errorf("%s: %v", r.Key, h)
					}
				}
				if n := runs.Load(); n != 21 {
					t.Errorf("21 tasks ran %d times", n)
				}
			})
		})
	}
}

// One reply that the topic doesn't take for what it is, without a key where it is compacted, says nothing of the next.
func TestAReplyThatIsRefusedByItselfIsItsOwnTrouble(t *testing.T) {
	s := newStand(t)
	s.create("answers", 1)
	id := topicID(s, "answers")
	var refused atomic.Bool
	s.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		s.cluster.KeepControl()
		for _, rt := range req.(*kmsg.ProduceRequest).Topics {
			if (rt.Topic == "answers" || rt.TopicID == id) && refused.CompareAndSwap(false, true) {
				return refuse(req.(*kmsg.ProduceRequest), kerr.InvalidRecord.Code), nil, true
			}
		}
		return nil, nil, false
	})
	s.publish(0, 1, replyTo("answers")...)
	s.engine("a", runner(t, 1, ok))
	if h := header(s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]); h[task.HeaderReply] != task.ReplyUndeliverable {
		t.Fatalf("%v", h)
	}
	s.publish(10, 5, replyTo("answers")...)
	s.outcomes(6)
	s.read("answers", func(rs []*kgo.Record) bool { return len(rs) == 5 })
}

// One reply that is too large says nothing of the topic: the next one goes there.
func TestAReplyThatIsTooLargeIsItsOwnTrouble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create("answers", 1)
		s.limit("answers", "300000")
		s.publish(0, 1, replyTo("answers")...)
		s.engine("a", runner(t, 1, func(_ context.Context, a *worker.Attempt) worker.Result {
			value := `"small"`
			if string(a.Record.Value) == "0" {
				value = `"` + strings.Repeat("x", 600<<10) + `"`
			}
			return worker.Result{Outcome: task.Completed, Value: []byte(value)}
		}))
		if h := header(s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]); h[task.HeaderReply] != task.ReplyUndeliverable {
			t.Fatalf("%v", h)
		}
		s.publish(10, 1, replyTo("answers")...)
		s.outcomes(2)
		if r := s.read("answers", func(rs []*kgo.Record) bool { return len(rs) > 0 })[0]; !strings.Contains(string(r.Value), "small") {
			t.Errorf("%.100s", r.Value)
		}
	})
}

func TestATopicThatIsDeletedMeanwhileCostsTheReplyOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create("answers", 1)
		s.publish(0, 1, replyTo("answers")...)
		s.engine("a", runner(t, 1, ok))
		s.outcomes(1) // the topic is known to be there
		if _, err := s.adm.DeleteTopics(t.Context(), "answers"); err != nil {
			t.Fatal(err)
		}
		s.publish(1, 1, replyTo("answers")...)
		r := s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) == 2 })
		for _, r := range r {
			if h := header(r); string(r.Key) == "orders/1/1" && (h[task.HeaderReply] != task.ReplyUndeliverable || h[task.HeaderSettled] != "done") {
				t.Errorf("%v", h)
			}
		}
	})
}

// A topic whose brokers take no records (too few replicas, no leader) would hold its task, and with it in the end the
// partition, for as long as that lasts.
func TestAReplyTopicThatIsDownHoldsItsTaskForAWhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create("answers", 1)
		id := topicID(s, "answers")
		s.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			s.cluster.KeepControl()
			for _, rt := range req.(*kmsg.ProduceRequest).Topics {
				if rt.Topic == "answers" || rt.TopicID == id {
					return refuse(req.(*kmsg.ProduceRequest), kerr.NotEnoughReplicas.Code), nil, true
				}
			}
			return nil, nil, false
		})
		host, port, err := net.SplitHostPort(s.seeds[0])
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		s.cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
			s.cluster.KeepControl()
			ts := req.(*kmsg.MetadataRequest).Topics
			if len(ts) != 1 || ts[0].Topic == nil || *ts[0].Topic != "answers" {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.MetadataResponse)
			b := kmsg.NewMetadataResponseBroker()
			b.Host, b.Port = host, int32(number)
			resp.Brokers = append(resp.Brokers, b)
			rt := kmsg.NewMetadataResponseTopic()
			rt.Topic, rt.TopicID = kmsg.StringPtr("answers"), id
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Leader, p.Replicas, p.ISR = 0, []int32{0, 1}, nil
			rt.Partitions = append(rt.Partitions, p)
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		})
		var runs atomic.Int32
		s.publish(0, 1, replyTo("answers")...)
		s.publish(1, 20)
		s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
			runs.Add(1)
			return ok(ctx, a)
		}))
		for _, r := range s.readWithin(s.names.Outcomes(), 90*time.Second, func(rs []*kgo.Record) bool { return len(rs) >= 21 }) {
			if h := header(r); (string(r.Key) == "orders/0/0") != (h[task.HeaderReply] == task.ReplyUndeliverable) || h[task.HeaderAttempt] != "1" {
				t.Errorf("%s: %v", r.Key, h)
			}
		}
		if n := runs.Load(); n != 21 {
			t.Errorf("21 tasks ran %d times", n)
		}
	})
}

// limit sets how large the records may be that a topic takes.
func (s *stand) limit(topic, bytes string) {
	s.t.Helper()
	if _, err := s.adm.AlterTopicConfigs(s.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &bytes}}, topic); err != nil {
		s.t.Fatal(err)
	}
}

func topicID(s *stand, topic string) [16]byte {
	ts, err := s.adm.ListTopics(context.Background(), topic)
	if err != nil {
		return [16]byte{}
	}
	return ts[topic].ID
}

// refuse answers every partition of a produce request with an error.
func refuse(req *kmsg.ProduceRequest, code int16) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, rt := range req.Topics {
		at := kmsg.NewProduceResponseTopic()
		at.Topic, at.TopicID = rt.Topic, rt.TopicID
		for _, rp := range rt.Partitions {
			p := kmsg.NewProduceResponseTopicPartition()
			p.Partition, p.ErrorCode = rp.Partition, code
			at.Partitions = append(at.Partitions, p)
		}
		resp.Topics = append(resp.Topics, at)
	}
	return resp
}
