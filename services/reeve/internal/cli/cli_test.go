package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/api"
)

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("agents:\n- topic: t\n  calback: a:b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"":                                    {0, ""},
		"agent list":                          {0, ""},
		"agent get t/a":                       {0, ""},
		"agent get --topic t --name a":        {0, ""},
		"agent get t/a --topic t":             {2, "name the agent once"},
		"agent get t":                         {2, "write TOPIC/NAME"},
		"agent get":                           {2, "name the agent"},
		"agent get t/missing":                 {3, "it is agent_not_found\ndo something"},
		"agent resume t/a":                    {4, "illegal_transition"},
		"agent listt":                         {2, "did you mean list?"},
		"agent scale t/a":                     {2, `"scale" is no command of reeve agent`},
		"helth":                               {2, "did you mean health?"},
		"surgeon":                             {2, `"surgeon" is no command of reeve`},
		"agent list -o wide":                  {0, ""},
		"agent list -o jsonl":                 {0, ""},
		"agent list -o xml":                   {2, "use table, wide, json, jsonl, yaml"},
		"agent list --colour":                 {2, "unknown flag: --colour"},
		"agent list extra":                    {2, "takes no arguments"},
		"agent delete t/a --cleanup":          {2, "discards 1 waiting task and its place in the topic (0 events it hasn't read yet) for ever"},
		"agent delete t/a --delete-dlq":       {2, "discards 3 dead letters for ever: nobody can be asked here: say --yes"},
		"agent delete t/a --delete-dlq --yes": {0, ""},
		"agent delete t/a":                    {0, ""},
		"agent delete-topic":                  {2, "name the topic"},
		"--version":                           {0, ""},
		"agent history t/a":                   {0, ""},
		"apply -f " + bad:                     {1, bad + ":3:3: calback is no key, did you mean callback?"},
		"apply -f " + dir + "/none.yaml":      {1, "name the file by -f"},
		"publish t":                           {2, "say what to publish"},
		"publish t --content {":               {2, "--content is no JSON"},
		"publish t --content {} --ndjson x":   {2, "say what to publish"},
		"publish t --ndjson x --wait":         {2, "--wait with --ndjson is not available in this version"},
		"publish t --ndjson " + dir + "/none": {1, "read --ndjson"},
		"publish a/b --content {}":            {2, "illegal"},
		"publish t --content {} --key k":      {0, ""},
		"task get nonsense":                   {2, "no task id"},
		"bus groups":                          {2, "--stream TOPIC"},
		"dlq list":                            {0, ""},
		"health":                              {0, ""},
		"dev --brokers a:1 --kafka-listen 127.0.0.1:1": {2, "keep one"},
	} {
		t.Run(line, func(t *testing.T) {
			f := newFake()
			a := f.agents["t/a"]
			a.Waiting = 1
			f.agents["t/a"] = a
			got := f.reeve(t, "", strings.Fields(line)...)
			if got.code != want.code || !strings.Contains(got.err, want.says) || want.says == "" && got.err != "" {
				t.Errorf("exit code %d, want %d; stderr %q, want %q in it; stdout %q", got.code, want.code, got.err, want.says, got.out)
			}
		})
	}
}

func TestARegistryThatDoesNotAnswerIsUnreachable(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	var out, errs bytes.Buffer
	code := Run(context.Background(), System{Out: &out, Err: &errs, Environ: []string{"REEVE_URL=" + closed.URL}}, []string{"health"})
	if code != Unreachable || !strings.Contains(errs.String(), "REEVE_URL") {
		t.Errorf("%d, %s", code, &errs)
	}
}

func TestAListIsATableForPeopleAndTheRegistrysObjectsForPrograms(t *testing.T) {
	table := newFake().reeve(t, "", "agent", "list").out
	want := "TOPIC   NAME   PHASE    VERSION   RUNTIME   WORKERS   INSTANCES   RUNNING   WAITING   LAG\n" +
		"t       a      active   1.0.0     python    1         1           0         0         -\n"
	if table != want {
		t.Errorf("got\n%s\nwant\n%s", table, want)
	}
	var list struct {
		Items []struct{ Topic, Name string }
	}
	if err := json.Unmarshal([]byte(newFake().reeve(t, "", "agent", "list", "-o", "json").out), &list); err != nil || len(list.Items) != 1 || list.Items[0].Name != "a" {
		t.Errorf("got %+v, %v", list, err)
	}
	if yaml := newFake().reeve(t, "", "agent", "list", "-o", "yaml").out; !strings.HasPrefix(yaml, "items:\n- topic: t\n") && !strings.Contains(yaml, "  topic: t\n") {
		t.Errorf("got %s", yaml)
	}
	if empty := (&fake{}).reeve(t, "", "agent", "list", "-o", "json").out; strings.Join(strings.Fields(empty), "") != `{"items":[]}` {
		t.Errorf("got %s", empty)
	}
}

