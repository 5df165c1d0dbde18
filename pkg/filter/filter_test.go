package filter

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
)

func record(value string, headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: "orders", Partition: 2, Offset: 9, Key: []byte("k1"), Value: []byte(value), Timestamp: time.UnixMilli(1700000000123)}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

const issue = `{"action":"opened","number":12,"price":9.5,"big":9223372036854775808,"no":null,"flag":true,"labels":["a","b",{"n":3}],` +
	`"issue":{"title":"A \"title\"","user":{"login":"x"}},"ty\u0070e":"escaped","twice":1,"twice":2,"at":"2026-01-02T03:04:05Z"}`

func TestMatch(t *testing.T) {
	envelope := `{"topic":"orders","id":"e1","type":"ty","tenant_id":"acme","created_at":1700000000,"payload":{"content":` + issue + `}}`
	cloud := []string{"ce_specversion", "1.0", "ce_id", "c1", "ce_source", "/s", "ce_type", "order.created"}
	noKey := record(issue)
	noKey.Key = nil
	for _, c := range []struct {
		expression string
		r          *kgo.Record
		want       bool
	}{
		{`data.action == "opened"`, record(issue), true},
		{`data.action == "opened"`, record(envelope), true},
		{`data.action == "opened"`, record(issue, cloud...), true},
		{`data.action != "opened"`, record(issue), false},
		{`data.issue.user.login == 'x' && data.issue.title == "A \"title\""`, record(issue), true},
		{`data["type"] == "escaped"`, record(issue), true},
		{`data.twice == 2`, record(issue), true},
		{`data.number + 1 == 13 && data.number > 11.5 && data.price * 2.0 == 19.0 && data.big > 1u`, record(issue), true},
		{`data.no == null && data.flag == true && has(data.no) && !has(data.missing)`, record(issue), true},
		{`data.?missing.orValue("x") == "x" && data.?action.orValue("") == "opened"`, record(issue), true},
		{`data.labels.exists(l, l == "b") && data.labels[2].n == 3 && size(data.labels) == 3 && "a" in data.labels`, record(issue), true},
		{`data.labels == ["a", "b", {"n": 3}] && data.issue.user == {"login": "x"}`, record(issue), true},
		{`data.labels + [1] == ["a", "b", {"n": 3}, 1]`, record(issue), true},
		{`"action" in data && size(data.issue) == 2 && data.exists(k, k == "number")`, record(issue), true},
		{`timestamp(data.at) < timestamp("2026-02-01T00:00:00Z")`, record(issue), true},
		{`data == 7`, record(" 7 "), true},
		{`data == null`, record("no JSON"), true},
		{`data == null`, record("\xff"), true},
		{`data == null`, &kgo.Record{}, true},
		{`headers["a"] == "2" && headers.b == "�" && !("c" in headers)`, record("", "a", "1", "b", "\xff", "a", "2"), true},
		{`headers[?"c"].orValue("") == ""`, record(""), true},
		{`key == "k1" && topic == "orders" && type == ""`, record(""), true},
		{`key == "" && !key.startsWith("k")`, noKey, true},
		{`type == "order.created" && envelope.type == type && envelope.source == "/s" && envelope.id == "c1"`, record("1", cloud...), true},
		{`type == "ty" && envelope.tenant_id == "acme" && envelope.correlation_id == null && envelope.delivery_attempts == 1`, record(envelope), true},
		{`envelope.created_at == timestamp("2023-11-14T22:13:20Z")`, record(envelope), true},
		{`envelope.id == "orders:2:9" && envelope.tenant_id == "t"`, record("", "reeve-tenant-id", "t"), true},
		{`type == "of the content" && envelope.type == "of the content"`, record(`{"type":"of the content"}`), true},
		{`key == "k1"`, record("{", "content-type", event.ContentType), true}, // what breaks isn't looked at
		{"data.action ==\n  'opened'", record(issue), true},
	} {
		f, err := Compile(c.expression)
		if err != nil {
			t.Errorf("%s %v", c.expression, err)
			continue
		}
		for range 2 { // nothing is left over from one event to the next
			if got, err := f.Match("orders", c.r); got != c.want || err != nil {
				t.Errorf("%s on %q: %v, %v", c.expression, c.r.Value, got, err)
			}
		}
	}
}

