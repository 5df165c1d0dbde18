package app

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// envelope is what a test looks at of a reply.
type envelope struct {
	ID      string
	Payload struct {
		Content struct {
			Error string
			Class string `json:"error_class"`
		}
		Webhook *string
		ReplyTo *string `json:"reply_to"`
	}
	Correlation string `json:"correlation_id"`
	Causation   string `json:"causation_id"`
	Source      string
}

func readReply(t *testing.T, r *kgo.Record) (e envelope) {
	t.Helper()
	if err := json.Unmarshal(r.Value, &e); err != nil {
		t.Fatalf("%s: %v", r.Value, err)
	}
	return e
}

// asking are the headers of an event that wants to hear of its end in both ways.
func asking(n int, replyTo string) []kgo.RecordHeader {
	return []kgo.RecordHeader{{Key: task.HeaderReplyTo, Value: []byte(replyTo)}, {Key: task.HeaderWebhook, Value: []byte("http://127.0.0.1:1/")},
		{Key: task.HeaderCorrelationID, Value: fmt.Appendf(nil, "c%d", n)}}
}

// waiting is a retry that waits for an agent.
func waiting(topic string, a *spec.Agent, n int, headers ...kgo.RecordHeader) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: 0, Key: []byte("k1"), Value: fmt.Appendf(nil, "%d", n), Headers: append(headers,
		kgo.RecordHeader{Key: task.HeaderAgent, Value: []byte(a.Ref())}, kgo.RecordHeader{Key: task.HeaderOrigin, Value: fmt.Appendf(nil, "%s/0/%d/u", a.Topic, n)},
		kgo.RecordHeader{Key: task.HeaderAttempt, Value: []byte("3")}, kgo.RecordHeader{Key: task.HeaderEvent, Value: fmt.Appendf(nil, "17 e%d", n)})}
}

// gone is an agent that was deleted with all that it left.
func (w *world) gone() *spec.Agent {
	a := agent("orders", "gone")
	a.Phase, a.CleanUp, a.Cleaned = spec.Terminated, true, true
	w.desire(a)
	return a
}

// A task may end without a worker, in whatever way: who asked hears of it.
func TestATaskThatADispatcherSettlesTellsWhoAsked(t *testing.T) {
	for name, c := range map[string]struct {
		end            func(w *world, a *spec.Agent) // makes the task 5 end
		outcome, error string
		class          string
	}{
		"rejected, for its type": {func(w *world, a *spec.Agent) {
			a.Accepts, a.OnIncompatible = []string{"big"}, spec.OnIncompatibleReject
			w.desire(a)
			w.start()
			w.events("orders", 0, 5)
			w.produce(&kgo.Record{Topic: "orders", Value: []byte("5"), Headers: asking(5, "answers")})
		}, "rejected", "the task has no type, and the agent accepts only big", "incompatible_task"},
		"rejected, for its size": {func(w *world, a *spec.Agent) {
			// A broker whose limits can't be raised: the task doesn't fit, the event did.
			w.create(kafka.Topic{Name: w.names.Tasks("orders", "bill"), Partitions: a.Partitions})
			w.refuseTasks()
			w.start()
			w.produce(&kgo.Record{Topic: "orders", Value: []byte("5"), Headers: asking(5, "answers")})
		}, "rejected", "the task topic refuses the event: ", "permanent"},
		"cancelled before it was dispatched": {func(w *world, a *spec.Agent) {
			a.Phase = spec.Paused
			w.desire(a)
			w.start()
			w.events("orders", 0, 5)
			w.produce(&kgo.Record{Topic: "orders", Value: []byte("5"), Headers: asking(5, "answers")})
			w.ask(command.Cancel, a, "orders/0/5", 0)
			w.answered(w.read(w.names.Status()), w.ask(command.Reopen, a, "nonsense", 0)) // by then the cancel is known
			a.Phase, a.Generation = spec.Active, 2
			w.desire(a)
		}, "cancelled", "cancelled by ann: why not", ""},
		"cancelled between attempts": {func(w *world, a *spec.Agent) {
			w.start()
			w.produce(waiting(w.names.Retry(time.Hour), a, 5, asking(5, "answers")...))
			w.ask(command.Cancel, a, "orders/0/5", 0)
		}, "cancelled", "cancelled by ann: why not", ""},
		"discarded between attempts": {func(w *world, a *spec.Agent) {
			gone := w.gone()
			w.start()
			w.produce(waiting(w.names.Retry(w.cfg.Kafka.RetryTiers[0]), gone, 5, asking(5, "answers")...))
		}, "discarded", "the agent orders/gone was deleted", ""},
		"discarded by a deletion": {func(w *world, a *spec.Agent) {
			w.create(kafka.TasksTopic(w.names, a, kafka.DefaultMaxBytes))
			w.produce(waiting(w.names.Tasks("orders", "bill"), a, 5, asking(5, "answers")...))
			w.start()
			a.Phase, a.CleanUp, a.Generation = spec.Terminated, true, 2
			w.desire(a)
		}, "discarded", "the agent orders/bill was deleted", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, a := withCommands(t)
			w.create(kafka.WebhooksTopic(w.names), kafka.OutcomesTopic(w.names), kafka.StatusTopic(w.names), kafka.Topic{Name: "answers", Partitions: 1})
			c.end(w, a)
			r := w.read("answers").next(1)[0]
			e, err := event.Recognise("answers", r)
			if err != nil || e.Format != event.Envelope {
				t.Errorf("as an event of its topic it is %+v, %v", e, err)
			}
			got := readReply(t, r)
			if !strings.HasPrefix(got.Payload.Content.Error, c.error) || got.Payload.Content.Class != c.class || got.Correlation != "c5" || got.Causation == "" ||
				!strings.HasPrefix(got.Source, "orders/") || got.Payload.Webhook != nil || got.Payload.ReplyTo != nil || route.Header(r, task.HeaderOutcome) != c.outcome {
				t.Errorf("%s %+v", r.Value, got)
			}
			o := w.outcomeOf(got.ID)
			if route.Header(o, task.HeaderOutcome) != c.outcome || route.Header(o, task.HeaderReply) != "" || route.Header(o, task.HeaderWebhookState) != task.WebhookPending {
				t.Errorf("reply %s, outcome %+v", got.ID, o)
			}
			if hook := w.read(w.names.Webhooks()).next(1)[0]; !strings.HasPrefix(got.ID, string(hook.Key)+"/") {
				t.Errorf("the webhook is of %s, the reply %s", hook.Key, got.ID)
			}
		})
	}
}

