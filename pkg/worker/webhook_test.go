package worker_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// webhookBody is what a receiver reads.
type webhookBody struct {
	Type      string
	Timestamp string
	Payload   struct {
		Content  json.RawMessage
		Omitted  bool   `json:"content_omitted"`
		TaskID   string `json:"task_id"`
		Topic    string
		Agent    string
		Task     string
		Runner   string `json:"runner_id"`
		Status   string
		Result   json.RawMessage
		NoResult bool `json:"result_omitted"`
		Error    string
		Class    string `json:"error_class"`
		Kind     string `json:"error_type"`
		Attempts int    `json:"delivery_attempts"`
	}
}

func webhook(url string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: task.HeaderWebhook, Value: []byte(url)}
}

func readWebhook(t *testing.T, r *kgo.Record) (b webhookBody) {
	t.Helper()
	if err := json.Unmarshal(r.Value, &b); err != nil {
		t.Fatalf("%s: %v", r.Value, err)
	}
	return b
}

func TestAWebhookIsWrittenWithTheOutcome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create(s.names.Webhooks(), 2)
		s.publish(0, 10)
		s.publish(10, 2, webhook("https://h/x"))
		runs := 0
		s.engine("a", runner(t, 1, func(ctx context.Context, a *worker.Attempt) worker.Result {
			if string(a.Record.Value) == "11" {
				runs++
				return worker.Result{Outcome: task.TimedOut, Class: task.ClassPermanent, Message: "no", Type: "ValueError"}
			}
			return ok(ctx, a)
		}))
		for _, r := range s.read(s.names.Webhooks(), func(rs []*kgo.Record) bool { return len(rs) >= 2 }) {
			b, h := readWebhook(t, r), header(r)
			if h[task.HeaderWebhook] != "https://h/x" || h[task.HeaderAgent] != "orders/biller" || !strings.HasPrefix(h[task.HeaderOrigin], b.Payload.Task) || len(strings.Fields(h[task.HeaderTimes])) != 4 {
				t.Errorf("%v", h)
			}
			p := b.Payload
			switch p.TaskID {
			case "event-10":
				if b.Type != "task.completed" || p.Status != "completed" || string(p.Result) != `"ok"` || p.Topic != "orders" || p.Agent != "biller" || p.Runner != "a" || string(p.Content) != "10" || p.Attempts != 1 {
					t.Errorf("%s", r.Value)
				}
			case "event-11":
				if b.Type != "task.failed" || p.Status != "failed" || p.Error != "no" || p.Class != "permanent" || p.Kind != "ValueError" || p.Result != nil {
					t.Errorf("%s", r.Value)
				}
			default:
				t.Errorf("%s", r.Value)
			}
		}
		for _, r := range s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= 12 }) {
			h := header(r)
			if asked := string(r.Key) == "orders/0/10" || string(r.Key) == "orders/1/11"; asked != (h[task.HeaderWebhookState] == task.WebhookPending) {
				t.Errorf("%s: %v", r.Key, h)
			}
		}
	})
}

func TestAFailureThatIsRetriedSendsNoWebhook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create(s.names.Webhooks(), 1)
		s.publish(0, 1, webhook("https://h/x"))
		s.engine("a", runner(t, 1, func(context.Context, *worker.Attempt) worker.Result {
			return worker.Result{Outcome: task.Failed, Class: task.ClassNetwork, Message: "reset"}
		}))
		r := s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
		if h := header(r); h[task.HeaderWebhookState] != "" {
			t.Errorf("%v", h)
		}
		retry := s.read(s.names.Retry(tiers[0]), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
		if header(retry)[task.HeaderWebhook] != "https://h/x" {
			t.Error("the retry doesn't know of the webhook")
		}
		if ends, err := s.adm.ListEndOffsets(t.Context(), s.names.Webhooks()); err != nil || ends[s.names.Webhooks()][0].Offset != 0 {
			t.Errorf("%v, %v", ends, err)
		}
	})
}

func TestWhatIsTooLargeForAWebhookIsLeftOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create(s.names.Webhooks(), 1)
		s.limit(s.names.Outcomes(), "4000000")
		s.publish(0, 1, webhook("https://h/x"))
		s.engine("a", runner(t, 1, func(context.Context, *worker.Attempt) worker.Result {
			return worker.Result{Outcome: task.Completed, Value: []byte(`"` + strings.Repeat("x", 1<<20) + `"`)}
		}))
		b := readWebhook(t, s.read(s.names.Webhooks(), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0])
		if p := b.Payload; string(p.Result) != "null" || !p.NoResult || p.Omitted || string(p.Content) != "0" {
			t.Errorf("%+v", b)
		}
	})
}

// An event that isn't in its format is rejected unrun; who asked for a webhook hears of it.
func TestAnEventOutOfItsFormatStillTellsItsWebhook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create(s.names.Webhooks(), 1)
		s.publish(0, 1, webhook("https://h/x"), kgo.RecordHeader{Key: "Content-Type", Value: []byte(event.ContentType)},
			kgo.RecordHeader{Key: task.HeaderErrorClass, Value: []byte("invalid_input")}, kgo.RecordHeader{Key: task.HeaderErrorMessage, Value: []byte("no envelope")})
		s.engine("a", runner(t, 1, ok))
		b := readWebhook(t, s.read(s.names.Webhooks(), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0])
		if p := b.Payload; p.Status != "failed" || p.Error != "no envelope" || !p.Omitted || p.TaskID != "event-0" {
			t.Errorf("%+v", b)
		}
	})
}

// The topic of webhooks may be gone: that holds what goes there, never the agent's other tasks, and runs nothing again.
func TestAWebhookThatCantBeWrittenHoldsOnlyItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.create("answers", 1)
		runs := make(chan struct{}, 1000)
		s.publish(0, 100)
		s.publish(100, 1, webhook("https://h/x"))
		s.publish(101, 1, replyTo("answers", webhook("https://h/x"))...)
		s.publish(102, 1, replyTo("answers")...)
		s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
			runs <- struct{}{}
			return ok(ctx, a)
		}))
		s.outcomes(101)
		s.read("answers", func(rs []*kgo.Record) bool { return len(rs) == 1 })
		s.create(s.names.Webhooks(), 1)
		s.read(s.names.Webhooks(), func(rs []*kgo.Record) bool { return len(rs) == 2 })
		for _, o := range s.outcomes(103) {
			if o.settled != "done" || o.attempt != 1 {
				t.Errorf("%+v", o)
			}
		}
		if len(runs) != 103 {
			t.Errorf("103 tasks ran %d times", len(runs))
		}
	})
}
