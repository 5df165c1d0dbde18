package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/task"
)

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// hook is a webhook as its receiver read it.
type hook struct {
	Type    string
	Payload struct {
		Task     string         `json:"task"`
		TaskID   string         `json:"task_id"`
		Topic    string         `json:"topic"`
		Agent    string         `json:"agent"`
		Runner   string         `json:"runner_id"`
		Status   string         `json:"status"`
		Result   map[string]any `json:"result"`
		Error    string         `json:"error"`
		Kind     string         `json:"error_type"`
		Tenant   string         `json:"tenant_id"`
		Related  string         `json:"correlation_id"`
		Content  any            `json:"content"`
		Attempts int            `json:"delivery_attempts"`
	}
}

// hooks is an endpoint that verifies and remembers what it was sent.
type hooks struct {
	*httptest.Server
	mu       sync.Mutex
	taken    map[string]int // successes, by task
	ids      map[string]string
	byID     map[string]hook // by event
	failures []string
}

// serveHooks makes an endpoint that refuses the tries that refuse says.
func serveHooks(t *testing.T, refuse func(n int) bool) *hooks {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	h := &hooks{taken: map[string]int{}, ids: map[string]string{}, byID: map[string]hook{}}
	n := 0
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var got hook
		h.mu.Lock()
		defer h.mu.Unlock()
		if err := verifier.Verify(body, r.Header); err != nil {
			h.failures = append(h.failures, err.Error())
		}
		if err := json.Unmarshal(body, &got); err != nil {
			h.failures = append(h.failures, err.Error())
		}
		id := r.Header.Get("webhook-id")
		if before := h.ids[got.Payload.Task]; before != "" && before != id {
			h.failures = append(h.failures, got.Payload.Task+" has two ids")
		}
		h.ids[got.Payload.Task] = id
		if n++; refuse(n) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		h.taken[got.Payload.Task]++
		h.byID[got.Payload.TaskID] = got
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hooks) count() (tasks, repeats int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.taken {
		tasks++
		repeats += n - 1
	}
	return tasks, repeats
}

// id is the webhook-id that came with a task's.
func (h *hooks) id(task string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ids[task]
}

func (h *hooks) event(id string) (hook, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	got, ok := h.byID[id]
	return got, ok
}