// outcomeOf waits for the outcome of a task by its reply's id.
func (w *world) outcomeOf(reply string) *kgo.Record {
	w.t.Helper()
	for outcomes := w.read(w.names.Outcomes()); ; {
		for _, o := range outcomes.next(1) {
			if strings.HasPrefix(reply, string(o.Key)+"/") {
				return o
			}
		}
	}
}

// refuseTasks makes the broker refuse all tasks for their size.
func (w *world) refuseTasks() {
	w.refuse(w.names.Tasks("orders", "bill"), kerr.MessageTooLarge)
}

// refuse makes the broker refuse all records of a topic.
func (w *world) refuse(topic string, why *kerr.Error) {
	w.t.Helper()
	found, err := w.adm.ListTopics(w.t.Context(), topic)
	if err != nil || found[topic].Err != nil {
		w.t.Fatal(err, found[topic].Err)
	}
	w.kfake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.kfake.KeepControl()
		ts := req.(*kmsg.ProduceRequest).Topics
		meant := false
		for _, rt := range ts {
			meant = meant || rt.Topic == topic || rt.TopicID == found[topic].ID
		}
		if !meant {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range ts {
			at := kmsg.NewProduceResponseTopic()
			at.Topic, at.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, why.Code
				at.Partitions = append(at.Partitions, p)
			}
			resp.Topics = append(resp.Topics, at)
		}
		return resp, nil, true
	})
}

