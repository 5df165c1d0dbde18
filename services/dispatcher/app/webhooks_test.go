package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// receiver is an endpoint that remembers what it was sent.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	ids  map[string]int // by webhook-id
	last http.Header
	news chan struct{}
}

func newReceiver(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, try int)) *receiver {
	t.Helper()
	rc := &receiver{ids: map[string]int{}, news: make(chan struct{}, 100_000)}
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		rc.mu.Lock()
		rc.ids[r.Header.Get("webhook-id")]++
		try := rc.ids[r.Header.Get("webhook-id")]
		rc.last = r.Header
		rc.mu.Unlock()
		rc.news <- struct{}{}
		if answer != nil {
			answer(w, r, try)
		}
	}))
	t.Cleanup(func() { rc.CloseClientConnections(); rc.Close() })
	return rc
}

// await waits for n webhooks, repeats included.
func (rc *receiver) await(t *testing.T, n int, limit time.Duration) {
	t.Helper()
	end := time.After(limit)
	for got := range n {
		select {
		case <-rc.news:
		case <-end:
			t.Fatalf("%d webhooks of %d in %s", got, n, limit)
		}
	}
}

func (rc *receiver) seen() map[string]int {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	out := map[string]int{}
	for id, n := range rc.ids {
		out[id] = n
	}
	return out
}

// webhookWorld is a world whose dispatchers may reach this machine.
func webhookWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.cfg.Webhooks.Allow = []string{"127.0.0.1"}
	w.cfg.Webhooks.Retries = []time.Duration{200 * time.Millisecond, 300 * time.Millisecond}
	w.cfg.Webhooks.Timeout = 500 * time.Millisecond
	w.create(kafka.WebhooksTopic(w.names))
	return w
}

// hand puts webhooks on their topic, as a worker does.
func (w *world) hand(url string, from, n int) {
	w.t.Helper()
	var rs []*kgo.Record
	for i := from; i < from+n; i++ {
		origin := fmt.Sprintf("orders/0/%d", i)
		rs = append(rs, &kgo.Record{Topic: w.names.Webhooks(), Key: []byte(origin), Value: []byte(`{"type":"task.completed"}`), Headers: []kgo.RecordHeader{
			{Key: task.HeaderWebhook, Value: []byte(url)}, {Key: task.HeaderAgent, Value: []byte("orders/bill")}, {Key: task.HeaderOrigin, Value: []byte(origin + "/uuid")}}})
	}
	w.produce(rs...)
}

// told waits for what the status topic tells of n tries.
func (w *world) told(n int) []status.Webhook {
	w.t.Helper()
	r := w.read(w.names.Status())
	defer r.cl.Close()
	var out []status.Webhook
	for len(out) < n {
		for _, rec := range r.next(1) {
			var s status.Webhook
			if json.Unmarshal(rec.Value, &s) == nil && s.Event == status.EventWebhook {
				out = append(out, s)
			}
		}
	}
	return out
}

func TestAWebhookIsDeliveredOnceAndToldOf(t *testing.T) {
	t.Parallel()
	w := webhookWorld(t)
	rc := newReceiver(t, nil)
	w.start()
	w.hand(rc.URL+"/in?token=secret", 0, 50)
	rc.await(t, 50, time.Minute)
	for _, s := range w.told(50) {
		if s.State != "delivered" || s.Attempts != 1 || s.StatusCode != 200 || s.Endpoint != rc.URL || s.AgentName != "bill" || s.Topic != "orders" {
			t.Errorf("%+v", s)
		}
	}
	if n := len(rc.seen()); n != 50 {
		t.Errorf("%d ids", n)
	}
}

