package app

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// post is webhooks that were given up: those to a receiver that is well again, and those to one that isn't.
type post struct {
	*world
	well, broken *receiver
	states       *reader
}

// openPost is one to which nothing has come.
func openPost(t *testing.T) *post {
	t.Helper()
	p := &post{world: webhookWorld(t)}
	p.cfg.Webhooks.Retries = []time.Duration{200 * time.Millisecond}
	p.create(kafka.CommandsTopic(p.names), kafka.StatusTopic(p.names), kafka.OutcomesTopic(p.names), kafka.WebhookDLQTopic(p.names))
	p.states = p.read(p.names.Status())
	return p
}

func newPost(t *testing.T, well, broken int) *post {
	t.Helper()
	p := openPost(t)
	p.well = newReceiver(t, nil)
	p.broken = newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusInternalServerError) })
	p.giveUp(p.well.URL+"/in", 0, well)
	p.giveUp(p.broken.URL, well, broken)
	p.start()
	return p
}

func (p *post) giveUp(url string, from, n int) {
	p.t.Helper()
	var rs []*kgo.Record
	for i := from; i < from+n; i++ {
		rs = append(rs, p.letter(url, i))
	}
	p.produce(rs...)
}

func (p *post) letter(url string, n int) *kgo.Record {
	origin := fmt.Sprintf("orders/0/%d", n)
	r := &kgo.Record{Topic: p.names.WebhookDLQ(), Key: []byte(origin), Value: []byte(`{"type":"task.completed"}`)}
	for _, h := range [][2]string{{task.HeaderWebhook, url}, {task.HeaderAgent, "orders/bill"}, {task.HeaderOrigin, origin + "/uuid"}, {task.HeaderErrorClass, "dependency"},
		{task.HeaderErrorMessage, "the endpoint answered 500"}, {task.HeaderAttempts, "2"}} {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return r
}

func (p *post) order(id string, verb command.Verb, dead command.Dead) {
	p.t.Helper()
	dlq := p.names.WebhookDLQ()
	ends, err := p.adm.ListCommittedOffsets(p.t.Context(), dlq)
	if err != nil {
		p.t.Fatal(err)
	}
	topics, err := p.adm.ListTopics(p.t.Context(), dlq)
	if err != nil {
		p.t.Fatal(err)
	}
	topicID := topics[dlq].ID
	dead.Ends, dead.TopicID = map[int32]int64{0: ends[dlq][0].Offset}, base64.RawURLEncoding.EncodeToString(topicID[:])
	r, err := command.Command{ID: id, Verb: verb, Agent: command.Webhooks, Actor: "ann", At: time.Now(), Expires: time.Now().Add(time.Hour), Dead: &dead}.Record(p.names)
	if err != nil {
		p.t.Fatal(err)
	}
	p.produce(r)
}

// ended waits for an order's end, or for that of any.
func (p *post) ended(id string) status.DLQOrder {
	p.t.Helper()
	for began := time.Now(); ; {
		for _, r := range p.states.next(1) {
			if time.Since(began) > time.Minute {
				p.t.Fatalf("waited in vain for the end of the order %s", id)
			}
			var o status.DLQOrder
			if json.Unmarshal(r.Value, &o) == nil && o.Event == status.EventDLQOrder && (id == "" || o.ID == id) && o.State != status.OrderRunning && o.State != status.OrderWaiting {
				if o.Topic != "" || o.AgentName != command.Webhooks {
					p.t.Errorf("%+v", o)
				}
				return o
			}
		}
	}
}

// tells checks how many webhooks' first tries are told of, by the order that sent them off.
func (p *post) tells(want map[string]int) {
	p.t.Helper()
	told, states := map[string]int{}, p.read(p.names.Status())
	for tries := 0; tries < 1+19+2*5; { // a second try is told without the order
		for _, r := range states.next(1) {
			var w status.Webhook
			if json.Unmarshal(r.Value, &w) != nil || w.Event != status.EventWebhook {
				continue
			}
			if tries++; w.Order != "" {
				told[w.Order]++
			}
		}
	}
	if !maps.Equal(told, want) {
		p.t.Errorf("%v", told)
	}
}

// Webhooks that were given up are sent off once more as what they were, and stop by themselves where their endpoint fails as
// before; one endpoint's failure stops no other's.
func TestWebhooksThatWereGivenUpAreRedrivenAndPurged(t *testing.T) {
	p := newPost(t, 20, 20)
	p.order("one", command.Redrive, command.Dead{Webhook: route.WebhookID(p.letter(p.well.URL, 7))})
	if o := p.ended("one"); o.State != status.OrderDone || o.Moved != 1 || o.Completed != 1 {
		t.Errorf("%+v", o)
	}
	p.order("all", command.Redrive, command.Dead{All: true})
	o := p.ended("all")
	if o.State != status.OrderStopped || o.Moved != 19+5 || o.Completed != 19 || o.CameBack != 5 || o.Kept != 15 || !strings.Contains(o.Reason, "5 of 5 redriven webhooks to "+p.broken.URL+" failed again") {
		t.Errorf("%+v", o)
	}
	p.tells(map[string]int{"one": 1, "all": 24})
	seen := p.well.seen()
	for n := range 20 {
		if id := route.WebhookID(p.letter(p.well.URL, n)); seen[id] != 1 {
			t.Errorf("%s came %d times", id, seen[id])
		}
	}
	again := map[string]*kgo.Record{}
	dead := p.read(p.names.WebhookDLQ())
	for len(again) < 5 { // those that failed again are given up again
		for _, r := range dead.next(1) {
			if times, _ := route.WebhookRedrives(r); times > 0 {
				again[route.WebhookID(r)] = r
			}
		}
	}
	for id, r := range again {
		if times, at := route.WebhookRedrives(r); times != 1 || time.Since(at) > time.Minute || route.Header(r, task.HeaderAttempts) != "4" || p.broken.seen()[id] != 2 {
			t.Errorf("%s was redriven %d times, at %s, tried %s times: it came %d times", id, times, at, route.Header(r, task.HeaderAttempts), p.broken.seen()[id])
		}
	}
	p.order("other", command.Purge, command.Dead{Endpoint: p.well.URL})
	if o := p.ended("other"); o.State != status.OrderDone || o.Moved != 0 {
		t.Errorf("%+v", o)
	}
	p.order("purge", command.Purge, command.Dead{Endpoint: p.broken.URL})
	if o := p.ended("purge"); o.State != status.OrderDone || o.Moved != 20 {
		t.Errorf("%+v", o)
	}
	p.until("Kafka's tools show no lag", func() bool { return p.lag(p.names.WebhookDLQGroup(), p.names.WebhookDLQ()) == 0 })
	p.until("they are deleted", func() bool {
		starts, err := p.adm.ListStartOffsets(t.Context(), p.names.WebhookDLQ())
		return err == nil && starts[p.names.WebhookDLQ()][0].Offset >= 40
	})
}

// What waits for an endpoint that doesn't answer stays where it is once the order is taken back.
func TestARedriveOfWebhooksIsTakenBack(t *testing.T) {
	p := openPost(t)
	p.cfg.Webhooks.Timeout = time.Minute
	answer := make(chan struct{})
	defer close(answer)
	slow := newReceiver(t, func(http.ResponseWriter, *http.Request, int) { <-answer })
	p.giveUp(slow.URL, 0, 10)
	p.start()
	p.order("1", command.Redrive, command.Dead{All: true})
	slow.await(t, 1, time.Minute)
	for _, id := range []string{"1", "of which nobody has heard"} {
		r, err := command.Command{ID: "cancel " + id, Verb: command.CancelOrder, Order: id, Agent: command.Webhooks, Actor: "ann", Reason: "not yet", At: time.Now(), Expires: time.Now().Add(time.Hour)}.Record(p.names)
		if err != nil {
			t.Fatal(err)
		}
		p.produce(r)
	}
	moved := map[string]int64{"1": 1, "of which nobody has heard": 0}
	for range moved {
		o := p.ended("")
		if n, known := moved[o.ID]; !known || o.State != status.OrderCancelled || o.Moved != n || o.Reason != "cancelled by ann: not yet" {
			t.Errorf("%+v", o)
		}
	}
	p.until("the others are open", func() bool { return p.lag(p.names.WebhookDLQGroup(), p.names.WebhookDLQ()) == 9 })
}
