package spec

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestRoutingIsCheckedByName(t *testing.T) {
	for in, want := range map[string]string{
		``: "",
		`"filter":"data.a == 1","rate":0.5,"accepts":["order.*","x"],"capabilities":["triage"],"on_incompatible":"skip","start":"latest"`: "",
		`"start":"2026-01-31T08:00:00+01:00"`: "",
		`"accepts":["*"]`:                     "",
		`"rate":0`:                            "rate: 0 would dispatch nothing",
		`"rate":-1`:                           "rate: -1 is out of range",
		`"rate":1e7`:                          "rate: 1e+07 is out of range",
		`"rate":1e-9`:                         "rate: 1e-09 is out of range",
		`"rate":"fast"`:                       `rate: is "fast": give a number`,
		`"filter":""`:                         "filter: is empty: leave it out",
		`"filter":1`:                          "filter: is 1: give a text",
		`"accepts":[]`:                        "accepts: is an empty list",
		`"accepts":"x"`:                       `accepts: is "x": give a list`,
		`"accepts":[" x"]`:                    `accepts: " x" is no type`,
		`"accepts":["a","a"]`:                 "is listed twice",
		`"accepts":["a*b"]`:                   "has a * before its end",
		`"capabilities":[""]`:                 "capabilities: \"\" is no type",
		`"accepts":["x"],"on_incompatible":"drop"`: `on_incompatible: "drop" is unknown: use dlq, reject or skip`,
		`"on_incompatible":"dlq"`:                  "give accepts or capabilities too",
		`"start":"tomorrow"`:                       `start: "tomorrow" is no place to start at`,
		`"start":"1969-01-31T08:00:00Z"`:           "is no place to start at",
		`"start_at":{"offsets":{"0":7}}`:           "start_at: is no key",
	} {
		entry := `{"topic":"a","command":"x"`
		if in != "" {
			entry += "," + in
		}
		a, faults := ParseEntry([]byte(entry + "}"))
		if len(faults) == 0 {
			faults = a.Check([]time.Duration{time.Second, 5 * time.Second, 30 * time.Second})
		}
		got := ""
		for _, f := range faults {
			got += f.Field + ": " + f.Message + "\n"
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestAnOldRecordGetsEveryEvent(t *testing.T) {
	var a Agent
	if err := json.Unmarshal([]byte(`{"topic":"t","name":"n"}`), &a); err != nil {
		t.Fatal(err)
	}
	if ok, _ := a.Takes("anything"); !ok || a.Rate != 0 || a.Filter != "" || a.StartAt != nil {
		t.Errorf("%+v", a.Routing)
	}
	at, err := a.StartTime()
	if err != nil || !at.IsZero() {
		t.Error(at, err)
	}
}

func TestTakes(t *testing.T) {
	for _, c := range []struct {
		accepts, capabilities []string
		taskType, reason      string
	}{
		{nil, nil, "", ""},
		{nil, nil, "x", ""},
		{[]string{"x", "y"}, nil, "y", ""},
		{[]string{"order.*"}, nil, "order.made", ""},
		{[]string{"order.*"}, nil, "orders", "the task's type is orders, and the agent accepts only order.*"},
		{[]string{"x"}, nil, "", "the task has no type, and the agent accepts only x"},
		{[]string{"*"}, nil, "", ""},
		{[]string{"*"}, []string{"triage"}, "x", ""},
		{nil, []string{"triage"}, "triage", ""},
		{nil, []string{"triage"}, "", ""},
		{nil, []string{"triage", "sum"}, "x", "the task's type is x, and the agent's capabilities are only triage, sum"},
		{[]string{"x"}, []string{"triage"}, "triage", "the task's type is triage, and the agent accepts only x"},
	} {
		ok, reason := Routing{Accepts: c.accepts, Capabilities: c.capabilities}.Takes(c.taskType)
		if ok != (c.reason == "") || reason != c.reason {
			t.Errorf("%v, %v of %q: %v, %q", c.accepts, c.capabilities, c.taskType, ok, reason)
		}
	}
}
