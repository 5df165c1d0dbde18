package redrive

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

func record(headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: "reeve.dlq.orders.bill", Value: []byte("v")}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestHowARedrivenTaskEnded(t *testing.T) {
	outcome := func(final, settled, class, message string) *kgo.Record {
		return record(task.HeaderFinal, final, task.HeaderSettled, settled, task.HeaderErrorClass, class, task.HeaderErrorMessage, message)
	}
	cause := worker.Fingerprint(task.ClassNetwork, "host 17 is gone", "")
	for name, c := range map[string]struct {
		record *kgo.Record
		how    end
		ok     bool
	}{
		"a retry is no end":               {outcome("false", "retry", "network", "host 18 is gone"), 0, false},
		"completed":                       {outcome("true", "done", "", ""), completed, true},
		"cancelled":                       {outcome("true", "dropped", "", ""), gone, true},
		"the failure that it had":         {outcome("true", "dlq", "network", "host 18 is gone"), same, true},
		"the same where no DLQ is wanted": {outcome("true", "failed", "network", "host 18 is gone"), same, true},
		"another message":                 {outcome("true", "dlq", "network", "no route"), other, true},
		"another class":                   {outcome("true", "dlq", "internal", "host 17 is gone"), other, true},
	} {
		if how, ok := endOf(c.record, cause); how != c.how || ok != c.ok {
			t.Errorf("%s: %v, %v", name, how, ok)
		}
	}
}

// A webhook that fails is tried on for most of a day: its first try has to say whether its endpoint is well again.
func TestTheFirstTryOfARedrivenWebhookSaysHowItEnded(t *testing.T) {
	const before = 7
	for name, c := range map[string]struct {
		told status.Webhook
		how  end
		ok   bool
	}{
		"delivered":                      {status.Webhook{State: "delivered", Attempts: 8}, completed, true},
		"it failed, and is tried again":  {status.Webhook{State: "retrying", Attempts: 8}, same, true},
		"it is given up once more":       {status.Webhook{State: "failed", Attempts: 8}, same, true},
		"it can't be tried at all":       {status.Webhook{State: "failed", Attempts: 7}, same, true},
		"told of a try from long before": {status.Webhook{State: "retrying", Attempts: 6}, 0, false},
	} {
		if how, ok := endOfTry(c.told, before); how != c.how || ok != c.ok {
			t.Errorf("%s: %v, %v", name, how, ok)
		}
	}
}

func TestWebhooksAreOfOneFailureByTheirEndpoint(t *testing.T) {
	e := targetOf(&Config{}, "/webhooks")
	causes := map[string]bool{}
	for _, text := range []string{"network", "dependency"} {
		l := &letter{record: record(task.HeaderWebhook, "https://h/in?a=1", task.HeaderErrorClass, text, task.HeaderErrorMessage, text, task.HeaderAttempts, "3")}
		e.read(l)
		causes[l.cause] = true
		if !strings.HasPrefix(l.id, "msg_") || l.round != 3 {
			t.Errorf("%+v", l)
		}
	}
	if len(causes) != 1 || !causes["https://h:443"] {
		t.Errorf("%v", causes)
	}
	p := &Pace{}
	for range hopeless {
		p.Move()
		p.End(same)
	}
	if why := e.reason(p, "https://h:443", "network: refused"); !strings.Contains(why, "5 of 5 redriven webhooks to https://h:443 failed again") {
		t.Errorf("%q", why)
	}
}

// The agent's spec may change while letters are held: each is judged by the gate as it is when its turn comes.
func TestALetterIsTakenByTheAgentAsItIsNow(t *testing.T) {
	accepting := func(accepts ...string) *spec.Agent {
		return &spec.Agent{Topic: "orders", Name: "bill", Routing: spec.Routing{Accepts: accepts}}
	}
	now, gates := accepting("small"), 0
	a := targetOf(&Config{Agent: func(string) *spec.Agent { return now }, Gate: func(a *spec.Agent) (*route.Gate, error) {
		gates++
		return route.NewGate(a, nil)
	}}, "orders/bill")
	l := &letter{record: record(task.HeaderAgent, "orders/bill", task.HeaderOrigin, "orders/0/1", task.HeaderType, "big")}
	broken := &letter{record: record("content-type", "application/cloudevents+json", task.HeaderOrigin, "orders/0/2")}
	takes := func(want, brokenToo bool) {
		t.Helper()
		for range 3 {
			if a.takesIt(l) != want || a.takesIt(broken) != brokenToo {
				t.Errorf("an agent that accepts %v: %v, %v", now.Accepts, l.taken, broken.taken)
			}
		}
	}
	takes(false, false)
	now = accepting("b*")
	takes(true, false)
	now = accepting()
	takes(true, false)
	now = accepting("small")
	takes(false, false)
	if gates != 4 {
		t.Errorf("%d gates were made", gates)
	}
	now = nil // the agent is gone: the order ends for that
	takes(true, true)
}
