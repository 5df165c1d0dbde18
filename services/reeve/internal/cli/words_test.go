package cli

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/api"
)

func TestRequestsAreToldAsCommands(t *testing.T) {
	for said, want := range map[string]string{
		"there is no such agent\nsee GET /v1/agents for those there are":               "there is no such agent",
		"see GET /v1/dlq/orders/hello for those there are":                             "see `reeve dlq list orders/hello` for those there are",
		"see GET /v1/dlq/orders/hello/orders; an order is kept":                        "see `reeve dlq orders orders/hello`; an order is kept",
		"see GET /v1/dlq/orders/hello/orders/o1":                                       "see `reeve dlq orders orders/hello`",
		"see its outcome at GET /v1/tasks/orders/hello/0/17; publish the event again":  "see its outcome at `reeve task get orders/hello/0/17`; publish the event again",
		"GET /v1/tasks has the history":                                                "`reeve task list` has the history",
		"see what POST /v1/events answered; an event":                                  "see what `reeve publish` said of it; an event",
		"see GET /v1/webhooks/dlq/orders; see GET /v1/webhooks/dlq for those":          "see `reeve webhook orders`; see `reeve webhook list` for those",
		"see filtered of GET /v1/agents/{topic}/{name}/metrics for how many there are": "see filtered of `reeve metrics` for how many there are",
		"see GET /v1/webhooks/dlq/orders/o1":                                           "see `reeve webhook orders`",
		"see GET /health; try again when Kafka answers":                                "see `reeve health`; try again when Kafka answers",
		"correct the fields in errors; nothing was published":                          "correct what is named above; nothing was published",
		"an agent that says `get it at /v1/x`":                                         "an agent that says `get it at /v1/x`",
	} {
		if got := inCommands(said); got != want {
			t.Errorf("%s: got %s", said, got)
		}
	}
}

func TestARefusalIsToldOnceByWhatWasTyped(t *testing.T) {
	refuse := func(code, errors, detail string) string {
		server := httptest.NewServer(refusing(422, "application/problem+json",
			`{"status":422,"code":"`+code+`","detail":"`+detail+`","remediation":"correct the fields in errors","errors":`+errors+`}`, ""))
		t.Cleanup(server.Close)
		return "REEVE_URL=" + server.URL
	}
	file := filepath.Join(t.TempDir(), "agents.yaml")
	if err := os.WriteFile(file, []byte("agents:\n  - {topic: t, name: a, command: ./a}\n  - {topic: reeve.control, name: b, command: ./b}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	one := refuse("invalid_agent", `[{"field":"agents[1].topic","message":"is bad"}]`, "agents[1].topic: is bad")
	two := refuse("invalid_agent", `[{"field":"agents[0].name","message":"x"},{"field":"agents[1].topic","message":"y"}]`, "2 faults, the first is agents[0].name: x")
	reply := refuse("invalid_event", `[{"field":"payload.reply_to","message":"is bad"}]`, "payload.reply_to: is bad")
	for environ, want := range map[string]struct{ line, says string }{
		one:   {"apply -f " + file, "error: " + file + ":3: reeve.control/b: topic: is bad\ncorrect what is named above\n"},
		two:   {"apply -f " + file, "error: 2 faults, the first is " + file + ":2: t/a: name: x\n  " + file + ":2: t/a: name: x\n  " + file + ":3: reeve.control/b: topic: y\ncorrect"},
		reply: {"publish orders --content 1 --reply-to x", "error: --reply-to: is bad\ncorrect what is named above\n"},
	} {
		got := execute(t.Context(), System{Environ: []string{environ}}, strings.Fields(want.line)...)
		if got.code != Failed || !strings.HasPrefix(got.err, want.says) {
			t.Errorf("%s: %+v, want %q", want.line, got, want.says)
		}
	}
}

func TestAFlagThatDoesNotParseIsToldInWords(t *testing.T) {
	for line, says := range map[string]string{
		"task list --limit 99999999999999999999": `for "--limit" flag: it is out of range: see`,
		"task list --limit ten":                  `for "--limit" flag: give a whole number: see`,
		"agent list --all=maybe":                 `flag: give true or false: see`,
	} {
		if got := newFake().reeve(t, "", strings.Fields(line)...); got.code != Usage || !strings.Contains(got.err, says) || strings.Contains(got.err, "strconv") {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

func TestWhoWaitsForAPausedAgentIsToldSo(t *testing.T) {
	f := newFake()
	a := running()
	a.Topic, a.Name, a.Phase = "orders", "hello", spec.Paused
	f.agents = map[string]api.Agent{"orders/hello": a}
	got := f.reeve(t, "", "publish", "orders", "--content", "1", "--wait")
	if got.code != Failed || !strings.Contains(got.err, "orders/hello is paused: `reeve agent resume orders/hello`") {
		t.Errorf("%+v", got)
	}
}
