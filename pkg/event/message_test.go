package event

import (
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

func TestAMessageIsReadAsItWasWritten(t *testing.T) {
	at := time.UnixMicro(1701234567890123)
	m := Message{Topic: "orders", Content: map[string]int{"n": 1}, Key: []byte("k"), ID: "e 1", Type: "placed", CorrelationID: "c", CausationID: "b", TenantID: "t", Source: "s",
		ReplyTo: "answers", Webhook: "http://w", CreatedAt: at}
	r, err := m.Record()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Recognise("orders", r)
	if err != nil {
		t.Fatal(err)
	}
	got.CreatedAt = got.CreatedAt.Local()
	want := Event{Format: Envelope, ID: "e 1", Type: "placed", CorrelationID: "c", CausationID: "b", TenantID: "t", Source: "s", ReplyTo: "answers", Webhook: "http://w",
		CreatedAt: at, DeliveryAttempts: 1}
	if got != want || string(r.Key) != "k" {
		t.Errorf("%+v\nnot %+v", got, want)
	}
	if content, known, err := Content("orders", r); string(content) != `{"n":1}` || !known || err != nil {
		t.Errorf("content %s, known %t, %v", content, known, err)
	}
}

func TestAMessageHasAnIDAndATime(t *testing.T) {
	r, err := Message{Topic: "orders", Content: "x"}.Record()
	if err != nil {
		t.Fatal(err)
	}
	e, err := Recognise("orders", r)
	if err != nil || len(e.ID) != 36 || time.Since(e.CreatedAt) > time.Minute || e.CorrelationID != "" {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := (Message{Topic: "orders", Content: func() {}}).Record(); err == nil {
		t.Error("a function is no content")
	}
}

func TestATaskIsItsEventAsTheDispatcherNotedIt(t *testing.T) {
	r := &kgo.Record{Partition: 3, Offset: 7, Timestamp: time.UnixMilli(9), Value: []byte("raw"), Headers: []kgo.RecordHeader{{Key: task.HeaderEvent, Value: []byte("1700000000123 orders:0:1")}}}
	e, err := OfTask("orders", r)
	if err != nil || e.ID != "orders:0:1" || e.CreatedAt.UnixMilli() != 1700000000123 {
		t.Errorf("%+v, %v", e, err)
	}
	r.Headers = nil // a record that Reeve didn't write
	if e, _ := OfTask("orders", r); e.ID != "orders:3:7" || e.CreatedAt.UnixMilli() != 9 {
		t.Errorf("%+v", e)
	}
}

func TestContentIsTheRecordsOwnBytes(t *testing.T) {
	for _, tt := range []struct {
		value, contentType, content string
		known, wrong                bool
	}{
		{"raw", "", "raw", false, false},
		{`{"a":1}`, "", `{"a":1}`, false, false},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"aGk="}`, "application/cloudevents+json", "hi", false, false},
		{`{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":1}}`, "application/cloudevents+json", `{"a":1}`, true, false},
		{`{`, ContentType, "", false, true},
	} {
		r := &kgo.Record{Value: []byte(tt.value)}
		if tt.contentType != "" {
			r.Headers = []kgo.RecordHeader{{Key: "content-type", Value: []byte(tt.contentType)}}
		}
		content, known, err := Content("orders", r)
		if string(content) != tt.content || known != tt.known || (err != nil) != tt.wrong {
			t.Errorf("%s: %s, known %s, %v", tt.value, content, strconv.FormatBool(known), err)
		}
	}
}
