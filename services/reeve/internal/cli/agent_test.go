package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/pkg/client"
)

func TestAnAgentShowsWhatDecidesItsEvents(t *testing.T) {
	f := newFake()
	if got := f.reeve(t, "", "agent", "get", "t/a"); got.code != Done || strings.Contains(got.out, "Filter") || strings.Contains(got.out, "Rate") {
		t.Errorf("nothing is set: %+v", got)
	}
	a := running()
	a.Filter, a.Rate, a.Accepts, a.Start, a.OnIncompatible = `data.n > 1 && data.m < 2`, 0.5, []string{"issue.*", "pr"}, "latest", "skip"
	f.agents["t/a"] = a
	got := f.reeve(t, "", "agent", "get", "t/a")
	for _, line := range []string{"Filter: data.n > 1 && data.m < 2", "Rate: 0.5 events a second", "Accepts: issue.*, pr", "On incompatible: skip", "Start: latest"} {
		if name, value, _ := strings.Cut(line, ": "); !strings.Contains(got.out, name+":") || !strings.Contains(got.out, value+"\n") {
			t.Errorf("no %s in\n%s", line, got.out)
		}
	}
	for _, format := range []string{"json", "jsonl"} {
		if got := f.reeve(t, "", "agent", "get", "t/a", "-o", format); !strings.Contains(got.out, `data.n > 1 && data.m < 2`) || !json.Valid([]byte(got.out)) {
			t.Errorf("%s: %s", format, got.out)
		}
	}
}

func TestTheHistoryOfAnAgentSaysWhy(t *testing.T) {
	if got := newFake().reeve(t, "", "agent", "history", "t/a"); got.code != Done || !strings.Contains(got.out, "the bank is down") || !strings.Contains(got.out, "unsubscribe") {
		t.Errorf("%+v", got)
	}
}

func TestWhatOneIsStandsInTheSingular(t *testing.T) {
	one, two := client.Deletion{}, client.Deletion{}
	one.Cleanup.Discards, one.Cleanup.Unread, one.Cleanup.DeadLetters = 1, 1, 1
	two.Cleanup.Discards, two.Cleanup.Unread = 2, 22
	d := destruction{cleanup: true, deleteDLQ: true}
	if got := d.loss(one); got != "1 waiting task and its place in the topic (1 event it hasn't read yet) and 1 dead letter" {
		t.Error(got)
	}
	if got := d.loss(one, two); got != "3 waiting tasks and their places in the topic (23 events they haven't read yet) and 1 dead letter" {
		t.Error(got)
	}
	if got := discarded(1); got != "; 1 task that isn't finished is discarded" {
		t.Error(got)
	}
	if got := orderSentence(client.DLQOrder{Topic: "t", Name: "n", Verb: "redrive", State: "dry_run", Matched: 1, Guarded: 1}); got != "1 dead letter would be redriven, 1 was redriven too often (--force redrives it too)" {
		t.Error(got)
	}
	if got := orderSentence(client.DLQOrder{Topic: "t", Name: "n", Verb: "redrive", State: "done", Matched: 2, Moved: 2, Completed: 2, Unfit: 3}); got != "done: 2 of 2 dead letters redriven, 2 completed, 0 came back, 3 stay that the agent doesn't take (--force redrives them all the same)" {
		t.Error(got)
	}
}

func TestADryRunShowsNothingThatIsMadeAnewEachTime(t *testing.T) {
	a := client.Agent{Topic: "t", Name: "a", Runtime: "python", Id: "random"}
	list, err := Selection{}.among([]client.AgentChange{{Action: client.AgentChangeActionCreate, Topic: "t", Name: "a", DryRun: true, Agent: &a}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, made := range []string{"random", "created_at", "registered_at", "updated_at"} {
		if strings.Contains(string(b), made) {
			t.Errorf("%s is in %s", made, b)
		}
	}
	if !strings.Contains(string(b), `"runtime":"python"`) {
		t.Errorf("%s", b)
	}
}

func TestJSONKeepsWhatLooksLikeAnEscape(t *testing.T) {
	got, err := encode(json.RawMessage(`{"a":"\u003c\\u0026\\\u0026\"\u00e9"}`), "jsonl")
	if want := `{"a":"<\\u0026\\&\"\u00e9"}` + "\n"; err != nil || string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}
