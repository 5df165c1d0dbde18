package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/spec"
)

// list gets a JSON array of objects.
func (r *registry) list(path string) []map[string]any {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	out := []map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil || resp.StatusCode != http.StatusOK {
		r.Fatalf("GET %s: %d %s: %v", path, resp.StatusCode, raw, err)
	}
	return out
}

// transact produces records in a transaction each, so that a marker follows each.
func (r *registry) transact(records ...*kgo.Record) {
	r.Helper()
	cl, err := kgo.NewClient(append(r.opts, kgo.TransactionalID("test-"+r.Name()))...)
	if err != nil {
		r.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	for _, rec := range records {
		if err := cl.BeginTransaction(); err != nil {
			r.Fatal(err)
		}
		if err := cl.ProduceSync(ctx, rec).FirstErr(); err != nil {
			r.Fatal(err)
		}
		if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
			r.Fatal(err)
		}
	}
}

// admin is a client of the registry's broker.
func (r *registry) admin() *kadm.Client {
	r.Helper()
	cl, err := kgo.NewClient(r.opts...)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

func TestStreamsAreListedAndInspectedAsEventsWere(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(202, "POST", "/v1/events", `{"id":"e-1","topic":"orders","key":"k","payload":{"content":{"n":1},"webhook":"http://hook"},"tenant_id":"acme",
		"created_at":1701234567.89,"delivery_attempts":3,"correlation_id":"c","causation_id":"b","source":"test"}`)
	r.want(202, "POST", "/v1/events", `{"id":"e-2","topic":"orders","key":"k","payload":{"content":"second"}}`)
	r.produce(&kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte("\xff")},
		&kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte("{"), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/vnd.reeve.event+json")}}})
	r.waitFor("the topic", func() bool { return len(r.list("/bus/streams")) == 1 })
	if s := r.list("/bus/streams"); s[0]["stream"] != "orders" || s[0]["length"] != 4.0 {
		t.Errorf("%v", s)
	}
	all := r.list("/bus/inspect/orders")
	if len(all) != 4 {
		t.Fatalf("%v", all)
	}
	if d := all[0]["data"].(map[string]any); d["error"] == nil || d["content"] != "{" {
		t.Errorf("what claims to be an envelope and isn't: %v", d)
	}
	if d := all[1]["data"].(map[string]any); d["content"] != "/w==" || d["content_encoding"] != "base64" || d["topic"] != "orders" {
		t.Errorf("raw bytes: %v", d)
	}
	first := all[3]
	if first["id"] != fmt.Sprintf("%v-%v", first["partition"], first["offset"]) || first["key"] != "k" {
		t.Errorf("%v", first)
	}
	d := first["data"].(map[string]any)
	for field, want := range map[string]any{"task_id": "e-1", "topic": "orders", "webhook": "http://hook", "tenant_id": "acme", "created_at": 1701234567.89,
		"delivery_attempts": 3.0, "correlation_id": "c", "causation_id": "b", "source": "test", "reply_to": nil} {
		if got, ok := d[field]; !ok || got != want {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if n := d["content"].(map[string]any)["n"]; n != 1.0 {
		t.Errorf("%v", d)
	}
	if two := r.list("/bus/inspect?stream=orders&limit=2"); len(two) != 2 || two[0]["id"] != all[0]["id"] || two[1]["id"] != all[1]["id"] {
		t.Errorf("the latest two: %v", two)
	}
}

func TestTheBusRefusesWhatItCannotLookAt(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/bus/inspect/orders?limit=0":     {400, "invalid_request"},
		"/bus/inspect/orders?limit=-1":    {400, "invalid_request"},
		"/bus/inspect/orders?limit=1001":  {400, "invalid_request"},
		"/bus/inspect/orders?limit=x":     {400, "invalid_request"},
		"/bus/inspect/orders?lmit=1":      {400, "unknown_key"},
		"/bus/inspect?limit=1":            {400, "invalid_request"},
		"/bus/inspect?stream=":            {400, "invalid_request"},
		"/bus/inspect/reeve.control":      {400, "invalid_request"},
		"/bus/inspect/nowhere":            {404, "not_found"},
		"/bus/dlq/orders?limit=0":         {400, "invalid_request"},
		"/bus/dlq?topic=orders&limit=0":   {400, "invalid_request"},
		"/bus/dlq?topic=":                 {400, "invalid_request"},
		"/bus/groups?stream=":             {400, "invalid_request"},
		"/v1/bus/groups?stream=":          {400, "invalid_request"},
		"/bus/streams?limit=0":            {400, "invalid_request"},
		"/bus/streams?limit=10001":        {400, "invalid_request"},
		"/bus/stats?limit=1":              {400, "unknown_key"},
		"/bus/inspect/omni-stream:orders": {404, "not_found"},
	} {
		if status, p := r.do("GET", path, ""); status != want.status || p["code"] != want.code {
			t.Errorf("%s: %d %v, want %d %s", path, status, p, want.status, want.code)
		}
	}
	if found := r.list("/bus/groups/nowhere"); len(found) != 0 {
		t.Errorf("%v", found)
	}
	if found := r.list("/bus/dlq/nowhere"); len(found) != 0 {
		t.Errorf("%v", found)
	}
}

func TestPendingCountsEventsAndNoMarkers(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	var records []*kgo.Record
	for i := range 5 {
		records = append(records, &kgo.Record{Topic: "orders", Key: []byte("k"), Value: fmt.Appendf(nil, "%d", i)})
	}
	r.transact(records...)
	group := r.cfg.Kafka.Names().Group("orders", "a")
	var offsets kadm.Offsets
	offsets.AddOffset("orders", records[1].Partition, records[1].Offset+1, -1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.admin().CommitAllOffsets(ctx, group, offsets); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/bus/groups/orders", "/bus/groups?stream=orders"} {
		g := r.list(path)
		want := fmt.Sprintf("%d-%d", records[1].Partition, records[1].Offset)
		if len(g) != 1 || g[0]["name"] != group || g[0]["agent"] != "a" || g[0]["consumers"] != 0.0 || g[0]["pending"] != 3.0 || g[0]["last_delivered_id"] != want {
			t.Errorf("%s: %v, want 3 pending after %s", path, g, want)
		}
	}
}

// dead makes an agent's dead letters.
func (r *registry) dead(name string, records ...*kgo.Record) {
	r.Helper()
	names := r.cfg.Kafka.Names()
	cl, err := kgo.NewClient(r.opts...)
	if err != nil {
		r.Fatal(err)
	}
	defer cl.Close()
	if err := kafka.EnsureTopics(r.Context(), cl, -1, kafka.DLQTopic(names, &spec.Agent{Topic: "orders", Name: name}, 1<<20)); err != nil {
		r.Fatal(err)
	}
	for _, rec := range records {
		rec.Topic = names.DLQ("orders", name)
	}
	r.transact(records...)
}

// What the agent as it is now doesn't take is counted beside what a redrive moves, before anybody moves it.
func TestARedriveSaysBeforeWhatItsAgentTakesNoMore(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", `{"topic":"orders","name":"a","command":"x","filter":"data.n < 3","accepts":["small"]}`)
	var letters []*kgo.Record
	for n, of := range []string{"small", "small", "big", "small", "small"} {
		letters = append(letters, &kgo.Record{Value: fmt.Appendf(nil, `{"n":%d}`, n), Headers: []kgo.RecordHeader{{Key: "reeve-agent", Value: []byte("orders/a")}, {Key: "reeve-type", Value: []byte(of)},
			{Key: "reeve-origin", Value: fmt.Appendf(nil, "orders/0/%d/UUID", n)}, {Key: "reeve-error-class", Value: []byte("network")}, {Key: "reeve-error-fingerprint", Value: []byte("f")}}})
	}
	r.dead("a", letters...)
	r.waitFor("the client's view of the topics to be fresh", func() bool { return len(r.list("/bus/dlq/orders")) == 5 })
	for body, want := range map[string][2]float64{`"all":true`: {2, 3}, `"fingerprint":"f"`: {2, 3}, `"all":true,"force":true`: {5, 0}, `"origin":"orders/0/4"`: {1, 0}} {
		o := r.want(200, "POST", "/v1/dlq/orders/a/redrive", `{"dry_run":true,`+body+`}`)
		if o["matched"] != want[0] || o["unfit"] != want[1] || o["guarded"] != 0.0 {
			t.Errorf("%s: %v", body, o)
		}
	}
	if o := r.want(200, "POST", "/v1/dlq/orders/a/purge", `{"dry_run":true,"all":true}`); o["matched"] != 5.0 || o["unfit"] != 0.0 {
		t.Errorf("a purge: %v", o)
	}
}

func TestDeadLettersOfATopicAreThoseOfAllItsAgents(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", agent)
	r.want(201, "POST", "/v1/agents", `{"topic":"orders","name":"gone","command":"x"}`)
	r.want(202, "POST", "/v1/events", `{"topic":"orders","payload":{"content":1}}`)
	r.dead("a", &kgo.Record{Value: []byte(`{"id":"e-7","topic":"orders","payload":{"content":{"n":7}},"tenant_id":"acme"}`), Headers: []kgo.RecordHeader{
		{Key: "reeve-origin", Value: []byte("orders/0/7/UUID")}, {Key: "reeve-error-class", Value: []byte("network")}, {Key: "reeve-error-message", Value: []byte("no luck")},
		{Key: "reeve-attempts", Value: []byte("4")}, {Key: "reeve-last-failed-at", Value: []byte("2026-01-02T03:04:05.500Z")}}},
		&kgo.Record{Value: []byte("8")})
	r.dead("gone", &kgo.Record{Value: []byte("9")}, &kgo.Record{Value: []byte("10")}, &kgo.Record{Value: []byte("11")})
	r.want(200, "DELETE", "/v1/agents/orders/gone", "")
	r.waitFor("the client's view of the topics to be fresh", func() bool { return len(r.list("/bus/dlq/orders")) == 5 })
	all := r.list("/bus/dlq/orders")
	if d := all[0]["data"].(map[string]any); d["agent"] != "gone" || d["failed_message"].(map[string]any)["content"] != 11.0 {
		t.Errorf("the latest is a deleted agent's: %v", all)
	}
	first := all[4]["data"].(map[string]any)
	for field, want := range map[string]any{"topic": "orders", "agent": "a", "original_stream": "orders", "original_id": "0-7", "error": "no luck", "error_class": "network",
		"retry_count": 3.0, "attempts": 4.0, "failed_at": 1767323045.5} {
		if first[field] != want {
			t.Errorf("%s is %v, want %v", field, first[field], want)
		}
	}
	if m := first["failed_message"].(map[string]any); m["task_id"] != "e-7" || m["tenant_id"] != "acme" || m["delivery_attempts"] != 4.0 || m["content"].(map[string]any)["n"] != 7.0 {
		t.Errorf("%v", m)
	}
	if two := r.list("/bus/dlq?topic=orders&limit=2"); len(two) != 2 || two[0]["id"] != all[0]["id"] {
		t.Errorf("%v", two)
	}
	stats := r.want(200, "GET", "/bus/stats", "")
	orders := stats["snapshot"].(map[string]any)["topics"].(map[string]any)["orders"].(map[string]any)
	groups := orders["groups"].([]any)
	if orders["length"] != 1.0 || orders["dlq_total"] != 5.0 || len(groups) != 1 {
		t.Fatalf("%v", stats)
	}
	if g := groups[0].(map[string]any); g["agent"] != "a" || g["dlq"] != 2.0 || g["pending"] != 1.0 || g["last_delivered_id"] != "" {
		t.Errorf("%v", g)
	}
	if redis, ok := stats["redis_info"].(map[string]any); !ok || redis["used_memory_human"] != nil {
		t.Errorf("%v", stats)
	}
}