// withWebhooks lets dispatchers reach this machine, sign, and try again soon.
func withWebhooks(t *testing.T, sys *harness.System) {
	t.Helper()
	secrets := filepath.Join(sys.Dir, "secrets.yaml")
	if err := os.WriteFile(secrets, []byte("127.0.0.1: "+webhookSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sys.Env = append(sys.Env, "REEVE_WEBHOOK_ALLOW=127.0.0.0/8", "REEVE_WEBHOOK_RETRIES=1s,1s,1s,2s,2s,2s", "REEVE_WEBHOOK_SECRETS="+secrets)
}

// Dispatchers are killed while they deliver: every webhook arrives, signed, and what arrives twice was in flight.
func TestKilledDispatchersLoseNoWebhook(t *testing.T) {
	t.Parallel()
	needPython(t)
	sys := system(t, testenv.Kafka(t), testenv.Prefix(t))
	withWebhooks(t, sys)
	const tasks, kills, inFlight = 1500, 3, 8
	h := serveHooks(t, func(n int) bool { <-time.After(10 * time.Millisecond); return n%10 == 3 })
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	ps := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var records []*kgo.Record
	for i := range tasks {
		records = append(records, &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, `{"n": %d}`, i), Headers: []kgo.RecordHeader{{Key: task.HeaderWebhook, Value: []byte(h.URL + "/in")}}})
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	d := ps[1]
	for n := range kills {
		eventually(t, time.Minute, func() string {
			if got, _ := h.count(); got < (n+1)*tasks/(kills+2) {
				return fmt.Sprintf("%d webhooks arrived", got)
			}
			return ""
		})
		if err := d.End(); err != nil {
			t.Fatal(err)
		}
		d = start(t, sys, "dispatcher.d0")[0]
	}
	eventually(t, 2*time.Minute, func() string {
		if got, _ := h.count(); got < tasks {
			return fmt.Sprintf("%d webhooks of %d arrived", got, tasks)
		}
		return ""
	})
	// Repeated is what was in flight, and what was answered and not committed yet, which is bounded however slow commits are.
	_, repeats := h.count()
	if repeats > kills*3*inFlight {
		t.Errorf("%d webhooks arrived again after %d kills", repeats, kills)
	}
	t.Logf("%d repeats after %d kills", repeats, kills)
	for _, failure := range h.failures {
		t.Error(failure)
	}
	o := task.Origin{Topic: topic, Partition: records[7].Partition, Offset: records[7].Offset}
	eventually(t, time.Minute, func() string {
		var detail struct{ Webhook map[string]any }
		if err := sys.Call(t.Context(), http.MethodGet, fmt.Sprintf("/v1/tasks/%s/stock/%d/%d", topic, o.Partition, o.Offset), nil, &detail); err != nil {
			return err.Error()
		}
		if w := detail.Webhook; w["state"] != "delivered" || w["endpoint"] != h.URL || w["status_code"] != 200.0 {
			return fmt.Sprintf("%v", w)
		}
		return ""
	})
}

// What a client of OmniDaemon's /publish-tasks gets to hear: by webhook and by reply, of a success and of a failure. An
// agent that listens to the reply topic gets the reply as any event.
func TestOmniDaemonsWebhookAndReply(t *testing.T) {
	needPython(t)
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		withWebhooks(t, sys)
		h := serveHooks(t, func(int) bool { return false })
		o := omni{t, sys, sys.Prefix + "-in"}
		answers := sys.Prefix + "-answers"
		for _, topic := range []string{o.topic, answers} {
			if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, nil); err != nil {
				t.Fatal(err)
			}
		}
		start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
		registerStock(t, sys, o.topic)
		if err := sys.Register(t.Context(), map[string]any{"topic": answers, "name": "reader", "runtime": "command", "dir": "stock", "command": []string{"python3", "adapter.py"}}); err != nil {
			t.Fatal(err)
		}
		publish := func(id, do, replyTo string) {
			o.do("POST", "/publish-tasks", map[string]any{"id": id, "topic": o.topic, "correlation_id": "c-" + id, "tenant_id": "acme",
				"payload": map[string]any{"content": map[string]any{"do": do}, "webhook": h.URL + "/hook?x=1", "reply_to": replyTo}}, nil)
		}
		publish("good", "work", answers)
		publish("bad", "fail", answers)
		publish("lost", "work", sys.Prefix+"-nowhere")
		publish("loop", "work", o.topic)
		for _, id := range []string{"good", "bad", "lost", "loop"} {
			eventually(t, time.Minute, func() string {
				if _, ok := h.event(id); !ok {
					return "no webhook of " + id
				}
				return ""
			})
		}
		good, _ := h.event("good")
		if p := good.Payload; good.Type != "task.completed" || p.Status != "completed" || p.Topic != o.topic || p.Agent != "stock" || p.Runner != "s0" || p.Result["task_id"] != "good" ||
			p.Tenant != "acme" || p.Related != "c-good" || p.Attempts != 1 || fmt.Sprint(p.Content) != "map[do:work]" {
			t.Errorf("%+v", good)
		}
		bad, _ := h.event("bad")
		if p := bad.Payload; bad.Type != "task.failed" || p.Status != "failed" || p.Error != "it always fails" || p.Kind == "" || p.Attempts != 2 {
			t.Errorf("%+v", bad)
		}
		// The stock agent answers with the payload that it got: that of the reply.
		for id, content := range map[string]string{"good": "good", "bad": "it always fails"} {
			get(o, "/v1/tasks?agent="+answers+"/reader&correlation_id=c-"+id, func(l struct{ Items []map[string]any }) bool {
				return len(l.Items) == 1 && l.Items[0]["status"] == "completed"
			})
			list := get(o, "/v1/tasks?agent="+answers+"/reader&correlation_id=c-"+id, func(l struct{ Items []map[string]any }) bool { return len(l.Items) == 1 })
			detail := get(o, fmt.Sprintf("/v1/tasks/%s/reader/%v/%v", answers, list.Items[0]["partition"], list.Items[0]["offset"]), func(d map[string]any) bool { return d["result"] != nil })
			result := detail["result"].(map[string]any)
			inner, _ := result["content"].(map[string]any)
			if result["causation_id"] != id || result["webhook"] != nil || result["reply_to"] != nil || result["tenant_id"] != "acme" || result["source"] != o.topic+"/stock" ||
				inner["task_id"] != content && inner["error"] != content {
				t.Errorf("the agent got the reply to %s as %v", id, result)
			}
		}
		for offset, reason := range map[int]string{2: "the topic doesn't exist", 3: "the topic is the agent's own: the reply would be its next event"} {
			d := get(o, fmt.Sprintf("/v1/tasks/%s/stock/0/%d", o.topic, offset), func(d map[string]any) bool { return d["status"] == "completed" })
			if d["reply"] != "reply_undeliverable" || d["reply_reason"] != reason || d["attempts"] != 1.0 {
				t.Errorf("offset %d: %v", offset, d)
			}
		}
		for _, wrong := range []string{"ftp://h/", "https://user:pw@h/", "nonsense"} {
			var status *harness.StatusError
			err := sys.Call(t.Context(), http.MethodPost, "/publish-tasks", map[string]any{"topic": o.topic, "payload": map[string]any{"content": 1, "webhook": wrong}}, nil)
			if !errors.As(err, &status) || status.Code != http.StatusUnprocessableEntity {
				t.Errorf("%s: %v", wrong, err)
			}
		}
	})
}

