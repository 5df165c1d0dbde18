package main

import (
	"os"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/pkg/task"
)

const eventsFile = "../../deployments/demo/events/github-webhooks.ndjson"

func committedDeliveries(t *testing.T) []delivery {
	t.Helper()
	f, err := os.Open(eventsFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ds, err := readDeliveries(f)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

func TestEveryCommittedDeliveryHasAnAgent(t *testing.T) {
	ds := committedDeliveries(t)
	if got := len(plan(ds, agents(true), 1)); got != len(ds)+1 {
		t.Fatalf("the plan has %d deliveries, want all %d of the file and the cut one", got, len(ds))
	}
}

func TestThePlanHasAtLeastTwoThousandTasksAlsoWithoutNode(t *testing.T) {
	ds := committedDeliveries(t)
	for _, node := range []bool{true, false} {
		as := agents(node)
		tasks := countTasks(plan(ds, as, defaultCopies), as)
		if tasks < 2000 {
			t.Errorf("node %v: %d tasks, want at least 2000", node, tasks)
		}
	}
}

func TestDeliveryIDsAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range plan(committedDeliveries(t), agents(true), 30) {
		if seen[d.ID] {
			t.Fatalf("delivery id %s is used twice", d.ID)
		}
		seen[d.ID] = true
	}
}

func TestDeliveryIDIsUUIDv5(t *testing.T) {
	// uuid.uuid5(uuid.NAMESPACE_URL, "0274b2c8-0000-5000-8000-000000000000/2") of Python's standard library.
	const id, want = "0274b2c8-0000-5000-8000-000000000000", "4c7194f9-21ba-5123-87a3-fed0a7994894"
	if got := deliveryID(id, 2); got != want {
		t.Errorf("copy 2 has the id %s, want %s", got, want)
	}
	if got := deliveryID(id, 1); got != id {
		t.Errorf("the first copy has the id %s, want the original's", got)
	}
}

func TestThePlanHasRetriesAndOnePoison(t *testing.T) {
	as := agents(true)
	sums := map[string]figures{}
	for _, d := range plan(committedDeliveries(t), as, 30) {
		for _, a := range as {
			if a.Topic == d.topic() {
				f, want := sums[a.Name], a.fate(d)
				f.add(want.Retries, want.Settled)
				sums[a.Name] = f
			}
		}
	}
	if f := sums["issue-triage"]; f.DeadLettered != 1 || f.Retried != 0 {
		t.Errorf("issue-triage: %+v, want one dead letter without a retry", f)
	}
	if f := sums["issue-notify"]; f.DeadLettered != 1 || f.Retried != maxRetries {
		t.Errorf("issue-notify: %+v, want one dead letter after %d retries", f, maxRetries)
	}
	if f := sums["release-notes"]; f.Retried == 0 || f.DeadLettered != 0 || f.Retried >= f.Received/2 {
		t.Errorf("release-notes: %+v, want some retries and no dead letter", f)
	}
}

func TestAgentsYAMLAgreesWithThePlan(t *testing.T) {
	var text string
	for _, name := range []string{"agents.yaml", "agents-node.yaml"} {
		b, err := os.ReadFile("../../deployments/demo/agents/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	for _, a := range agents(true) {
		if !strings.Contains(text, "topic: "+a.Topic+"\n    name: "+a.Name+"\n") {
			t.Errorf("%s is not in agents.yaml", a.ref())
		}
	}
	if want := `FAIL_FIRST_TRY: "` + strings.Join(strings.Split(failFirstTry, ""), " ") + `"`; !strings.Contains(text, want) {
		t.Errorf("agents.yaml lacks %s", want)
	}
	if strings.Contains(text, "max_retries") {
		t.Error("agents.yaml sets max_retries, the plan counts on the default")
	}
}

func TestReadDeliveriesNamesTheBadLine(t *testing.T) {
	good := `{"event":"push","delivery":"a","payload":{"repository":{"full_name":"o/r"}}}` + "\n"
	for name, bad := range map[string]string{
		"no JSON":       "{\n",
		"no id":         `{"event":"push","payload":{"repository":{"full_name":"o/r"}}}` + "\n",
		"no repository": `{"event":"push","delivery":"a","payload":{}}` + "\n",
	} {
		if _, err := readDeliveries(strings.NewReader(good + bad)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: error %v, want one that names line 2", name, err)
		}
	}
}

func TestFiguresCountWhatTheRegistryCounts(t *testing.T) {
	var f figures
	f.add(1, task.SettledDone)
	f.add(3, task.SettledDLQ)
	if want := (figures{Received: 2, Completed: 1, Retried: 4, DeadLettered: 1}); f != want {
		t.Errorf("figures are %+v, want %+v", f, want)
	}
}
