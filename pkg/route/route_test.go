package route

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

func agent() *spec.Agent { return &spec.Agent{Topic: "orders", Name: "bill_1", Partitions: 8} }

var now = time.UnixMilli(1700000005000)

func record(key, value string, headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: "orders", Partition: 2, Offset: 9, Timestamp: time.UnixMilli(1700000000123), Value: []byte(value)}
	if key != "" {
		r.Key = []byte(key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestPartitionAgreesWithKafkasClients(t *testing.T) {
	p := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for i := range 2000 {
		key := []byte(strings.Repeat("k", i%7) + fmt.Sprint(i))
		for _, n := range []int32{1, 3, 8} {
			if got, want := Partition(key, n), p.Partition(&kgo.Record{Key: key}, int(n)); int(got) != want {
				t.Fatalf("%q of %d: %d, want %d", key, n, got, want)
			}
		}
	}
}

func TestRecordsWithoutAKeyAreSpreadEvenly(t *testing.T) {
	var s Spread
	counts := make([]int, 8)
	for range 800 {
		counts[s.Partition(nil, 8)]++
	}
	for p, n := range counts {
		if n != 100 {
			t.Errorf("partition %d got %d of 800", p, n)
		}
	}
	if first := s.Partition([]byte{}, 8); first != s.Partition([]byte{}, 8) {
		t.Error("an empty key is a key")
	}
}

func place(batch []*kgo.Record) []int32 {
	var s Spread
	ps := make([]int32, len(batch))
	for i, r := range batch {
		ps[i] = s.Partition(r.Key, 8)
	}
	return ps
}

func TestATaskKeepsTheEventAndAddsHeaders(t *testing.T) {
	batch := []*kgo.Record{
		record("k", "v1", "traceparent", "00", "reeve-attempt", "77", "Reeve-Agent", "spoofed", "reeve-correlation-id", "c1", "reeve-reply-to", "answers"),
		record("", "{", "content-type", "application/vnd.reeve.event+json"),
		record("k", "v3"),
	}
	const uuid = "u-1"
	ts := New(topics.Names{}, agent(), uuid).Tasks(batch, place(batch), now)
	want := []string{
		"traceparent=00 reeve-agent=orders/bill_1 reeve-origin=orders/2/9/u-1 reeve-attempt=1 reeve-event=1700000000123 orders:2:9 reeve-correlation-id=c1 reeve-reply-to=answers",
		"content-type=application/vnd.reeve.event+json reeve-agent=orders/bill_1 reeve-origin=orders/2/9/u-1 reeve-attempt=1 reeve-event=1700000000123 orders:2:9 reeve-error-class=invalid_input " +
			"reeve-error-message=the record says it is an envelope (content-type application/vnd.reeve.event+json), but its value is no JSON object",
		"reeve-agent=orders/bill_1 reeve-origin=orders/2/9/u-1 reeve-attempt=1 reeve-event=1700000000123 orders:2:9",
	}
	for i, r := range ts {
		var got []string
		for _, h := range r.Headers {
			got = append(got, h.Key+"="+string(h.Value))
		}
		if s := strings.Join(got, " "); s != want[i] {
			t.Errorf("record %d\ngot  %s\nwant %s", i, s, want[i])
		}
		if r.Topic != "reeve.tasks.orders.bill--1" || string(r.Value) != string(batch[i].Value) || string(r.Key) != string(batch[i].Key) || (r.Key == nil) != (batch[i].Key == nil) || !r.Timestamp.Equal(now) {
			t.Errorf("record %d: %+v", i, r)
		}
	}
	if ts[0].Partition != ts[2].Partition || ts[0].Partition != Partition([]byte("k"), 8) {
		t.Errorf("one key went to partitions %d and %d", ts[0].Partition, ts[2].Partition)
	}
	_ = append(ts[0].Headers, kgo.RecordHeader{Key: "later"})
	if ts[1].Headers[0].Key != "content-type" {
		t.Error("appending to one record's headers reached the next one's")
	}
}

func TestAnEnvelopesFieldsBecomeHeaders(t *testing.T) {
	r := record("k", `{"id":"e 1","topic":"orders","type":"ty","payload":{"content":1,"webhook":"http://w","reply_to":"a"},"tenant_id":"t","correlation_id":"c","causation_id":"b","source":"s"}`,
		"reeve-correlation-id", "overruled")
	got := New(topics.Names{}, agent(), "").Tasks([]*kgo.Record{r}, []int32{0}, now)[0]
	for key, want := range map[string]string{task.HeaderEvent: "1700000000123 e 1", task.HeaderCorrelationID: "c", task.HeaderCausationID: "b", task.HeaderTenantID: "t",
		task.HeaderSource: "s", task.HeaderReplyTo: "a", task.HeaderWebhook: "http://w", task.HeaderType: "ty", task.HeaderOrigin: "orders/2/9", task.HeaderErrorClass: ""} {
		if h := Header(got, key); h != want {
			t.Errorf("%s is %q, want %q", key, h, want)
		}
	}
}

func TestADueRetryGoesWhereItsFirstDeliveryWent(t *testing.T) {
	var s Spread
	rec := record("k", "v", task.HeaderAgent, "orders/bill_1", task.HeaderAttempt, "3")
	got := Retry(topics.Names{}, agent(), &s, rec, now)
	first := New(topics.Names{}, agent(), "").Tasks([]*kgo.Record{record("k", "v")}, place([]*kgo.Record{rec}), now)[0]
	if got.Partition != first.Partition || got.Topic != first.Topic || Header(got, task.HeaderAttempt) != "3" || string(got.Value) != "v" {
		t.Errorf("%+v", got)
	}
}

func TestAnEndingIsTheFinalOutcomeOfItsTask(t *testing.T) {
	rec := record("k", "v", task.HeaderAgent, "orders/bill_1", task.HeaderOrigin, "orders/2/9/u", task.HeaderAttempt, "3", task.HeaderEvent, "17 e 1", task.HeaderRedrives, "1")
	end := Ending{Outcome: task.Discarded, Settled: task.SettledDropped, Message: `the agent "x" is gone`, Node: "n1"}
	got, err := Outcome(topics.Names{}, rec, end, now)
	if err != nil {
		t.Fatal(err)
	}
	if got.Topic != "reeve.outcomes" || string(got.Key) != "orders/2/9" || string(got.Value) != `{"error":"the agent \"x\" is gone"}` {
		t.Errorf("%+v", got)
	}
	for key, want := range map[string]string{task.HeaderAttempt: "2", task.HeaderOutcome: "discarded", task.HeaderSettled: "dropped", task.HeaderFinal: "true", task.HeaderRedrives: "1",
		task.HeaderTimes: "17 1700000005000 0 0", task.HeaderRunner: "n1 ", task.HeaderEvent: "17 e 1", task.HeaderOrigin: "orders/2/9/u", task.HeaderAgent: "orders/bill_1"} {
		if h := Header(got, key); h != want {
			t.Errorf("%s is %q, want %q", key, h, want)
		}
	}
	if _, err := Outcome(topics.Names{}, record("k", "v"), end, now); err == nil {
		t.Error("a record without an origin is no task")
	}
}

func BenchmarkTasks(b *testing.B) {
	batch := make([]*kgo.Record, 1000)
	for i := range batch {
		batch[i] = record("key", strings.Repeat("x", 300), "traceparent", "00")
	}
	r := New(topics.Names{}, agent(), "01234567-0123-0123-0123-0123456789ab")
	b.ReportAllocs()
	for b.Loop() {
		r.Tasks(batch, place(batch), now)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
}
