package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

const topic = "github.issues"

func record(value string, headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: topic, Partition: 3, Offset: 42, Timestamp: time.UnixMilli(1700000000123), Value: []byte(value)}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

// payload renders a record for an agent and checks what holds for every payload.
func payload(t testing.TB, r *kgo.Record) map[string]any {
	t.Helper()
	b, err := AppendPayload(nil, r, Params{Topic: topic, Agent: "triage", Consumer: "n1-1", Attempt: 2})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsAny(b, "\r\n") || !utf8.Valid(b) {
		t.Fatalf("no single line of UTF-8: %q", b)
	}
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return m
}

const envelope = `{"id":"e1","topic":"github.issues","payload":{"content":{"n":12345678901234567890},"webhook":"http://w","reply_to":"answers"},` +
	`"tenant_id":"t1","correlation_id":"c1","causation_id":"c0","source":"s","created_at":1701234567.891234,"delivery_attempts":3}`

func TestRecognise(t *testing.T) {
	at := time.UnixMilli(1700000000123)
	raw := Event{ID: "github.issues:3:42", CreatedAt: at, DeliveryAttempts: 1}
	full := Event{Format: Envelope, ID: "e1", CorrelationID: "c1", CausationID: "c0", TenantID: "t1", Source: "s", ReplyTo: "answers",
		Webhook: "http://w", CreatedAt: time.UnixMicro(1701234567891234).UTC(), DeliveryAttempts: 3}
	with := func(e Event, change func(*Event)) Event { change(&e); return e }
	for name, tt := range map[string]struct {
		record *kgo.Record
		want   Event
	}{
		"bytes":                               {record("\xff\x00"), raw},
		"JSON":                                {record(`{"action":"opened"}`), raw},
		"no value":                            {record(""), raw},
		"an envelope by its shape":            {record(envelope), full},
		"an envelope by its header":           {record(envelope, "Content-Type", "Application/vnd.reeve.event+json; charset=utf-8"), full},
		"an envelope of another topic is raw": {record(strings.Replace(envelope, topic, "github.issues2", 1)), raw},
		"an envelope without content is raw":  {record(strings.Replace(envelope, `"content"`, `"kontent"`, 1)), raw},
		"an envelope by shape that is broken is raw": {record(envelope[:len(envelope)-1]), raw},
		"a wrong type in an envelope by shape":       {record(strings.Replace(envelope, `"e1"`, `{}`, 1)), raw},
		"nulls in an envelope": {record(`{"topic":"github.issues","payload":{"content":null,"webhook":null},"id":null,"source":null}`),
			with(raw, func(e *Event) { e.Format = Envelope })},
		"headers of a raw event": {record("x", task.HeaderCorrelationID, "c", task.HeaderCausationID, "k", task.HeaderTenantID, "t", task.HeaderSource, "s",
			task.HeaderReplyTo, "r", task.HeaderWebhook, "w", task.HeaderType, "y"),
			with(raw, func(e *Event) {
				e.CorrelationID, e.CausationID, e.TenantID, e.Source, e.ReplyTo, e.Webhook, e.Type = "c", "k", "t", "s", "r", "w", "y"
			})},
		"what an envelope says wins over headers": {record(envelope, task.HeaderCorrelationID, "other"), full},
		"escapes in an envelope": {record(`{"topic":"github.issues","payload":{"content":1},"id":"a\u0062\n"}`),
			with(raw, func(e *Event) { e.Format, e.ID = Envelope, "ab\n" })},
		"a raw event with a ce_id": {record("x", "ce_id", "i"), with(raw, func(e *Event) { e.ID = "i" })},
		"a binary CloudEvent": {record("x", "ce_specversion", "1.0", "ce_id", "i", "ce_type", "y", "ce_source", "/s", "ce_time", "2018-04-05T03:56:24Z"),
			with(raw, func(e *Event) {
				e.Format, e.ID, e.Type, e.Source, e.CreatedAt = CloudEventBinary, "i", "y", "/s", time.Date(2018, 4, 5, 3, 56, 24, 0, time.UTC)
			})},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := Recognise(topic, tt.record); err != nil || got != tt.want {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestAFormatThatIsClaimedAndNotKeptIsAnError(t *testing.T) {
	const structured = "application/cloudevents+json"
	for name, tt := range map[string]struct {
		record *kgo.Record
		says   string
	}{
		"an envelope that is no JSON":     {record("{", "content-type", ContentType), "no JSON object"},
		"an envelope that is an array":    {record("[]", "content-type", ContentType), "no JSON object"},
		"an envelope without payload":     {record(`{"topic":"t"}`, "content-type", ContentType), "no payload.content"},
		"an envelope with a wrong type":   {record(`{"id":7,"payload":{"content":1}}`, "content-type", ContentType), "its id is no string"},
		"an envelope with a bad time":     {record(`{"created_at":"noon","payload":{"content":1}}`, "content-type", ContentType), "created_at"},
		"an envelope with a bad count":    {record(`{"delivery_attempts":0,"payload":{"content":1}}`, "content-type", ContentType), "delivery_attempts"},
		"an envelope with a long id":      {record(`{"id":"`+strings.Repeat("x", MaxField+1)+`","payload":{"content":1}}`, "content-type", ContentType), "4097 bytes"},
		"an envelope whose payload isn't": {record(`{"payload":1}`, "content-type", ContentType), "payload is no object"},
		"a binary event without id":       {record("x", "ce_specversion", "1.0", "ce_type", "y", "ce_source", "s"), "no id"},
		"a binary event without type":     {record("x", "ce_specversion", "1.0", "ce_id", "i", "ce_source", "s"), "no type"},
		"a binary event without source":   {record("x", "ce_specversion", "1.0", "ce_id", "i", "ce_type", "y"), "no source"},
		"a binary event of the future":    {record("x", "ce_specversion", "2.0", "ce_id", "i", "ce_type", "y", "ce_source", "s"), "specversion"},
		"a binary event with a bad time":  {record("x", "ce_specversion", "1.0", "ce_id", "i", "ce_type", "y", "ce_source", "s", "ce_time", "noon"), "RFC 3339"},
		"a structured event, no JSON":     {record("{", "content-type", structured), "no JSON object"},
		"a structured event, wrong type":  {record(`{"id":1}`, "content-type", structured), "its id is no string"},
		"a batch of events":               {record("[]", "content-type", "application/cloudevents-batch+json"), "only application/cloudevents+json"},
		"both kinds of data":              {record(`{"specversion":"1.0","id":"i","type":"t","source":"s","data":1,"data_base64":"AA=="}`, "content-type", structured), "both"},
		"data that is no base64":          {record(`{"specversion":"1.0","id":"i","type":"t","source":"s","data_base64":"?"}`, "content-type", structured), "no base64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Recognise(topic, tt.record)
			var format *FormatError
			if !errors.As(err, &format) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
			if b, err := AppendPayload([]byte("before"), tt.record, Params{Topic: topic}); !errors.As(err, &format) || string(b) != "before" {
				t.Errorf("the payload of it: %q, %v", b, err)
			}
		})
	}
}

func TestContentReachesTheAgentAsItCame(t *testing.T) {
	const structured = "application/cloudevents+json"
	for name, tt := range map[string]struct {
		record            *kgo.Record
		content, encoding string
	}{
		"JSON":                    {record(`{"a":12345678901234567890.10,"b":[1, 2]}`), `{"a":12345678901234567890.10,"b":[1, 2]}`, ""},
		"JSON on several lines":   {record("{\r\n\"a\":\n1}"), "{  \"a\": 1}", ""},
		"a JSON string":           {record(`"hello"`), `"hello"`, ""},
		"a number":                {record(" 7 "), ` 7 `, ""},
		"text":                    {record("hello"), `"aGVsbG8="`, "base64"},
		"bytes":                   {record("\xff\x00"), `"/wA="`, "base64"},
		"JSON that isn't UTF-8":   {record("\"\xff\""), `"Iv8i"`, "base64"},
		"two JSON values":         {record("1 2"), `"MSAy"`, "base64"},
		"nothing":                 {record(""), `""`, "base64"},
		"an envelope's content":   {record(envelope), `{"n":12345678901234567890}`, ""},
		"structured data":         {record(`{"specversion":"1.0","id":"i","type":"t","source":"s","data":"text"}`, "content-type", structured), `"text"`, ""},
		"structured without data": {record(`{"specversion":"1.0","id":"i","type":"t","source":"s"}`, "content-type", structured), `null`, ""},
		"data_base64":             {record(`{"specversion":"1.0","id":"i","type":"t","source":"s","data_base64":"/wA="}`, "content-type", structured), `"/wA="`, "base64"},
		"data_base64 of JSON":     {record(`{"specversion":"1.0","id":"i","type":"t","source":"s","data_base64":"MQ=="}`, "content-type", structured), `1`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := AppendPayload(nil, tt.record, Params{Topic: topic, Agent: "a", Attempt: 1})
			want := `{"content":` + tt.content + `,`
			if tt.encoding != "" {
				want += `"content_encoding":"` + tt.encoding + `",`
			}
			if err != nil || !strings.HasPrefix(string(b), want+`"topic":"github.issues"`) {
				t.Errorf("%s, %v", b, err)
			}
			payload(t, tt.record)
		})
	}
	tombstone := record("")
	tombstone.Value = nil
	if m := payload(t, tombstone); m["content"] != nil {
		t.Errorf("%v", m)
	}
}

func TestThePayloadIsOneFlatObject(t *testing.T) {
	m := payload(t, record(envelope, task.HeaderEvent, "1701234567891 e1"))
	want := map[string]any{
		"content": map[string]any{"n": json.Number("12345678901234567890")}, "topic": topic, "task_id": "e1", "correlation_id": "c1", "causation_id": "c0",
		"tenant_id": "t1", "source": "s", "reply_to": "answers", "webhook": "http://w", "delivery_attempts": json.Number("4"),
		"created_at": json.Number("1701234567.891234"), "agent": "triage", "processing_consumer": "n1-1", "variables": map[string]any{},
	}
	for k, v := range want {
		got, _ := json.Marshal(m[k])
		expected, _ := json.Marshal(v)
		if !bytes.Equal(got, expected) {
			t.Errorf("%s is %s, want %s", k, got, expected)
		}
	}
	if got := slices.Sorted(maps.Keys(m)); len(got) != len(want) {
		t.Errorf("the payload has %v", got)
	}
	raw := payload(t, record("1", task.HeaderEvent, "1700000000456 an id with spaces"))
	if raw["task_id"] != "an id with spaces" || raw["created_at"] != json.Number("1700000000.456") || raw["reply_to"] != nil {
		t.Errorf("%v", raw)
	}
	odd, err := AppendPayload(nil, record("1"), Params{Topic: topic, Agent: "a\"\\\n\x01\xff€", Variables: []byte(`{"v":1}`)})
	var m2 map[string]any
	if err != nil || json.Unmarshal(odd, &m2) != nil || m2["agent"] != "a\"\\\n\x01\ufffd€" || m2["variables"].(map[string]any)["v"] != 1.0 {
		t.Errorf("%s, %v", odd, err)
	}
}

func TestCloudEventsConformance(t *testing.T) {
	data, err := os.ReadFile("testdata/cloudevents-kafka.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Kafka []struct {
			Name, Mode, Value string
			Headers           map[string]string
			Attributes        map[string]string
			Data              json.RawMessage
		}
		Events []map[string]string
	}
	if err := json.Unmarshal(data, &vectors); err != nil || len(vectors.Kafka) != 3 || len(vectors.Events) != 7 {
		t.Fatal(len(vectors.Kafka), len(vectors.Events), err)
	}
	check := func(t *testing.T, r *kgo.Record, want Format, attributes map[string]string) map[string]any {
		t.Helper()
		e, err := Recognise(topic, r)
		if err != nil || e.Format != want || e.ID != attributes["id"] || e.Type != attributes["type"] || e.Source != attributes["source"] {
			t.Fatalf("%+v, %v", e, err)
		}
		if at, ok := attributes["time"]; ok && e.CreatedAt.Format(time.RFC3339) != at {
			t.Errorf("time is %v, want %s", e.CreatedAt, at)
		}
		return payload(t, r)
	}
	for _, v := range vectors.Kafka {
		t.Run(v.Name, func(t *testing.T) {
			var headers []string
			for k, h := range v.Headers {
				headers = append(headers, k, h)
			}
			format := map[string]Format{"binary": CloudEventBinary, "structured": CloudEventStructured}[v.Mode]
			m := check(t, record(v.Value, headers...), format, v.Attributes)
			got, _ := json.Marshal(m["content"])
			var want bytes.Buffer
			if err := json.Compact(&want, v.Data); err != nil || !bytes.Equal(got, want.Bytes()) {
				t.Errorf("content is %s, want %s", got, want.Bytes())
			}
		})
	}
	for _, v := range vectors.Events {
		t.Run("binary "+v["id"], func(t *testing.T) {
			var headers []string
			for k, a := range v {
				switch k {
				case "data":
				case "datacontenttype":
					headers = append(headers, "content-type", a)
				default:
					headers = append(headers, "ce_"+k, a)
				}
			}
			m := check(t, record(v["data"], headers...), CloudEventBinary, v)
			if m["content_encoding"] == "base64" {
				if b, _ := base64.StdEncoding.DecodeString(m["content"].(string)); string(b) != v["data"] {
					t.Errorf("content is %q", b)
				}
			} else if !json.Valid([]byte(v["data"])) {
				t.Errorf("content is %v", m["content"])
			}
		})
		t.Run("structured "+v["id"], func(t *testing.T) {
			value, _ := json.Marshal(v)
			if m := check(t, record(string(value), "content-type", "application/cloudevents+json"), CloudEventStructured, v); m["content"] != v["data"] {
				t.Errorf("content is %v", m["content"])
			}
		})
	}
}