// A reply that can't be written is said so, and holds up neither its task's end nor what comes behind it.
func TestAReplyThatADispatcherCantWriteIsInNobodysWay(t *testing.T) {
	for name, c := range map[string]struct {
		topic   string
		prepare func(w *world)
		reason  string
	}{
		"no such topic":       {"nowhere", func(*world) {}, "doesn't exist"},
		"no name of a topic":  {"no topic!", func(*world) {}, "doesn't exist"},
		"one of Reeve's own":  {"reeve.outcomes", func(*world) {}, "one of Reeve's own"},
		"the agent's own":     {"orders", func(*world) {}, "would be its next event"},
		"too large for it":    {"answers", func(w *world) { w.limit("answers", "100") }, "larger than the topic takes"},
		"denied by its ACLs":  {"answers", func(w *world) { w.refuse("answers", kerr.TopicAuthorizationFailed) }, "grant the right"},
		"its brokers are bad": {"answers", func(w *world) { w.refuse("answers", kerr.NotEnoughReplicas); w.lame("answers") }, "no brokers that take records"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, a := withCommands(t)
			tier := w.names.Retry(w.cfg.Kafka.RetryTiers[0])
			w.create(kafka.WebhooksTopic(w.names), kafka.OutcomesTopic(w.names), kafka.Topic{Name: "answers", Partitions: 1}, kafka.Topic{Name: "others", Partitions: 1})
			c.prepare(w)
			gone := w.gone()
			w.start()
			outcomes := w.read(w.names.Outcomes())
			ends := func(n int, replyTo string, bad bool) { // the first of them may cost a transaction its time
				w.produce(waiting(tier, gone, n, asking(n, replyTo)...))
				o := outcomes.within(1, 50*time.Second)[0]
				state, reason := route.Header(o, task.HeaderReply), route.Header(o, task.HeaderReplyReason)
				if bad != (state == task.ReplyUndeliverable) || bad != strings.Contains(reason, c.reason) || route.Header(o, task.HeaderWebhookState) != task.WebhookPending {
					t.Errorf("%s: %q, %q", o.Key, state, reason)
				}
			}
			w.produce(waiting(tier, a, 3))
			ends(1, c.topic, true)
			ends(2, "others", false)
			if got := w.read(w.names.Tasks("orders", "bill")).next(1)[0]; string(got.Value) != "3" {
				t.Errorf("%+v", got)
			}
			if got := readReply(t, w.read("others").next(1)[0]); got.Correlation != "c2" || got.ID != "orders/0/2/gone" {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestAReplyTopicIsMadeWhereThatIsAllowed(t *testing.T) {
	w, _ := withCommands(t)
	tier := w.names.Retry(w.cfg.Kafka.RetryTiers[0])
	w.create(kafka.WebhooksTopic(w.names))
	gone := w.gone()
	w.start(func(c *Config) { c.CreateTopics = true })
	w.produce(waiting(tier, gone, 1, asking(1, "answers")...))
	if got := readReply(t, w.read("answers").next(1)[0]); got.Correlation != "c1" {
		t.Errorf("%+v", got)
	}
}

// A topic that is deleted and made again stands, for each of the producers that knew the one before.
func TestAReplyTopicThatIsMadeAgainIsWritten(t *testing.T) {
	w, _ := withCommands(t)
	tier := w.names.Retry(w.cfg.Kafka.RetryTiers[0])
	answers := kafka.Topic{Name: "answers", Partitions: 1}
	w.create(kafka.WebhooksTopic(w.names), kafka.OutcomesTopic(w.names), answers)
	gone := w.gone()
	w.start()
	outcomes := w.read(w.names.Outcomes())
	ends := func(from int) {
		for n := from; n < from+2*hop.DefaultProducers; n++ {
			w.produce(waiting(tier, gone, n, asking(n, "answers")...))
			if o := outcomes.next(1)[0]; route.Header(o, task.HeaderReply) != "" {
				t.Errorf("%s: %s", o.Key, route.Header(o, task.HeaderReplyReason))
			}
		}
	}
	ends(1)
	if _, err := w.adm.DeleteTopics(t.Context(), "answers"); err != nil {
		t.Fatal(err)
	}
	w.create(answers)
	ends(101)
	w.read("answers").next(2 * hop.DefaultProducers)
}

// limit sets how large the records may be that a topic takes.
func (w *world) limit(topic, bytes string) {
	w.t.Helper()
	if _, err := w.adm.AlterTopicConfigs(w.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &bytes}}, topic); err != nil {
		w.t.Fatal(err)
	}
}

// lame makes the broker say, where a topic is asked for alone, that it has too few replicas in sync.
func (w *world) lame(topic string) {
	w.t.Helper()
	found, err := w.adm.ListTopics(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	id := found[topic].ID
	host, port, err := net.SplitHostPort(w.cfg.Kafka.Brokers[0])
	if err != nil {
		w.t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		w.t.Fatal(err)
	}
	w.kfake.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.kfake.KeepControl()
		ts := req.(*kmsg.MetadataRequest).Topics
		if len(ts) != 1 || ts[0].Topic == nil || *ts[0].Topic != topic {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		b := kmsg.NewMetadataResponseBroker()
		b.Host, b.Port = host, int32(number)
		resp.Brokers = append(resp.Brokers, b)
		rt := kmsg.NewMetadataResponseTopic()
		rt.Topic, rt.TopicID = kmsg.StringPtr(topic), id
		p := kmsg.NewMetadataResponseTopicPartition()
		p.Leader, p.Replicas, p.ISR = 0, []int32{0, 1}, nil
		rt.Partitions = append(rt.Partitions, p)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
}
