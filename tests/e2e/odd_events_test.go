package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/tests/harness"
)

// oddEvent is a record as users' producers may write it, and what an agent sees of it.
type oddEvent struct {
	name   string
	record kgo.Record
	// content is what Python gets, as JSON; "" where the record's value is JSON itself. encoded says that it is base64.
	content string
	encoded bool
	class   string // of what the agent can't be given; "" where it runs

	offset int64
}

func oddEvents(topic string, limit int) []*oddEvent {
	random := func(n int) []byte { // which no compression makes smaller
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		return b
	}
	header := func(kv ...string) (hs []kgo.RecordHeader) {
		for i := 0; i+1 < len(kv); i += 2 {
			hs = append(hs, kgo.RecordHeader{Key: kv[i], Value: []byte(kv[i+1])})
		}
		return hs
	}
	var many []kgo.RecordHeader
	for i := range 5000 {
		many = append(many, header(fmt.Sprintf("h%d", i), strings.Repeat("v", i%50))...)
	}
	large := random(limit - 2000)
	deep := []byte(strings.Repeat(`{"a":[`, 200) + "1" + strings.Repeat(`]}`, 200))
	return []*oddEvent{
		{name: "a tombstone", record: kgo.Record{Key: []byte("k")}, content: "null"},
		{name: "a tombstone without a key", record: kgo.Record{}, content: "null"},
		{name: "an empty value", record: kgo.Record{Key: []byte("k"), Value: []byte{}}, content: `""`, encoded: true},
		{name: "an empty key", record: kgo.Record{Key: []byte{}, Value: []byte(`{"n":1}`)}},
		{name: "no key", record: kgo.Record{Value: []byte(`{"n":1}`)}},
		{name: "a binary key", record: kgo.Record{Key: []byte{0, 0xff, 0xfe}, Value: []byte(`[1,2]`)}},
		{name: "JSON null", record: kgo.Record{Value: []byte(`null`)}},
		{name: "text that is no JSON", record: kgo.Record{Value: []byte("hello\nworld")}, encoded: true},
		{name: "binary", record: kgo.Record{Value: []byte{0, 1, 2, 0xff, '\n', '"'}}, encoded: true},
		{name: "invalid UTF-8 in JSON", record: kgo.Record{Value: []byte("{\"a\":\"\xff\xfe\"}")}, encoded: true},
		{name: "a lone surrogate", record: kgo.Record{Value: []byte(`{"a":"\ud800"}`)}},
		{name: "JSON on many lines", record: kgo.Record{Value: []byte("{\r\n \"a\" :\t1\n}\n")}},
		{name: "JSON cut short", record: kgo.Record{Value: []byte(`{"a":`)}, encoded: true},
		{name: "duplicate JSON keys", record: kgo.Record{Value: []byte(`{"a":1,"a":2}`)}, content: `{"a":2}`},
		{name: "deep JSON", record: kgo.Record{Value: deep}},
		{name: "JSON deeper than Python reads", record: kgo.Record{Value: []byte(strings.Repeat("[", 9000) + strings.Repeat("]", 9000))}, class: "invalid_input"},
		{name: "an integer longer than Python reads", record: kgo.Record{Value: []byte(strings.Repeat("9", 5000))}, class: "invalid_input"},
		{name: "header names repeated, empty and odd", record: kgo.Record{Value: []byte(`1`), Headers: append(header("a", "1", "a", "2", "", "empty name", "ä ö", "\xff", "A", ""), kgo.RecordHeader{Key: "null"})}},
		{name: "many headers", record: kgo.Record{Value: []byte(`1`), Headers: many}},
		{name: "huge headers", record: kgo.Record{Value: []byte(`1`), Headers: []kgo.RecordHeader{{Key: "huge", Value: random(limit / 3)}, {Key: "huge", Value: random(limit / 3)}}}},
		{name: "as large as the topic takes", record: kgo.Record{Key: []byte("k"), Value: large}, encoded: true},
		{name: "the same, without a key", record: kgo.Record{Value: append([]byte(nil), large...)}, encoded: true},
		{name: "a long key", record: kgo.Record{Key: random(64 << 10), Value: []byte(`1`)}},
		{name: "an envelope of a tombstone's content", record: kgo.Record{Value: fmt.Appendf(nil, `{"topic":%q,"payload":{"content":null}}`, topic)}, content: "null"},
	}
}

