package health

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/relay"
)

var now = time.Unix(1_000_000, 0).UTC()

func view(t *testing.T, nodes ...status.Node) fleet.View {
	t.Helper()
	f := fleet.New()
	for _, n := range nodes {
		n.Event, n.StartedAt = status.EventNode, float64(now.Add(-time.Hour).Unix())
		value, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		f.Apply(value, now)
	}
	return f.View(now)
}

// deafened is a view of a registry that could read no reports until a moment ago.
func deafened(v fleet.View) fleet.View {
	v.Unheard = &fleet.Gap{From: now.Add(-time.Minute), Until: now.Add(-time.Second)}
	return v
}

func TestStatus(t *testing.T) {
	serving := status.Node{Service: "supervisor", Node: "a", Agents: []status.AgentReport{{Topic: "t", AgentName: "n", State: status.ReportServing}}}
	idle := status.Node{Service: "supervisor", Node: "a"}
	dispatcher := status.Node{Service: "dispatcher", Node: "d"}
	active, paused := []*spec.Agent{{Topic: "t", Name: "n", Phase: spec.Active}}, []*spec.Agent{{Topic: "t", Name: "n", Phase: spec.Paused}}
	for name, c := range map[string]struct {
		in        Inputs
		want      Status
		consumers int
	}{
		"all is well":                   {Inputs{Agents: active, Fleet: view(t, serving, dispatcher)}, Running, 1},
		"no agents":                     {Inputs{Fleet: view(t, idle, dispatcher)}, Ready, 0},
		"no agents and nobody":          {Inputs{}, Ready, 0},
		"all paused":                    {Inputs{Agents: paused, Fleet: view(t, idle, dispatcher)}, Running, 0},
		"all stopped":                   {Inputs{Agents: []*spec.Agent{{Topic: "t", Name: "n", Phase: spec.Initialized}}, Fleet: view(t, idle, dispatcher)}, Running, 0},
		"only registered":               {Inputs{Agents: []*spec.Agent{{Topic: "t", Name: "n", Phase: spec.Created}}, Fleet: view(t, idle, dispatcher)}, Running, 0},
		"no supervisor":                 {Inputs{Agents: active, Fleet: view(t, dispatcher)}, Stopped, 0},
		"no dispatcher":                 {Inputs{Agents: active, Fleet: view(t, serving)}, Stopped, 1},
		"a supervisor that serves none": {Inputs{Agents: active, Fleet: view(t, idle, dispatcher)}, Stopped, 0},
		"Kafka away":                    {Inputs{Kafka: errors.New("x"), Postgres: errors.New("y"), Agents: active, Fleet: view(t, serving, dispatcher)}, Down, 1},
		"Postgres away":                 {Inputs{Postgres: errors.New("y"), Agents: active, Fleet: view(t, serving, dispatcher)}, Degraded, 1},
		"the history behind":            {Inputs{Behind: 9, Stalled: "9 behind", Agents: active, Fleet: view(t, serving, dispatcher)}, Degraded, 1},
		"the control topic behind":      {Inputs{Outbox: relay.Backlog{Changes: 2, Age: late + time.Second}, Agents: active, Fleet: view(t, serving, dispatcher)}, Degraded, 1},
		"the control topic on its way":  {Inputs{Outbox: relay.Backlog{Changes: 2, Age: late}, Agents: active, Fleet: view(t, serving, dispatcher)}, Running, 1},
		"nobody heard, as nobody could": {Inputs{Agents: active, Fleet: deafened(view(t))}, Degraded, 0},
		"one heard, the other not yet":  {Inputs{Agents: active, Fleet: deafened(view(t, dispatcher))}, Degraded, 0},
		"all heard again":               {Inputs{Agents: active, Fleet: deafened(view(t, serving, dispatcher))}, Running, 1},
		"the history busy":              {Inputs{Behind: 9, Agents: active, Fleet: view(t, serving, dispatcher)}, Running, 1},
	} {
		c.in.Now = now
		r := Compute(c.in)
		if r.Status != c.want || r.Consumers != c.consumers || (r.Detail == "") != r.Status.Good() {
			t.Errorf("%s: got %s (%s) with %d consumers", name, r.Status, r.Detail, r.Consumers)
		}
	}
}

