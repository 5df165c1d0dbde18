package cli

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/services/registry/api"
)

func (f *fake) GetAgentLogs(_ context.Context, r api.GetAgentLogsRequestObject) (api.GetAgentLogsResponseObject, error) {
	out := api.GetAgentLogs200JSONResponse{Items: []api.LogLine{}}
	for _, l := range f.lines {
		if l.Id > r.Params.After && (r.Params.Instance == "" || r.Params.Instance == l.Instance) {
			out.Items = append(out.Items, l)
		}
	}
	if n := len(out.Items); r.Params.After == 0 && n > *r.Params.Limit {
		out.Items = out.Items[n-*r.Params.Limit:]
	}
	return out, nil
}

func logged(id int64, instance, line string) api.LogLine {
	return api.LogLine{Id: id, Instance: instance, At: time.Unix(1000+id, 0).UTC(), Line: line}
}

func TestLogsShowsTheEndOfALog(t *testing.T) {
	f := newFake()
	f.lines = []api.LogLine{logged(1, "dev-1", "one"), logged(2, "dev-2", "two\x1b[31m"), logged(3, "dev-1", "three")}
	for _, c := range []struct{ line, want string }{
		{"agent logs t/a --tail 2", "1970-01-01T00:16:42.000Z dev-2  two [31m\n1970-01-01T00:16:43.000Z dev-1  three\n"},
		{"agent logs --topic t --name a --instance dev-2 -o jsonl", `{"at":"1970-01-01T00:16:42Z","id":2,"instance":"dev-2","line":"two\u001b[31m"}` + "\n"},
	} {
		if got := f.reeve(t, "", strings.Fields(c.line)...); got.code != Done || got.out != c.want {
			t.Errorf("%s: %+v, want %q", c.line, got, c.want)
		}
	}
	for _, flags := range []string{"--tail 0", "--tail 1001", "--tail x", "--follow -o json", "--follow -o yaml"} {
		if got := f.reeve(t, "", append([]string{"agent", "logs", "t/a"}, strings.Fields(flags)...)...); got.code != Usage || got.err == "" {
			t.Errorf("%s: %+v", flags, got)
		}
	}
}

func TestLogsFollowsALogThatWasEmpty(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(f.handler())
	defer server.Close()
	w := watching(t, []string{"REEVE_URL=" + server.URL}, "agent", "logs", "t/a", "--follow")
	f.change(func() { f.lines = []api.LogLine{logged(7, "dev-1", "first")} })
	w.line(w.out, "dev-1  first")
	f.change(func() { f.lines = append(f.lines, logged(9, "dev-1", "second")) })
	w.line(w.out, "dev-1  second")
	w.ends(Done)
}