const echoAgent = `
import hashlib, json

async def handle(message):
    content = message["content"]
    if isinstance(content, dict) and "results" in content:
        return "r" * content["results"]
    text = json.dumps(content, sort_keys=True)
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "encoding": message.get("content_encoding"), "start": text[:60]}
`

// failAgent doesn't fail alike at each task: that would be an outage, which is for other tests.
const failAgent = `
import itertools

words = itertools.cycle(["no ", "never ", "not now "])

async def handle(message):
    raise ValueError(next(words) + "x" * 100000)
`

// Whatever a record is, an agent gets it as it stands, and if it fails on it, the dead letter is the event byte by byte,
// with all of its headers in their order.
func TestOddAndLargeEventsGoThroughAsTheyAre(t *testing.T) {
	needPython(t)
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic, limit := sys.Prefix+"-odd", 2<<20
		max := fmt.Sprint(limit)
		if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, map[string]*string{"max.message.bytes": &max}); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(sys.AgentsDir(), "odd")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, source := range map[string]string{"echo": echoAgent, "fail": failAgent} {
			if err := os.WriteFile(filepath.Join(dir, name+".py"), []byte(source), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
		for _, name := range []string{"echo", "fail"} {
			err := sys.Register(t.Context(), map[string]any{"topic": topic, "name": name, "runtime": "python", "dir": "odd", "callback": name + ":handle", "config": map[string]any{"max_retries": 0}})
			if err != nil {
				t.Fatal(err)
			}
		}
		events := oddEvents(topic, limit)
		cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...), kgo.ProducerBatchMaxBytes(int32(limit)), kgo.ProducerBatchCompression(kgo.NoCompression()))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		for _, e := range events {
			e.record.Topic = topic
			if err := cl.ProduceSync(t.Context(), &e.record).FirstErr(); err != nil {
				t.Fatalf("publish %s: %v", e.name, err)
			}
			e.offset = e.record.Offset
		}
		got := followFinals(t, sys, sys.Names().Outcomes(), sys.Names().DLQ(topic, "fail"))
		for _, e := range events {
			id := fmt.Sprintf("%s/0/%d", topic, e.offset)
			e.check(t, got.await(t, id, topic+"/echo"))
			e.checkDeadLetter(t, got.await(t, id, topic+"/fail"), got.letter(t, id))
		}
		// A result that no topic takes is the attempt's failure.
		r := &kgo.Record{Topic: topic, Value: []byte(`{"results":20000000}`)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		o := got.await(t, fmt.Sprintf("%s/0/%d", topic, r.Offset), topic+"/echo")
		if route.Header(o, task.HeaderErrorClass) != "result_too_large" || route.Header(o, task.HeaderSettled) != "dlq" {
			t.Errorf("a result of 20 MB: %s, %s", route.Header(o, task.HeaderErrorClass), route.Header(o, task.HeaderSettled))
		}
		// The figures, and the group, are those of every event.
		var m struct {
			Received, Completed int64
			DeadLettered        int64 `json:"dead_lettered"`
		}
		n := int64(len(events) + 1)
		eventually(t, time.Minute, func() string {
			if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/fail/metrics", nil, &m); err != nil {
				return err.Error()
			}
			if m.Received != n || m.DeadLettered != n {
				return fmt.Sprintf("%+v of %d", m, n)
			}
			return ""
		})
	})
}