func TestAWebhookThatFailsIsTriedAgainAndGivenUpInTheEnd(t *testing.T) {
	t.Parallel()
	w := webhookWorld(t)
	flaky := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, try int) {
		if try < 3 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	broken := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusInternalServerError) })
	gone := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusGone) })
	w.start()
	w.hand(flaky.URL, 0, 1)
	w.hand(broken.URL, 1, 1)
	w.hand(gone.URL, 2, 1)
	w.hand("http://169.254.169.254/latest/meta-data/", 3, 1)
	w.hand("http://user:pw@127.0.0.1/", 4, 1)
	flaky.await(t, 3, time.Minute)
	broken.await(t, 3, time.Minute)
	gone.await(t, 1, time.Minute)
	dead := map[string]*kgo.Record{}
	for _, r := range w.read(w.names.WebhookDLQ()).next(4) {
		dead[string(r.Key)] = r
	}
	for origin, want := range map[string][2]string{"orders/0/1": {"dependency", "3"}, "orders/0/2": {"permanent", "1"}, "orders/0/3": {"permanent", "1"}, "orders/0/4": {"invalid_input", "0"}} {
		r := dead[origin]
		if r == nil || route.Header(r, task.HeaderErrorClass) != want[0] || route.Header(r, task.HeaderAttempts) != want[1] || string(r.Value) != `{"type":"task.completed"}` ||
			route.Header(r, task.HeaderErrorFingerprint) == "" || route.Header(r, task.HeaderFirstFailedAt) == "" || route.Header(r, task.HeaderAgent) != "orders/bill" {
			t.Errorf("%s: %+v", origin, r)
		}
	}
	states := map[string]string{}
	for _, s := range w.told(3 + 3 + 3) {
		states[s.Origin] += fmt.Sprintf("%s %d,", s.State, s.Attempts)
	}
	for origin, want := range map[string]string{"orders/0/0/uuid": "retrying 1,retrying 2,delivered 3,", "orders/0/1/uuid": "retrying 1,retrying 2,failed 3,", "orders/0/2/uuid": "failed 1,"} {
		if states[origin] != want {
			t.Errorf("%s: %s", origin, states[origin])
		}
	}
}

func TestAnEndpointIsLeftAloneForAsLongAsItAsks(t *testing.T) {
	t.Parallel()
	w := webhookWorld(t)
	var mu sync.Mutex
	var at []time.Time
	rc := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, try int) {
		mu.Lock()
		at = append(at, time.Now())
		mu.Unlock()
		if try == 1 {
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	w.start()
	w.hand(rc.URL, 0, 1)
	rc.await(t, 2, time.Minute)
	mu.Lock()
	defer mu.Unlock()
	if waited := at[1].Sub(at[0]); waited < 1800*time.Millisecond {
		t.Errorf("it came again after %s", waited)
	}
}

// An endpoint that answers nobody in time holds up what goes to it, and nothing else.
func TestADeadEndpointDelaysNoOther(t *testing.T) {
	t.Parallel()
	w := webhookWorld(t)
	hold := make(chan struct{})
	defer close(hold)
	dead := newReceiver(t, func(http.ResponseWriter, *http.Request, int) { <-hold })
	alive := newReceiver(t, nil)
	w.start()
	w.hand(dead.URL, 0, 20_000) // more than the window of all partitions' share
	w.hand(alive.URL, 20_000, 200)
	alive.await(t, 200, 60*time.Second)
	if n := len(alive.seen()); n != 200 {
		t.Errorf("%d ids", n)
	}
}

// A task may end without a worker: its webhook hears of that as well.
func TestATaskThatADispatcherSettlesTellsItsWebhook(t *testing.T) {
	t.Parallel()
	w := webhookWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	bodies := make(chan string, 10)
	rc := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
	}))
	defer rc.Close()
	gone := agent("orders", "gone")
	gone.Phase, gone.CleanUp = spec.Terminated, true
	w.desire(gone)
	w.start()
	r := retry(gone, "v")
	r.Topic = w.names.Retry(w.cfg.Kafka.RetryTiers[0])
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: task.HeaderWebhook, Value: []byte(rc.URL)})
	w.produce(r)
	if got := w.read(w.names.Outcomes()).next(1)[0]; route.Header(got, task.HeaderWebhookState) != task.WebhookPending {
		t.Errorf("%+v", got)
	}
	select {
	case body := <-bodies:
		for _, says := range []string{`"type":"task.discarded"`, `"task":"orders/0/7"`, `"error":"the agent orders/gone was deleted"`, `"agent":"gone"`} {
			if !strings.Contains(body, says) {
				t.Errorf("%s doesn't say %s", body, says)
			}
		}
	case <-time.After(time.Minute):
		t.Error("no webhook")
	}
}

