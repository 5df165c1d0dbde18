package agenttest_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/agent/agenttest"
	"github.com/reeve-run/reeve/pkg/task"
)

// The CEL compiler is large. Programs with agents don't build it; their tests do.
func TestOnlyTheTestKitBuildsTheCompiler(t *testing.T) {
	for module, want := range map[string]bool{"github.com/reeve-run/reeve/pkg/agent": false, "github.com/reeve-run/reeve/pkg/route": false, "github.com/reeve-run/reeve/pkg/agent/agenttest": true} {
		out, err := exec.Command("go", "list", "-deps", module).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(out), "cel.dev/cel-go"); got != want {
			t.Errorf("%s builds the compiler: %v", module, got)
		}
	}
}

func TestTheKitRoutesAsTheDispatcherDoes(t *testing.T) {
	reeve := agenttest.Start(t)
	reeve.Publish("numbers", 1)
	even, typed, late := copier, copier, copier
	even.Name, even.Filter = "even", `data % 2 == 0`
	typed.Name, typed.Accepts, typed.OnIncompatible = "typed", []string{"sum"}, "reject"
	late.Name, late.Start = "late", "latest"
	reeve.Run(even)
	reeve.Run(typed)
	reeve.Run(late)
	two := reeve.Publish("numbers", 2)
	var n int
	two.Outcome("late").Decode(t, &n)
	two.Outcome("even").Decode(t, &n)
	if got := two.Outcome("typed"); got.Outcome != task.Rejected || got.Settled != task.SettledDropped || got.Class != task.ClassIncompatibleTask {
		t.Errorf("%+v", got)
	}
	odd := reeve.PublishRecord(&kgo.Record{Topic: "numbers", Value: []byte(`"odd"`), Headers: []kgo.RecordHeader{{Key: "reeve-type", Value: []byte("sum")}}})
	if got := odd.Outcome("even"); got.Outcome != task.Rejected || got.Settled != task.SettledDLQ || got.Class != task.ClassInvalidInput {
		t.Errorf("%+v", got)
	}
	if dead := reeve.DeadLetters("numbers", "even", 1); string(dead[0].Value) != `"odd"` {
		t.Errorf("%s", dead[0].Value)
	}
	if got := odd.Outcome("typed"); got.Outcome != task.Failed { // it is taken, and is no number
		t.Errorf("%+v", got)
	}
	if copies := reeve.Records("copies", 2); string(copies[0].Value) != "2" || string(copies[1].Value) != "2" {
		t.Errorf("%s and %s", copies[0].Value, copies[1].Value)
	}
	bad := copier
	bad.Name, bad.Filter = "bad", "data ="
	if err := agent.Run(t.Context(), reeve.Options(), bad); err == nil || !strings.Contains(err.Error(), "filter: is no CEL expression") {
		t.Errorf("%v", err)
	}
}

func TestRunTellsWhatIsFiltered(t *testing.T) {
	in := func(content any, change func(a *agent.Agent)) agenttest.In {
		e := agenttest.Event(content)
		change(&e.Agent)
		return e
	}
	filter := func(a *agent.Agent) { a.Filter = `data > 1` }
	if got := agenttest.Run(t, copier.Handler, in(1, filter)); !got.Filtered || got.Outcome != "" {
		t.Errorf("%+v", got)
	}
	if got := agenttest.Run(t, copier.Handler, in(2, filter)); got.Filtered || got.Outcome != task.Completed {
		t.Errorf("%+v", got)
	}
	if got := agenttest.Run(t, copier.Handler, in("x", filter)); got.Outcome != task.Rejected || got.Class != task.ClassInvalidInput {
		t.Errorf("%+v", got)
	}
	reject := func(a *agent.Agent) { a.Accepts, a.OnIncompatible = []string{"sum"}, "reject" }
	if got := agenttest.Run(t, copier.Handler, in(2, reject)); got.Outcome != task.Rejected || got.Class != task.ClassIncompatibleTask || got.Settled != task.SettledDropped || got.Error == "" {
		t.Errorf("%+v", got)
	}
}
