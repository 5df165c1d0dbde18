package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"
)

// A stock adapter, which knows nothing of Reeve, gets events of every format, and each ends as it must: the good ones at
// once, the flaky one after a retry, the poison and the malformed one in the DLQ.
func TestAStockAdapterRunsRetriesDeadLettersAndStops(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 isn't installed")
	}
	onEachKafka(t, runsRetriesDeadLettersAndStops)
}

func runsRetriesDeadLettersAndStops(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	services := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)
	large := "8388608"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, map[string]*string{"max.message.bytes": &large}); err != nil {
		t.Fatal(err)
	}
	for _, e := range events(topic) {
		e.publish(t, sys, topic)
		e.await(t, sys, topic)
	}
	checkDeadLetters(t, sys, topic)
	checkMetrics(t, sys, topic)

	if marked(t, sys) == 0 {
		t.Error("no process of the agent runs")
	}
	stop(t, services...)
	if left := marked(t, sys); left > 0 {
		t.Errorf("%d processes left after the stop", left)
	}
}

// marked counts the processes of a system's stock agent.
func marked(t *testing.T, sys *harness.System) int {
	t.Helper()
	n, err := sys.Marked("E2E_MARK=" + sys.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func registerStock(t *testing.T, sys *harness.System, topic string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(sys.AgentsDir(), "stock"), os.DirFS("testdata/stock")); err != nil {
		t.Fatal(err)
	}
	err := sys.Register(t.Context(), map[string]any{
		"topic": topic, "name": "stock", "runtime": "command", "dir": "stock", "command": []string{"python3", "adapter.py"},
		"env":    map[string]string{"E2E_MARK": sys.Prefix},
		"config": map[string]any{"max_retries": 1, "retry_delays": []string{"1s"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// event is one that is published, and what must become of it.
type event struct {
	name    string
	headers map[string]string
	value   []byte

	status   string // of the task
	attempts int    // 0: it never ran
	result   map[string]any
	class    string

	partition int32
	offset    int64
}

func events(topic string) []*event {
	envelope := fmt.Sprintf(`{"id":"e-1","topic":%q,"payload":{"content":{"n":3}},"tenant_id":"acme","correlation_id":"c-1","source":"test","created_at":1701234567.89}`, topic)
	return []*event{
		{name: "raw JSON", value: []byte(`{"n": 1}`), status: "completed", attempts: 1, result: map[string]any{"content": map[string]any{"n": 1.0}, "topic": topic, "delivery_attempts": 1.0}},
		{name: "raw bytes", value: []byte{0xff, 0xfe, 0}, status: "completed", attempts: 1, result: map[string]any{"content": "//4A", "content_encoding": "base64"}},
		{name: "correlation by header", value: []byte(`1`), headers: map[string]string{"reeve-correlation-id": "c-7", "mine": "kept"}, status: "completed", attempts: 1,
			result: map[string]any{"content": 1.0, "correlation_id": "c-7"}},
		{name: "envelope", value: []byte(envelope), status: "completed", attempts: 1,
			result: map[string]any{"content": map[string]any{"n": 3.0}, "task_id": "e-1", "tenant_id": "acme", "correlation_id": "c-1", "source": "test"}},
		{name: "CloudEvent, binary", value: []byte(`{"n": 4}`), status: "completed", attempts: 1,
			headers: map[string]string{"ce_specversion": "1.0", "ce_id": "ce-1", "ce_source": "/s", "ce_type": "x.y", "content-type": "application/json"},
			result:  map[string]any{"content": map[string]any{"n": 4.0}, "task_id": "ce-1", "source": "/s"}},
		{name: "CloudEvent, structured", value: []byte(`{"specversion":"1.0","id":"ce-2","source":"/s","type":"x.y","data":{"n":5}}`), status: "completed", attempts: 1,
			headers: map[string]string{"content-type": "application/cloudevents+json"},
			result:  map[string]any{"content": map[string]any{"n": 5.0}, "task_id": "ce-2"}},
		{name: "a result that is no object", value: []byte(`{"do":"text"}`), status: "completed", attempts: 1, result: map[string]any{"result": "just text"}},
		{name: "flaky", value: []byte(`{"do":"flaky"}`), status: "completed", attempts: 2, result: map[string]any{"delivery_attempts": 2.0}},
		{name: "poison", value: []byte(`{"do":"fail"}`), status: "dead_lettered", attempts: 2, class: "internal"},
		{name: "kills its agent", value: []byte(`{"do":"die"}`), status: "dead_lettered", attempts: 2, class: "crash"},
		{name: "claims a format and doesn't parse", value: []byte(`{"specversion":`), headers: map[string]string{"content-type": "application/cloudevents+json"},
			status: "dead_lettered", attempts: 0, class: "invalid_input"},
		{name: "5 MiB", value: append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 5<<20)...), '"'), status: "completed", attempts: 1, result: map[string]any{"length": 5.0 * (1 << 20)}},
	}
}

// publish uses a plain producer, as any program has one.
func (e *event) publish(t *testing.T, sys *harness.System, topic string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...), kgo.ProducerBatchMaxBytes(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r := &kgo.Record{Topic: topic, Key: []byte(e.name), Value: e.value}
	for k, v := range maps.All(e.headers) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
	}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatalf("publish %s: %v", e.name, err)
	}
	e.partition, e.offset = r.Partition, r.Offset
}

func (e *event) await(t *testing.T, sys *harness.System, topic string) {
	t.Helper()
	type answer struct {
		Status     string         `json:"status"`
		Attempts   int            `json:"attempts"`
		Result     map[string]any `json:"result"`
		ErrorClass string         `json:"error_class"`
	}
	var task answer
	path := fmt.Sprintf("/v1/tasks/%s/stock/%d/%d", topic, e.partition, e.offset)
	eventually(t, time.Minute, func() string {
		task = answer{} // what an answer leaves out isn't what the one before said
		if err := sys.Call(t.Context(), http.MethodGet, path, nil, &task); err != nil {
			return fmt.Sprintf("%s: %v", e.name, err)
		}
		if task.Status != e.status {
			return fmt.Sprintf("%s: the task is %q, not %q", e.name, task.Status, e.status)
		}
		return ""
	})
	if task.Attempts != e.attempts || task.ErrorClass != e.class {
		t.Errorf("%s: attempts %d, class %q; expected %d and %q", e.name, task.Attempts, task.ErrorClass, e.attempts, e.class)
	}
	for k, want := range e.result {
		if got := task.Result[k]; !equalJSON(got, want) {
			t.Errorf("%s: the result's %s is %v, not %v", e.name, k, got, want)
		}
	}
}

func equalJSON(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

func checkDeadLetters(t *testing.T, sys *harness.System, topic string) {
	t.Helper()
	var list struct {
		Items []struct {
			Origin string `json:"origin"`
			Class  string `json:"error_class"`
			Value  string `json:"value"`
		} `json:"items"`
	}
	if err := sys.Call(t.Context(), http.MethodGet, "/v1/dlq/"+topic+"/stock", nil, &list); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, item := range list.Items {
		got[item.Value] = item.Class
	}
	want := map[string]string{`{"do":"fail"}`: "internal", `{"do":"die"}`: "crash", `{"specversion":`: "invalid_input"}
	if !maps.Equal(got, want) {
		t.Errorf("the DLQ holds %v, not %v", got, want)
	}
}

func checkMetrics(t *testing.T, sys *harness.System, topic string) {
	t.Helper()
	want := map[string]float64{"received": 12, "completed": 9, "retried": 3, "dead_lettered": 3, "failed": 0, "rejected": 0, "waiting": 0, "running": 0, "lag": 0}
	eventually(t, time.Minute, func() string {
		var got map[string]any
		if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/stock/metrics", nil, &got); err != nil {
			return err.Error()
		}
		for name, n := range want {
			if got[name] != n {
				return fmt.Sprintf("%s is %v, not %v", name, got[name], n)
			}
		}
		return ""
	})
}
