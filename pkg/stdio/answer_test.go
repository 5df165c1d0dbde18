package stdio

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/reeve-run/reeve/pkg/jsonlex"
	"github.com/reeve-run/reeve/pkg/task"
)

func TestParseAnswer(t *testing.T) {
	tests := []struct {
		name, line string
		prefix     string
		want       Answer
		no         bool
	}{
		{name: "a result", line: `{"id":"7","status":"ok","result":{"a":[1,2]}}`, want: Answer{ID: 7, HasID: true, OK: true, Result: []byte(`{"a":[1,2]}`)}},
		{name: "members in another order", line: ` { "result" : 1 , "status":"ok", "id": "7" } `, want: Answer{ID: 7, HasID: true, OK: true, Result: []byte(`1`)}},
		{name: "a bare id", line: `{"id":7,"status":"ok"}`, want: Answer{ID: 7, HasID: true, OK: true}},
		{name: "the answer to shutdown", line: `{"id":null,"status":"ok","result":{"message":"bye"}}`, want: Answer{OK: true, Result: []byte(`{"message":"bye"}`)}},
		{name: "an error", line: `{"id":"1","status":"error","error":"a \"b\"","error_class":"rate_limited","error_type":"E","traceback":"t\nu","retry_after":1.5}`,
			want: Answer{ID: 1, HasID: true, Message: "a \"b\"", Class: task.ClassRateLimited, Type: "E", Traceback: "t\nu", RetryAfter: 1500 * time.Millisecond}},
		{name: "an error without a text", line: `{"id":"1","status":"error","error":null}`, want: Answer{ID: 1, HasID: true}},
		{name: "an error that is an object", line: `{"id":"1","status":"error","error":{"code":5}}`, want: Answer{ID: 1, HasID: true, Message: `{"code":5}`}},
		{name: "numbers that JSON doesn't know", line: `{"id":"1","status":"ok","result":{"a":NaN,"b":[Infinity,-Infinity],"c":"NaN \" Infinity"}}`,
			want: Answer{ID: 1, HasID: true, OK: true, Result: []byte(`{"a":null,"b":[null,null],"c":"NaN \" Infinity"}`)}},
		{name: "bytes that aren't UTF-8", line: "{\"id\":\"1\",\"status\":\"ok\",\"result\":\"a\xffb\"}", want: Answer{ID: 1, HasID: true, OK: true, Result: []byte("\"a\uFFFDb\"")}},
		{name: "output before it", line: `42{"id":"1","status":"ok","result":1}`, prefix: "42", want: Answer{ID: 1, HasID: true, OK: true, Result: []byte(`1`)}},
		{name: "an object as output before it", line: `{"x":1}{"id":"1","status":"ok"}`, prefix: `{"x":1}`, want: Answer{ID: 1, HasID: true, OK: true}},
		{name: "no status", line: `{"id":"1","result":1}`, want: Answer{ID: 1, HasID: true, Class: task.ClassInternal, Message: `the agent's answer has the status "": it must be "ok" or "error"`}},
		{name: "an adapter that can't start", line: `{"type":"startup_error","status":"error","error_type":"X","error":"m"}`, want: Answer{Kind: StartupError, Type: "X", Message: "m"}},
		{name: "output", line: `42`, no: true},
		{name: "an object as output", line: `{"level":"info"}`, no: true},
		{name: "a result that isn't JSON", line: `{"id":"1","status":"ok","result":{a:1}}`, no: true},
		{name: "an object with an id as output", line: `{"id":1,"level":"info"}`, no: true},
		{name: "nothing", line: ``, no: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, prefix, err := ParseAnswer([]byte(tt.line))
			if (err != nil) != tt.no {
				t.Fatalf("error %v", err)
			}
			if string(prefix) != tt.prefix {
				t.Errorf("prefix %q, want %q", prefix, tt.prefix)
			}
			if string(got.Result) != string(tt.want.Result) {
				t.Errorf("result %s, want %s", got.Result, tt.want.Result)
			}
			got.Result, tt.want.Result = nil, nil
			if g, w := toJSON(t, got), toJSON(t, tt.want); g != w {
				t.Errorf("\n got %s\nwant %s", g, w)
			}
		})
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParseTruncated(t *testing.T) {
	for head, want := range map[string]uint64{
		`{"id":"12","status":"ok","result":"aaa`: 12,
		`x {"id" : 12 ,"result`:                  12,
		`{"result":"aaaa`:                        0,
		`{"id":null,"res`:                        0,
		`{"id"`:                                  0,
	} {
		if got, ok := ParseTruncated([]byte(head)); got != want || ok != (want != 0) {
			t.Errorf("%s: %d, %t", head, got, ok)
		}
	}
}

func TestParseBroken(t *testing.T) {
	for line, want := range map[string]uint64{
		`{"id":"12","status":"ok","result":{a:1}}`: 12,
		` {"id": 3, "status": "ok", "result": tru`: 3,
		`{"id":"12","level":"info"`:                0,
		`x {"id":"12","status":"ok"`:               0,
		``:                                         0,
	} {
		if got, ok := ParseBroken([]byte(line)); got != want || ok != (want != 0) {
			t.Errorf("%s: %d, %t", line, got, ok)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{`{"id":"7","status":"ok","result":{"a":[1,-2.5e3,NaN,-Infinity,"\u00e4\\"]}}`, `x{"id":1,"status":"error","error":"e","retry_after":"3"}`, `{"id":"1"`, strings.Repeat("[", 2000)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		a, prefix, err := ParseAnswer(line)
		if err != nil {
			return
		}
		if a.OK && a.Result != nil && (!json.Valid(a.Result) || !utf8.Valid(a.Result)) {
			t.Errorf("the result is no JSON in UTF-8: %q", a.Result)
		}
		if len(prefix) >= len(line) || a.RetryAfter < 0 {
			t.Errorf("prefix %q, %+v", prefix, a)
		}
	})
}

// FuzzScanner holds the scanner against encoding/json.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `[1,2,{"b":"\ud800"}]`, `-0.5E-3`, `"\x"`, ` null `, `01`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s scanner
		end := s.value(b, jsonlex.Space(b, 0))
		got := end >= 0 && jsonlex.Space(b, end) == len(b)
		if s.odd || len(b) > maxDepth {
			return
		}
		if want := json.Valid(b); got != want {
			t.Errorf("%q: %t, encoding/json says %t", b, got, want)
		}
	})
}

func BenchmarkParseAnswer(b *testing.B) {
	line := []byte(`{"id": "123456", "status": "ok", "result": {"repository": "octocat/hello-world", "label": "size/M", "lines": 123, "files": ["a.go", "b.go"]}}`)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseAnswer(line); err != nil {
			b.Fatal(err)
		}
	}
}
