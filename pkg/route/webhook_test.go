package route

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

func givenUp(headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: "reeve.dlq.webhooks", Partition: 0, Offset: 9, Key: []byte("orders/0/17"), Value: []byte(`{"type":"task.completed"}`)}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestARedrivenWebhookIsTheSameOneWithAllItsTries(t *testing.T) {
	dead := givenUp(task.HeaderWebhook, "https://Hooks.example.com/in?token=s", task.HeaderAgent, "orders/bill", task.HeaderOrigin, "orders/0/17/uuid", task.HeaderRedrives, "2",
		task.HeaderAttempt, "7", task.HeaderDeferred, "3", task.HeaderNotBefore, "1", task.HeaderErrorClass, "network", task.HeaderErrorMessage, "m", task.HeaderErrorFingerprint, "f",
		task.HeaderFirstFailedAt, "a", task.HeaderLastFailedAt, "b", task.HeaderAttempts, "7", "traceparent", "00-1")
	id := WebhookID(dead)
	now := time.UnixMilli(1_700_000_000_123)
	again := RedriveWebhook(topics.Names{}, dead, "1", now)
	if again.Topic != "reeve.webhooks" || string(again.Key) != "orders/0/17" || string(again.Value) != string(dead.Value) || WebhookID(again) != id {
		t.Errorf("%+v", again)
	}
	if got := len(again.Headers); got != 8 || Header(again, task.HeaderOrder) != "1" { // webhook, agent, origin, redrives, attempts, traceparent, redriven, order
		t.Errorf("%d headers are left: %v", got, again.Headers)
	}
	if u, endpoint, err := WebhookURL(again); err != nil || endpoint != "https://hooks.example.com:443" || u.RawQuery != "token=s" || WebhookTries(again) != 7 || Header(again, task.HeaderAttempt) != "" {
		t.Errorf("%s, %v, %d tries before", endpoint, err, WebhookTries(again))
	}
	if times, last := WebhookRedrives(again); times != 1 || !last.Equal(now) {
		t.Errorf("%d, %s", times, last)
	}
	third := RedriveWebhook(topics.Names{}, RedriveWebhook(topics.Names{}, again, "2", now), "3", now.Add(time.Second))
	if times, last := WebhookRedrives(third); times != 3 || !last.Equal(now.Add(time.Second)) || len(third.Headers) != len(again.Headers) || Header(third, task.HeaderOrder) != "3" {
		t.Errorf("%d, %s: %v", times, last, third.Headers)
	}
	next := givenUp(task.HeaderAgent, "orders/bill", task.HeaderOrigin, "orders/0/17/uuid", task.HeaderRedrives, "3")
	if WebhookID(next) == id {
		t.Error("the task's next round has the same id")
	}
}

func TestHeadersOfAWebhookThatSayNothing(t *testing.T) {
	for _, r := range []*kgo.Record{givenUp(), givenUp(task.HeaderWebhookRedriven, "x 1", task.HeaderAttempts, "x", task.HeaderWebhook, "ftp://x"),
		givenUp(task.HeaderWebhookRedriven, "-1 1", task.HeaderAttempts, "-1", task.HeaderWebhook, "http://u:p@x/")} {
		times, last := WebhookRedrives(r)
		_, endpoint, err := WebhookURL(r)
		if times != 0 || !last.IsZero() || WebhookTries(r) != 0 || endpoint != NoEndpoint || err == nil {
			t.Errorf("%v: %d, %s, %d, %s, %v", r.Headers, times, last, WebhookTries(r), endpoint, err)
		}
	}
}
