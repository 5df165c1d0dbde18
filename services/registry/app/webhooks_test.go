package app_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// giveUp puts webhooks of the first tasks on the topic of those that were given up, and gives their ids.
func (r *registry) giveUp(n int) (ids []string) {
	r.Helper()
	names := r.cfg.Kafka.Names()
	cl, err := kgo.NewClient(r.opts...)
	if err != nil {
		r.Fatal(err)
	}
	defer cl.Close()
	if err := kafka.EnsureTopics(r.Context(), cl, -1, kafka.WebhookDLQTopic(names)); err != nil {
		r.Fatal(err)
	}
	for i := range n {
		rec := &kgo.Record{Topic: names.WebhookDLQ(), Key: []byte("k"), Value: []byte("{}"), Headers: []kgo.RecordHeader{
			{Key: task.HeaderWebhook, Value: []byte("http://127.0.0.1:9/")}, {Key: task.HeaderAgent, Value: []byte("orders/a")}, {Key: task.HeaderOrigin, Value: fmt.Appendf(nil, "orders/0/%d/uuid", i)}}}
		r.produce(rec)
		ids = append(ids, route.WebhookID(rec))
	}
	r.waitFor("the client's view of the topics to be fresh", func() bool {
		return len(r.want(200, "GET", "/v1/webhooks/dlq", "")["items"].([]any)) == n
	})
	return ids
}

// settleWebhooks says that none is open.
func (r *registry) settleWebhooks(n int64) {
	r.Helper()
	names := r.cfg.Kafka.Names()
	var done kadm.Offsets
	done.AddOffset(names.WebhookDLQ(), 0, n, -1)
	if err := r.admin().CommitAllOffsets(r.Context(), names.WebhookDLQGroup(), done); err != nil {
		r.Fatal(err)
	}
	r.waitFor("none is open", func() bool { return len(r.want(200, "GET", "/v1/webhooks/dlq", "")["items"].([]any)) == 0 })
}

// tell puts a report on the status topic.
func (r *registry) tell(report any) {
	r.Helper()
	value, err := json.Marshal(report)
	if err != nil {
		r.Fatal(err)
	}
	r.produce(&kgo.Record{Topic: r.cfg.Kafka.Names().Status(), Key: []byte("k"), Value: value})
}

func TestAnOrderAboutWebhooksIsTakenBack(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.giveUp(3)
	path := func(o map[string]any) string { return fmt.Sprintf("/v1/webhooks/dlq/orders/%v", o["id"]) }
	taken, done := r.want(202, "POST", "/v1/webhooks/dlq/redrive", `{"all":true}`), r.want(202, "POST", "/v1/webhooks/dlq/purge", `{"all":true}`)
	for range 2 { // to ask twice is fine
		if o := r.want(202, "POST", path(taken)+"/cancel?reason=not+yet", ""); o["state"] != "accepted" || o["matched"] != 3.0 {
			t.Errorf("%v", o)
		}
	}
	if c := r.lastCommand(); c.Verb != command.CancelOrder || c.Order != taken["id"] || !c.OfWebhooks() || c.Cancelled() != "cancelled by admin: not yet" {
		t.Errorf("%+v", c)
	}
	for o, state := range map[*map[string]any]string{&taken: status.OrderCancelled, &done: status.OrderDone} {
		r.tell(status.DLQOrder{Event: status.EventDLQOrder, AgentName: command.Webhooks, ID: fmt.Sprint((*o)["id"]), Verb: fmt.Sprint((*o)["verb"]), State: state, Timestamp: status.Seconds(time.Now())})
		r.waitFor("its end", func() bool { return r.want(200, "GET", path(*o), "")["state"] == state })
	}
	if o := r.want(200, "POST", path(taken)+"/cancel", ""); o["state"] != status.OrderCancelled {
		t.Errorf("%v", o)
	}
	for of, want := range map[string]struct {
		status    int
		code, see string
	}{
		path(done):                         {409, "order_ended", "GET " + path(done)},
		"/v1/webhooks/dlq/orders/nonsense": {404, "not_found", "GET /v1/webhooks/dlq/orders"},
		"/v1/dlq/orders/a/orders/nonsense": {404, "not_found", "GET /v1/dlq/orders/a/orders"},
	} {
		got, p := r.do("POST", of+"/cancel", "")
		if got != want.status || p["code"] != want.code || !strings.Contains(fmt.Sprint(p["remediation"]), want.see) {
			t.Errorf("%s: %d %v, want %+v", of, got, p, want)
		}
	}
	if got, p := r.do("POST", path(done)+"/cancel?reason=two%0Alines", ""); got != 400 {
		t.Errorf("%d %v", got, p)
	}
}

// lastCommand is the last one that was issued.
func (r *registry) lastCommand() command.Command {
	r.Helper()
	topic := r.cfg.Kafka.Names().Commands()
	cl, err := kgo.NewClient(append(r.opts, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd().Relative(-1)))...)
	if err != nil {
		r.Fatal(err)
	}
	defer cl.Close()
	var c command.Command
	for c.ID == "" {
		fetched := cl.PollFetches(r.Context())
		if err := fetched.Err(); err != nil {
			r.Fatal(err)
		}
		for _, rec := range fetched.Records() {
			if c, err = command.Decode(rec); err != nil {
				r.Fatal(err)
			}
		}
	}
	return c
}

// Who clicks twice isn't told that there is no such webhook; who mistypes is.
func TestToNameAWebhookTwiceIsFine(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	ids := r.giveUp(3)
	r.want(202, "POST", "/v1/webhooks/dlq/redrive", fmt.Sprintf(`{"webhook_id":%q}`, ids[0]))
	r.settleWebhooks(3)
	r.tell(status.Webhook{Event: status.EventWebhook, Topic: "orders", AgentName: "a", Origin: "orders/0/1/uuid", ID: ids[1], State: "delivered", Attempts: 1, Timestamp: status.Seconds(time.Now())})
	for id, want := range map[string]int{ids[0]: 200, ids[1]: 200, ids[2]: 404, "msg_mistyped": 404} { // nothing is known of the third
		for _, verb := range []string{"redrive", "purge"} {
			r.waitFor(fmt.Sprintf("the answer %d to the %s of %s", want, verb, id), func() bool {
				got, o := r.do("POST", "/v1/webhooks/dlq/"+verb, fmt.Sprintf(`{"webhook_id":%q}`, id))
				return got == want && (want != 200 || o["state"] == "done" && o["matched"] == 0.0)
			})
		}
	}
}