// Webhooks that were given up are listed, counted by their endpoint, and redriven: as the same webhooks, signed anew, each
// once. While their endpoint fails as before a redrive stops by itself; a purge deletes what it names.
func TestWebhooksThatWereGivenUpAreRedriven(t *testing.T) {
	needPython(t)
	onEachKafka(t, redrivenWebhooks)
}

func redrivenWebhooks(t *testing.T, sys *harness.System) {
	withWebhooks(t, sys)
	sys.Env = append(sys.Env, "REEVE_WEBHOOK_RETRIES=none")
	var broken atomic.Bool
	broken.Store(true)
	h := serveHooks(t, func(int) bool { return broken.Load() })
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)
	o := omni{t, sys, topic}
	type list struct {
		Items []struct {
			ID       string `json:"webhook_id"`
			Endpoint string
			Task     string
			Agent    string
			Attempts int
			Redrives int
			Count    int
		}
	}
	if none := get(o, "/v1/webhooks/dlq", func(list) bool { return true }); len(none.Items) != 0 {
		t.Errorf("before the first: %+v", none)
	}
	// An endpoint that failed five times in a row is tried by one webhook at a time: so there are five, one that it takes, and
	// five more.
	const many = 10
	publish := func(n int) {
		for range n {
			o.do("POST", "/publish-tasks", map[string]any{"topic": topic, "payload": map[string]any{"content": 1, "webhook": h.URL + "/in?secret=x"}}, nil)
		}
	}
	publish(many / 2)
	get(o, "/v1/webhooks/dlq", func(l list) bool { return len(l.Items) == many/2 })
	broken.Store(false)
	publish(1)
	eventually(t, time.Minute, func() string { n, _ := h.count(); return differ(n, 1) })
	broken.Store(true)
	publish(many / 2)
	dead := get(o, "/v1/webhooks/dlq", func(l list) bool { return len(l.Items) == many })
	for _, w := range dead.Items {
		if w.Endpoint != h.URL || w.Agent != topic+"/stock" || w.Attempts != 1 || w.ID != h.id(w.Task) {
			t.Errorf("%+v, and the endpoint knows it as %s", w, h.id(w.Task))
		}
	}
	if got := get(o, "/v1/webhooks/dlq?page_size=5&endpoint="+h.URL, func(list) bool { return true }); len(got.Items) != 5 {
		t.Errorf("a page of %d", len(got.Items))
	}
	if got := get(o, "/v1/webhooks/dlq/endpoints", func(list) bool { return true }); len(got.Items) != 1 || got.Items[0].Count != many {
		t.Errorf("%+v", got)
	}
	one, gone := dead.Items[3].ID, dead.Items[4].ID
	detail := get(o, "/v1/webhooks/dlq/"+one, func(d map[string]any) bool { return true })
	if body, _ := detail["body"].(string); !strings.Contains(body, `"type":"task.completed"`) || !strings.Contains(fmt.Sprint(detail["headers"]), "secret=x") {
		t.Errorf("%v", detail)
	}
	order := func(verb string, what map[string]any, state string) (got order) {
		t.Helper()
		var answer map[string]any
		call(t, sys, http.MethodPost, "/v1/webhooks/dlq/"+verb, what, &answer)
		if got.read(answer); got.State == state {
			return got
		}
		answer = get(o, "/v1/webhooks/dlq/orders/"+got.ID, func(a map[string]any) bool { return a["state"] == state })
		got.read(answer)
		return got
	}
	if got := order("redrive", map[string]any{"all": true, "dry_run": true}, "dry_run"); got.Matched != many {
		t.Errorf("%+v", got)
	}
	if got := order("redrive", map[string]any{"endpoint": h.URL}, "stopped"); got.Moved != 5 || got.CameBack != 5 || got.Kept != many-5 || !strings.Contains(got.Reason, "5 of 5 redriven webhooks to "+h.URL+" failed again") {
		t.Errorf("while it fails: %+v", got)
	}
	get(o, "/v1/webhooks/dlq", func(l list) bool {
		redriven := 0
		for _, w := range l.Items {
			redriven += w.Redrives * w.Attempts
		}
		return len(l.Items) == many && redriven == 5*2
	})
	broken.Store(false)
	if got := order("redrive", map[string]any{"webhook_id": one}, "done"); got.Moved != 1 || got.Completed != 1 {
		t.Errorf("%+v", got)
	}
	if got := order("redrive", map[string]any{"webhook_id": one}, "done"); got.Moved != 0 || got.Matched != 0 {
		t.Errorf("the second time: %+v", got)
	}
	for what, code := range map[string]int{`{"webhook_id":"msg_nobody"}`: http.StatusNotFound, `{}`: http.StatusBadRequest, `{"all":true,"endpoint":"x"}`: http.StatusBadRequest} {
		if err := sys.Call(t.Context(), http.MethodPost, "/v1/webhooks/dlq/redrive", json.RawMessage(what), nil); !isStatus(err, code) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := order("purge", map[string]any{"webhook_id": gone}, "done"); got.Moved != 1 {
		t.Errorf("%+v", got)
	}
	if got := order("redrive", map[string]any{"all": true}, "done"); got.Moved != many-2 || got.Completed != many-2 {
		t.Errorf("%+v", got)
	}
	get(o, "/v1/webhooks/dlq", func(l list) bool { return len(l.Items) == 0 })
	if tasks, repeats := h.count(); tasks != 1+many-1 || repeats != 0 {
		t.Errorf("%d webhooks were delivered, %d of them twice", tasks, repeats)
	}
	// The history tells what became of each. Where the letters stand among each other is chance, and so whose was purged.
	for _, w := range dead.Items {
		state := "delivered"
		if w.ID == gone {
			state = "failed"
		}
		get(o, "/v1/tasks/"+topic+"/stock"+strings.TrimPrefix(w.Task, topic), func(d struct{ Webhook struct{ State string } }) bool { return d.Webhook.State == state })
	}
	for _, failure := range h.failures {
		t.Error(failure)
	}
}