func TestHealthSaysItForPeopleAndByItsExitCode(t *testing.T) {
	for status, code := range map[api.HealthStatus]int{"running": 0, "ready": 0, "stopped": 1, "degraded": 1, "down": 1} {
		f := newFake()
		f.health = status
		got := f.reeve(t, "", "health")
		want := "Status: " + string(status) + "\nRegistered Agents: 3\nActive Consumers: 2\nUptime: 2h 15m\npostgres: down no answer\n"
		if got.code != code || got.out != want {
			t.Errorf("%s: exit code %d, want %d; got %q, want %q", status, got.code, code, got.out, want)
		}
	}
}

func TestWhatDestroysAsksOnATerminal(t *testing.T) {
	for answer, code := range map[string]int{"yes\n": 0, "no\n": 1, "": 1} {
		f := newFake()
		got := f.on(t, System{In: strings.NewReader(answer), Terminal: true}, "agent", "delete", "t/a", "--delete-dlq")
		if got.code != code || len(f.deleted) != 1-code {
			t.Errorf("%q: exit code %d, deletions %d: %s", answer, got.code, len(f.deleted), got.err)
		}
	}
}

func TestHoldIsAskedFor(t *testing.T) {
	f := newFake()
	if got := f.reeve(t, "", "agent", "stop", "t/a", "--reason", "because"); got.code != 0 || f.reason != "because" || got.out != "t/a is unchanged, its phase is created\n" {
		t.Errorf("%+v", got)
	}
	for verb, want := range map[string]string{"initialize": "t/a is initialized, its phase is initialized\n", "start": "t/a is started, its phase is active\n"} {
		if got := f.reeve(t, "", "agent", verb, "t/a"); got.code != 0 || got.out != want {
			t.Errorf("%s: %+v", verb, got)
		}
	}
	if got := f.reeve(t, "", "agent", "unsubscribe", "t/a", "--hold"); got.code != 0 || !f.held || got.out != "t/a is paused, its phase is paused\n" {
		t.Errorf("%+v, held %v", got, f.held)
	}
}

func agentsFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agents.yaml")
	if err := os.WriteFile(path, []byte("agents:\n- {topic: t, name: a, callback: 'c:f'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestApplyShowsTheDifferenceAndWaits(t *testing.T) {
	f := newFake()
	got := f.reeve(t, "", "apply", "-f", agentsFile(t), "--prune")
	if got.code != 0 || got.out != "~ t/a update\n    config.max_retries: 3 → 5\n" || !f.prune {
		t.Errorf("%+v", got)
	}
}

func TestApplySaysWhyAnAgentDoesNotComeUp(t *testing.T) {
	f := newFake()
	a := running()
	a.Phase, a.Instances, a.Cause = spec.Error, 0, &spec.Cause{Type: "AgentCallbackNotFoundError", Message: "no c.py", Remediation: "write it"}
	f.agents["t/a"] = a
	got := f.reeve(t, "", "apply", "-f", agentsFile(t))
	if got.code != 1 || !strings.Contains(got.err, "t/a didn't come up: AgentCallbackNotFoundError: no c.py\n  write it\n") {
		t.Errorf("%+v", got)
	}
}

func TestApplyDoesNotWaitForEver(t *testing.T) {
	f := newFake()
	a := running()
	a.Workers = 0
	f.agents["t/a"] = a
	if got := f.reeve(t, "", "apply", "-f", agentsFile(t)); got.code != 0 || !strings.Contains(got.err, "isn't up yet") {
		t.Errorf("%+v", got)
	}
}

func TestApplyTellsOfATopicThatIsNotThere(t *testing.T) {
	f := newFake()
	a := running()
	a.Workers, a.TopicMissing = 0, true
	f.agents["t/a"] = a
	if got := f.reeve(t, "", "apply", "-f", agentsFile(t)); got.code != 0 || !strings.Contains(got.err, "its topic t isn't on Kafka yet: create it") {
		t.Errorf("%+v", got)
	}
}

func TestPublishSendsEveryFlag(t *testing.T) {
	f := newFake()
	got := f.reeve(t, `{"x":1}`, "publish", "t", "--content", "@-", "--key", "k", "--correlation-id", "c", "--causation-id", "ca", "--reply-to", "r", "--webhook", "https://h/w",
		"--tenant-id", "te", "--source", "s", "--type", "ty", "--id", "i", "-o", "json")
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	b, err := json.Marshal(f.published)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"causation_id":"ca","correlation_id":"c","id":"i","key":"k","payload":{"content":{"x":1},"reply_to":"r","webhook":"https://h/w"},"source":"s","tenant_id":"te","topic":"t","type":"ty"}]`
	if string(b) != want {
		t.Errorf("got\n%s\nwant\n%s", b, want)
	}
}

func TestPublishWaitsForTheOutcome(t *testing.T) {
	for status, code := range map[api.TaskStatus]int{"completed": 0, "dead_lettered": 1, "filtered": 1} {
		f := newFake()
		f.task = status
		got := f.reeve(t, "", "publish", "t", "--content", "1", "--wait", "-o", "json")
		var detail struct{ Status, ID string }
		if err := json.Unmarshal([]byte(got.out), &detail); err != nil || detail.Status != string(status) || got.code != code {
			t.Errorf("%+v: %v", got, err)
		}
	}
}

func TestAWaitIsNotForEver(t *testing.T) {
	f := newFake()
	f.task = "running"
	if got := f.reeve(t, "", "publish", "t", "--content", "1", "--wait", "--timeout", "300ms"); got.code != 1 || !strings.Contains(got.err, "it is running") {
		t.Errorf("%+v", got)
	}
	for args, says := range map[string]string{"--timeout 1s": "--timeout is of --wait", "--wait --timeout 0": "give more than 0", "--wait --timeout -1s": "give more than 0"} {
		line := append([]string{"publish", "t", "--content", "1"}, strings.Fields(args)...)
		if got := newFake().reeve(t, "", line...); got.code != 2 || !strings.Contains(got.err, says) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestAFileIsPublishedInItsOrder(t *testing.T) {
	f := newFake()
	var lines strings.Builder
	for i := range 1200 {
		lines.WriteString(`{"n":` + number(i) + "}\n\n")
	}
	lines.WriteString(`{"topic":"t","key":"own","payload":{"content":"last"},"correlation_id":"mine"}` + "\n")
	got := f.reeve(t, lines.String(), "publish", "t", "--ndjson", "-", "--key", "k", "--correlation-id", "c")
	if got.code != 0 || !strings.HasPrefix(got.out, "published 1201 events to t in ") || len(f.published) != 1201 {
		t.Fatalf("%+v, %d events", got, len(f.published))
	}
	for i, e := range f.published[:1200] {
		if string(e.Payload.Content) != `{"n":`+number(i)+`}` || *e.Key != "k" {
			t.Fatalf("event %d is %s, %v", i, e.Payload.Content, e.Key)
		}
	}
	if last := f.published[1200]; *last.Key != "own" || *last.CorrelationId != "mine" || string(last.Payload.Content) != `"last"` {
		t.Errorf("the envelope became %+v", last)
	}
}

func TestAFileWithABadLineIsRefusedAsAWhole(t *testing.T) {
	f := newFake()
	got := f.reeve(t, "{}\nnonsense\n{\"topic\":\"t\",\"payload\":{\"content\":1},\"kye\":1}\n", "publish", "t", "--ndjson", "-")
	if got.code != 1 || len(f.published) != 0 || !strings.Contains(got.err, "-:2: is no JSON") || !strings.Contains(got.err, `-:3: claims to be an envelope: json: unknown field "kye"`) {
		t.Errorf("%+v", got)
	}
}

func TestAMisspeltVariableIsWarnedOf(t *testing.T) {
	got := newFake().on(t, System{Environ: []string{"REEVE_ULR=http://x"}}, "agent", "list")
	if got.code != 0 || !strings.Contains(got.err, "REEVE_ULR") || !strings.Contains(got.err, "REEVE_URL") {
		t.Errorf("%+v", got)
	}
}
