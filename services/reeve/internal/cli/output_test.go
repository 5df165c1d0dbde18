package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/services/registry/api"
)

// twoAgents is a fake with two agents, one of them with letters that HTML would escape.
func twoAgents() *fake {
	f := newFake()
	b := running()
	b.Name, b.Tags, b.Callback = "b", []string{"x", "<y>"}, "m:f"
	b.RegisteredAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.agents["t/b"] = b
	return f
}

func TestJSONLIsALineAnItem(t *testing.T) {
	got := twoAgents().reeve(t, "", "agent", "list", "-o", "jsonl")
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	if got.code != 0 || len(lines) != 2 {
		t.Fatalf("%d lines: %+v", len(lines), got)
	}
	for _, line := range lines {
		var a struct{ Topic, Name string }
		if err := json.Unmarshal([]byte(line), &a); err != nil || a.Topic != "t" || a.Name == "" {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestATextIsWrittenAsItCame(t *testing.T) {
	for format, want := range map[string]string{"json": "{\n  \"a\": \"<&>\"\n}\n", "jsonl": "{\"a\":\"<&>\"}\n", "yaml": "a: <&>\n"} {
		if got, err := encode(json.RawMessage(`{ "a": "<&>" }`), format); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", format, got, err)
		}
	}
}

func TestJSONLOfOneThingIsOneLine(t *testing.T) {
	for _, line := range []string{"agent get t/a", "health", "task get t/0/7 --name a", "publish t --content 1"} {
		f := newFake()
		f.asked = 1
		got := f.reeve(t, "", append(strings.Fields(line), "-o", "jsonl")...)
		if got.code != 0 || strings.Count(got.out, "\n") != 1 || !json.Valid([]byte(got.out)) {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

func TestAnEmptyListIsNothingInJSONL(t *testing.T) {
	if got := (&fake{}).reeve(t, "", "agent", "list", "-o", "jsonl"); got.code != 0 || got.out != "" {
		t.Errorf("%+v", got)
	}
}

func TestAWideTableHasMoreColumns(t *testing.T) {
	f := twoAgents()
	table, wide := f.reeve(t, "", "agent", "list").out, f.reeve(t, "", "agent", "list", "-o", "wide").out
	header, _, _ := strings.Cut(table, "\n")
	if !strings.HasPrefix(wide, header) {
		t.Errorf("the wide table begins otherwise:\n%s", wide)
	}
	for _, want := range []string{"RUNS", "CONCURRENCY", "ATTENTION", "m:f", "x,<y>", "2026-01-02T03:04:05.000Z"} {
		if !strings.Contains(wide, want) || strings.Contains(table, want) {
			t.Errorf("%s isn't in the wide table alone:\n%s", want, wide)
		}
	}
}

func TestWideHealthShowsWhatIsUpToo(t *testing.T) {
	f := newFake()
	f.parts = map[string]api.Component{"kafka": {Status: "up"}}
	if narrow := f.reeve(t, "", "health").out; strings.Contains(narrow, "kafka") {
		t.Errorf("got %s", narrow)
	}
	if wide := f.reeve(t, "", "health", "-o", "wide").out; !strings.Contains(wide, "kafka: up\n") {
		t.Errorf("got %s", wide)
	}
}