func FuzzValidAgreesWithEncodingJSON(f *testing.F) {
	for _, s := range []string{envelope, `[1,-0.5e+3,"\u00e9",true,false,null,{}]`, `{"a":}`, `01`, `"` + "\x01" + `"`, `[[[]]]`, "\"12345678\\", `-`, `1.`, `1e`, `"\u12"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := valid(b), json.Valid(b); got != want {
			t.Errorf("%q is valid: %v, want %v", b, got, want)
		}
	})
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte(envelope), "content-type", []byte(ContentType), []byte("1 i"))
	f.Add([]byte(`{"specversion":"1.0","id":"i","type":"t","source":"s","data":{"a":1}}`), "content-type", []byte("application/cloudevents+json"), []byte("1 i"))
	f.Add([]byte("\xff"), "ce_specversion", []byte("1.0"), []byte(""))
	f.Fuzz(func(t *testing.T, value []byte, header string, headerValue, id []byte) {
		r := record(string(value), header, string(headerValue), task.HeaderEvent, string(id), "ce_id", "i", "ce_type", "t", "ce_source", "s")
		_, err := Recognise(topic, r)
		var format *FormatError
		if err != nil && !errors.As(err, &format) {
			t.Fatal(err)
		}
		if err == nil {
			payload(t, r)
		}
	})
}

func TestNestingHasALimit(t *testing.T) {
	for depth, want := range map[int]bool{maxDepth: true, maxDepth + 1: false} {
		b := []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth))
		if valid(b) != want || json.Valid(b) != want {
			t.Errorf("%d levels: %v, encoding/json %v", depth, valid(b), json.Valid(b))
		}
	}
}

func BenchmarkRaw(b *testing.B) {
	value := `{"action":"opened","issue":{"number":7,"title":"` + strings.Repeat("x", 250) + `"}}`
	r := record(value, task.HeaderEvent, "1700000000456 github.issues:3:42", "traceparent", "00-x")
	b.Run("json.Valid", func(b *testing.B) {
		for b.Loop() {
			if !json.Valid(r.Value) {
				b.Fatal()
			}
		}
	})
	b.Run("valid", func(b *testing.B) {
		for b.Loop() {
			if !valid(r.Value) {
				b.Fatal()
			}
		}
	})
	b.Run("Recognise", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Recognise(topic, r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AppendPayload", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst, _ = AppendPayload(dst[:0], r, Params{Topic: topic, Agent: "triage", Consumer: "n1-1", Attempt: 1})
		}
	})
}
