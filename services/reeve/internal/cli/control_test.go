package cli

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/services/registry/api"
)

func listeners() *fake {
	return &fake{agents: map[string]api.Agent{"t/a": {Topic: "t", Name: "a"}, "other/b": {Topic: "other", Name: "b"}, "other/c": {Topic: "other", Name: "c"}}, task: "completed"}
}

func TestATaskIsCancelledAndRetriedByCommand(t *testing.T) {
	f := listeners()
	got := f.reeve(t, "", "task", "cancel", "t/1/7", "--reason", "ordered twice")
	if got.code != 0 || !strings.Contains(got.out, "t/1/7 of t/a: pending: nobody has come across it") || !strings.Contains(got.out, "stands until") {
		t.Errorf("%+v", got)
	}
	if got := f.reeve(t, "", "task", "retry", "other/c/1/7", "--wait", "0s", "-o", "json"); got.code != 0 || !strings.Contains(got.out, `"state": "done"`) {
		t.Errorf("%+v", got)
	}
	if want := []string{"cancel a ordered twice 5s", "retry c  0s"}; !slices.Equal(f.controlled, want) {
		t.Errorf("asked for %q, want %q", f.controlled, want)
	}
	for args, want := range map[string]int{"retry t/1/7 --reason conflict": Conflict, "cancel other/1/7": Usage, "cancel nobody/1/7": NotFound, "cancel t/1": Usage, "retry t/1/7 --wait 16s": Usage,
		"watch t/1/7 --timeout 0s": Usage} {
		if got := f.reeve(t, "", append([]string{"task"}, strings.Fields(args)...)...); got.code != want {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestATaskIsWatchedAndWaitedForToItsEnd(t *testing.T) {
	half := 0.5
	f := listeners()
	f.progress = &api.TaskProgress{Attempt: 3, Fraction: &half, Message: "page 5 of 10", Node: "n1", At: time.Unix(0, 0)}
	got := f.reeve(t, "", "task", "watch", "t/1/7")
	if got.code != 0 || !strings.Contains(got.err, "retrying, attempt 3, on n1, 50 %, page 5 of 10") || !strings.Contains(got.out, "completed") {
		t.Errorf("%+v", got)
	}
	f = listeners()
	f.task = "cancelled"
	if got := f.reeve(t, "", "task", "watch", "t/1/7", "-o", "jsonl"); got.code != 1 || strings.Count(got.out, "\n") != 2 || !strings.Contains(got.out, `"status":"cancelled"`) {
		t.Errorf("%+v", got)
	}
	f = listeners()
	if got := f.reeve(t, "", "task", "get", "t/1/7", "--name", "a", "--wait"); got.code != 0 || !strings.Contains(got.out, "completed") {
		t.Errorf("%+v", got)
	}
	f = listeners()
	f.task = "failed"
	if got := f.reeve(t, "", "task", "get", "t/1/7", "--name", "a", "--wait", "--timeout", "20s"); got.code != 1 {
		t.Errorf("%+v", got)
	}
	if got := f.reeve(t, "", "task", "get", "t/1/7", "--timeout", "1s"); got.code != Usage {
		t.Errorf("%+v", got)
	}
}

func TestMetricsTellTheVersionsApart(t *testing.T) {
	f := listeners()
	got := f.reeve(t, "", "metrics", "--by-version")
	if lines := strings.Split(got.out, "\n"); got.code != 0 || len(lines) < 3 || !strings.Contains(lines[1], "1.0.0") || !strings.Contains(lines[2], "2.0.0") {
		t.Errorf("%+v", got)
	}
	if got := f.reeve(t, "", "metrics", "--by-version", "-o", "jsonl"); got.code != 0 || strings.Count(got.out, "\n") != 2 || !strings.Contains(got.out, `"version":"2.0.0"`) {
		t.Errorf("%+v", got)
	}
}