// So does that of an event which its agent refuses: the task ends before it is dispatched.
func TestATaskThatIsRejectedBeforeItIsDispatchedTellsItsWebhook(t *testing.T) {
	t.Parallel()
	w := webhookWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	a := agent("orders", "bill")
	a.Accepts, a.OnIncompatible = []string{"big"}, spec.OnIncompatibleReject
	w.desire(a)
	rc := newReceiver(t, nil)
	w.start()
	header := func(kind string) []kgo.RecordHeader {
		return []kgo.RecordHeader{{Key: task.HeaderType, Value: []byte(kind)}, {Key: task.HeaderWebhook, Value: []byte(rc.URL)}}
	}
	w.produce(&kgo.Record{Topic: "orders", Value: []byte("1"), Headers: header("big")}, &kgo.Record{Topic: "orders", Value: []byte("2"), Headers: header("small")})
	got := w.read(w.names.Outcomes()).next(1)[0]
	if route.Header(got, task.HeaderOutcome) != string(task.Rejected) || route.Header(got, task.HeaderWebhookState) != task.WebhookPending {
		t.Errorf("%+v", got)
	}
	rc.await(t, 1, time.Minute)
	if told := w.told(1)[0]; told.Origin != route.Header(got, task.HeaderOrigin) || told.AgentName != "bill" {
		t.Errorf("%+v", told)
	}
}

// What was settled before a restart, in whatever order, isn't sent again after it.
func TestARestartRepeatsAtMostWhatWasInFlight(t *testing.T) {
	t.Parallel()
	w := webhookWorld(t)
	hold := make(chan struct{})
	slow := newReceiver(t, func(_ http.ResponseWriter, r *http.Request, _ int) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	quick := newReceiver(t, nil)
	w.cfg.Webhooks.Timeout = 30 * time.Second
	stop := w.start()
	w.hand(slow.URL, 0, 4) // they hold the lowest offsets
	slow.await(t, 4, time.Minute)
	w.hand(quick.URL, 4, 500)
	quick.await(t, 500, time.Minute)
	w.told(500)
	if err := stop(); err != nil { // the four are cut off
		t.Fatal(err)
	}
	close(hold)
	w.start()
	slow.await(t, 4, time.Minute)
	w.told(504)
	for id, n := range quick.seen() {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	w.settledWebhooks()
}

// settledWebhooks waits until outside tools see no lag on the topic of webhooks.
func (w *world) settledWebhooks() {
	w.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for {
		ends, err := w.adm.ListEndOffsets(w.t.Context(), w.names.Webhooks())
		if err != nil {
			w.t.Fatal(err)
		}
		committed, err := w.adm.FetchOffsets(w.t.Context(), w.names.WebhookGroup())
		if err != nil {
			w.t.Fatal(err)
		}
		var lag int64
		ends.Each(func(o kadm.ListedOffset) {
			at, _ := committed.Lookup(o.Topic, o.Partition)
			lag += o.Offset - max(at.At, 0)
		})
		if lag == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			w.t.Fatalf("%d offsets are left", lag)
		}
	}
}

// Two dispatchers share the work, and one that goes hands over.
func TestTwoDispatchersDeliverEachWebhookOnce(t *testing.T) {
	t.Parallel()
	w := webhookWorld(t)
	rc := newReceiver(t, nil)
	stop := w.start()
	w.start(func(c *Config) { c.Node = "n2" })
	w.hand(rc.URL, 0, 300)
	rc.await(t, 300, 60*time.Second)
	w.told(300)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.hand(rc.URL, 300, 300)
	rc.await(t, 300, time.Minute)
	w.told(600)
	seen := rc.seen()
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	if len(seen) != 600 {
		t.Errorf("%d ids", len(seen))
	}
}