func TestUptimeIsThatOfTheOldestLiveSupervisor(t *testing.T) {
	if r := Compute(Inputs{Now: now, Fleet: view(t, status.Node{Service: "supervisor", Node: "a"})}); r.Uptime != time.Hour {
		t.Error(r.Uptime)
	}
	if r := Compute(Inputs{Now: now, Fleet: view(t, status.Node{Service: "dispatcher", Node: "a"})}); r.Uptime != 0 {
		t.Error(r.Uptime)
	}
}

// An outage of what an agent depends on impairs the agent, not the system; it isn't decided that the agent can't be run.
func TestAnAgentInAnOutageIsDegraded(t *testing.T) {
	report := func(state string, o *status.Outage) status.Node {
		return status.Node{Service: "supervisor", Node: "a", Agents: []status.AgentReport{{Topic: "t", AgentName: "n", State: state, Outage: o}}}
	}
	o := &status.Outage{Since: float64(now.Add(-time.Minute).Unix()), Class: "dependency", Message: "connection refused"}
	own := &status.Outage{Since: o.Since, Class: "internal", Message: "KeyError: id"}
	for _, c := range []struct {
		name    string
		node    status.Node
		healthy bool
		want    Condition
		detail  string
	}{
		{"all is well", report(status.ReportServing, nil), true, Healthy, ""},
		{"an outage", report(status.ReportServing, o), false, Impaired, "outage on node a: since 1970-01-12T13:45:40Z tasks fail alike (dependency: connection refused)"},
		{"one of the agent's own", report(status.ReportServing, own), false, Impaired, "outage on node a: since 1970-01-12T13:45:40Z nearly all tasks fail alike (internal: KeyError: id)"},
		{"and a circuit that is open", report(status.ReportCircuitOpen, o), false, Unhealthy, "circuit_open on node a"},
	} {
		r := Compute(Inputs{Now: now, Agents: []*spec.Agent{{Topic: "t", Name: "n", Phase: spec.Active}}, Fleet: view(t, c.node, status.Node{Service: "dispatcher", Node: "d"})})
		if a := r.Agents["t/n"]; a.Healthy != c.healthy || a.Condition != c.want || a.Detail != c.detail {
			t.Errorf("%s: %+v", c.name, a)
		}
		if c.want == Impaired && r.Status != Running {
			t.Errorf("%s: the system is %s", c.name, r.Status)
		}
	}
	waits := view(t, report(status.ReportServing, o)).Agents["t/n"]
	if _, failed := waits.Failed(0); failed || waits.Failing() {
		t.Error("the agent is moved to error for an outage, or may be")
	}
}

func TestTheDetailSaysWhatIsAndWhatToDo(t *testing.T) {
	active := []*spec.Agent{{Topic: "t", Name: "n", Phase: spec.Active}}
	lasting := deafened(view(t))
	lasting.Unheard.Until = time.Time{}
	for _, c := range []struct {
		in   Inputs
		want []string
	}{
		{Inputs{Outbox: relay.Backlog{Changes: 2, Age: 40 * time.Second}, Agents: active}, []string{"changes of agents are not on the control topic (2, the oldest for 40s)", "log of the registry that leads"}},
		{Inputs{Agents: active, Fleet: deafened(view(t))}, []string{"from 13:45:40Z to 13:46:39Z", "what lives is known again at 13:46:49Z"}},
		{Inputs{Agents: active, Fleet: lasting}, []string{"since 13:45:40Z", "what lives is not known", "the broker that leads the status topic"}},
		{Inputs{Kafka: errors.New("no answer"), Agents: active, Fleet: lasting}, []string{"Kafka does not answer: no answer", "since 13:45:40Z", "what lives is not known"}},
	} {
		c.in.Now = now
		r := Compute(c.in)
		for _, part := range c.want {
			if !strings.Contains(r.Detail, part) || strings.Contains(r.Detail, "start one") {
				t.Errorf("got %q, want %q in it", r.Detail, part)
			}
		}
		if a := r.Agents["t/n"]; c.in.Fleet.Unheard != nil && (a.Condition != Impaired || !strings.Contains(a.Detail, "not known")) {
			t.Errorf("the agent: %+v", a)
		}
	}
}