func TestWhatCantBeEvaluatedIsAnError(t *testing.T) {
	for expression, want := range map[string]string{
		`data.missing == 1`:      "no such key: missing",
		`data.issue.nobody == 1`: "no such key: nobody",
		`data.action.x == 1`:     "no such key: x",
		`data.action > 1`:        "no such overload",
		`data.labels[9] == 1`:    "index out of bounds: 9",
		`headers["a"] == "b"`:    "no such key: a",
		`envelope.nothing == 1`:  "no such key: nothing",
		`data.price + 1 > 1`:     "no such overload",
		`timestamp(data.action) < timestamp("2026-02-01T00:00:00Z")`: "invalid RFC 3339 timestamp",
	} {
		f, err := Compile(expression)
		if err != nil {
			t.Errorf("%s %v", expression, err)
			continue
		}
		if _, err := f.Match("orders", record(issue)); err == nil || !strings.Contains(err.Error(), "can't be evaluated: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", expression, err)
		}
	}
	f, err := Compile(`data.x == 1`)
	if err != nil {
		t.Fatal(err)
	}
	var format *event.FormatError
	if _, err := f.Match("orders", record("{", "content-type", event.ContentType)); !errors.As(err, &format) {
		t.Errorf("a record that breaks its format: %v", err)
	}
	if _, err := f.Match("orders", record("no JSON")); err == nil {
		t.Error("a field of nothing was found")
	}
}

func TestABadExpressionIsRefusedWithItsPlace(t *testing.T) {
	for expression, want := range map[string]string{
		`dat.x == 1`:                       "column 1: undeclared reference to 'dat'",
		`data.action = "opened"`:           "column 13: Syntax error",
		"data.a == 1 &&\n  nothing == 2":   "line 2, column 3: undeclared reference to 'nothing'",
		`data.flag`:                        "compare it, as in data.flag == true",
		`1 + 1`:                            "results in int",
		`key == 1`:                         "column 5: found no matching overload",
		`data.s.matches("(")`:              "missing closing )",
		``:                                 "column 1: Syntax error",
		`x(1)`:                             "undeclared reference to 'x'",
		strings.Repeat("a", MaxLength+1):   "at most 4096",
		strings.Repeat("(", 1000) + "true": "column",
	} {
		f, err := Compile(expression)
		if err == nil || !strings.Contains(err.Error(), want) || f != nil {
			t.Errorf("%.40q: %v", expression, err)
		} else if strings.Contains(err.Error(), "expecting {") || len(err.Error()) > 600 {
			t.Errorf("%.40q: too long for a person: %v", expression, err)
		}
	}
	if err := Check(""); err != nil {
		t.Errorf("no filter at all: %v", err)
	}
}

// However large an event is, one evaluation ends soon.
func TestWhatAnEvaluationCostsIsBounded(t *testing.T) {
	many := "[" + strings.Repeat("1,", 200_000) + "1]"
	deep := strings.Repeat(`{"a":[`, 4000) + "1" + strings.Repeat(`]}`, 4000)
	wide := "{" + strings.Repeat(`"some name":1,`, 50_000) + `"last":1}`
	for _, c := range []struct{ expression, value, err string }{
		{`data.all(x, data.all(y, x == y))`, many, "it is stopped after"},
		{`data.all(x, x == 1)`, "[" + strings.Repeat("1,", 1000) + "1]", ""},
		{`data == data`, deep, "nested more than 100 levels deep"},
		{`data.list == data.list && data.list[0][0] != 1`, `{"list":` + strings.Repeat("[", 90) + "1" + strings.Repeat("]", 90) + "}", ""},
		{`data.a[0].a[0].a == 1`, deep, ""},
		{`data.list.all(x, data.wide.last == 1)`, `{"list":[` + strings.Repeat("1,", 20_000) + `1],"wide":` + wide + `}`, ""},
	} {
		f, err := Compile(c.expression)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = f.Match("orders", record(c.value))
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s took %v", c.expression, took)
		}
		if got := fmt.Sprint(err); c.err == "" && err != nil || !strings.Contains(got, c.err) {
			t.Errorf("%s: %v", c.expression, err)
		}
	}
}

func FuzzCompileAndMatch(f *testing.F) {
	for _, s := range []string{`data.a == 1`, `headers["a"] == "b"`, `data.l.exists(x, x > 1)`, `true`} {
		f.Add(s, []byte(issue))
	}
	f.Fuzz(func(_ *testing.T, expression string, value []byte) {
		if c, err := Compile(expression); err == nil {
			_, _ = c.Match("orders", &kgo.Record{Value: value}) // it must only come back
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, c := range []struct{ name, expression string }{
		{"header", `headers["a"] == "b"`}, {"key", `key == "k1"`}, {"field", `data.action == "opened"`}, {"nested", `data.issue.user.login == "x"`},
		{"list", `data.labels.exists(l, l == "b")`}, {"optional", `data.?missing.orValue("") == ""`},
	} {
		f, err := Compile(c.expression)
		if err != nil {
			b.Fatal(err)
		}
		r := record(issue, "a", "b")
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := f.Match("orders", r); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}