// check looks at what the agent saw.
func (e *oddEvent) check(t *testing.T, outcome *kgo.Record) {
	t.Helper()
	class := route.Header(outcome, task.HeaderErrorClass)
	if class != e.class {
		t.Errorf("%s: class %q, not %q: %.200s", e.name, class, e.class, outcome.Value)
	}
	if e.class != "" {
		return
	}
	content := []byte(e.content)
	switch {
	case e.encoded:
		quoted, err := json.Marshal(base64.StdEncoding.EncodeToString(e.record.Value))
		if err != nil {
			t.Fatal(err)
		}
		content = quoted
	case e.content == "":
		content = e.record.Value
	}
	var result struct{ SHA256, Encoding, Start string }
	if err := json.Unmarshal(outcome.Value, &result); err != nil {
		t.Errorf("%s: the result is %.200s", e.name, outcome.Value)
		return
	}
	sum := sha256.Sum256(asPython(t, content))
	if result.SHA256 != hex.EncodeToString(sum[:]) || (result.Encoding == "base64") != e.encoded {
		t.Errorf("%s: the agent saw %s (%q)", e.name, result.Start, result.Encoding)
	}
}

// asPython writes JSON as json.dumps does.
func asPython(t *testing.T, content []byte) []byte {
	t.Helper()
	if bytes.Contains(content, []byte(`\ud800`)) { // Go has no such text
		return []byte(`{"a": "\ud800"}`)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, content); err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(bytes.ReplaceAll(b.Bytes(), []byte(`":`), []byte(`": `)), []byte(`,`), []byte(`, `))
}

func (e *oddEvent) checkDeadLetter(t *testing.T, outcome, dead *kgo.Record) {
	t.Helper()
	if s := route.Header(outcome, task.HeaderSettled); s != "dlq" {
		t.Errorf("%s: settled as %s", e.name, s)
	}
	same := func(what string, got, want []byte) {
		t.Helper()
		if !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%s: the dead letter's %s is %.60q (%d bytes), not %.60q (%d)", e.name, what, got, len(got), want, len(want))
		}
	}
	same("key", dead.Key, e.record.Key)
	same("value", dead.Value, e.record.Value)
	for i, h := range e.record.Headers {
		if i >= len(dead.Headers) || dead.Headers[i].Key != h.Key {
			t.Errorf("%s: header %d of the dead letter isn't %q", e.name, i, h.Key)
			return
		}
		same("header "+h.Key, dead.Headers[i].Value, h.Value)
	}
	if n := len(route.Header(dead, task.HeaderErrorMessage)); n == 0 || n > 4<<10 {
		t.Errorf("%s: the dead letter's message has %d bytes", e.name, n)
	}
}

// followed has the final outcomes and the dead letters of a test as they come.
type followed struct {
	mu       sync.Mutex
	outcomes map[[2]string]*kgo.Record // by task and agent
	letters  map[string]*kgo.Record    // by task
}

func followFinals(t *testing.T, sys *harness.System, outcomes, letters string) *followed {
	t.Helper()
	f := &followed{outcomes: map[[2]string]*kgo.Record{}, letters: map[string]*kgo.Record{}}
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := harness.Follow(ctx, sys.Brokers, []string{outcomes, letters}, f.add); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); done.Wait() })
	return f
}

func (f *followed) add(r *kgo.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	origin, err := task.ParseOrigin(route.Header(r, task.HeaderOrigin))
	switch {
	case err != nil:
	case route.Header(r, task.HeaderFinal) == "true":
		f.outcomes[[2]string{origin.ID(), route.Header(r, task.HeaderAgent)}] = r
	case route.Header(r, task.HeaderFinal) == "":
		f.letters[origin.ID()] = r
	}
}

func (f *followed) await(t *testing.T, id, agent string) *kgo.Record {
	t.Helper()
	var r *kgo.Record
	eventually(t, 60*time.Second, func() string {
		f.mu.Lock()
		defer f.mu.Unlock()
		if r = f.outcomes[[2]string{id, agent}]; r == nil {
			return "no outcome of " + id + " for " + agent
		}
		return ""
	})
	return r
}

func (f *followed) letter(t *testing.T, id string) *kgo.Record {
	t.Helper()
	var r *kgo.Record
	eventually(t, time.Minute, func() string {
		f.mu.Lock()
		defer f.mu.Unlock()
		if r = f.letters[id]; r == nil {
			return "no dead letter of " + id
		}
		return ""
	})
	return r
}
