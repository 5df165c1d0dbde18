package fleet

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
)

func heartbeat(t *testing.T, f *Fleet, service, node string, at time.Time, reports ...status.AgentReport) {
	t.Helper()
	for i := range reports {
		reports[i].Topic, reports[i].AgentName = "t", "n"
	}
	value, err := json.Marshal(status.Node{Event: status.EventNode, Service: service, Node: node, Agents: reports})
	if err != nil {
		t.Fatal(err)
	}
	f.Apply(value, at)
}

func ptr(n int64) *int64 { return &n }

func TestANodeIsDeadTenSecondsAfterItsLastHeartbeat(t *testing.T) {
	f, now := New(), time.Unix(1000, 0)
	heartbeat(t, f, "supervisor", "a", now.Add(-9*time.Second), status.AgentReport{State: status.ReportServing})
	heartbeat(t, f, "supervisor", "b", now.Add(-11*time.Second), status.AgentReport{State: status.ReportServing})
	v := f.View(now)
	if !v.Nodes[0].Alive || v.Nodes[1].Alive {
		t.Errorf("%+v", v.Nodes)
	}
	if v.Agents["t/n"].Workers != 1 {
		t.Errorf("%+v", v.Agents["t/n"])
	}
}

func TestFiguresAreSummedUp(t *testing.T) {
	f, now := New(), time.Unix(1000, 0)
	heartbeat(t, f, "dispatcher", "a", now, status.AgentReport{State: status.ReportServing, Lag: ptr(3), Unsettled: ptr(7)})
	heartbeat(t, f, "dispatcher", "b", now.Add(1), status.AgentReport{State: status.ReportServing, Lag: ptr(4), Unsettled: ptr(8)}) // sees the same tasks
	heartbeat(t, f, "dispatcher", "c", now, status.AgentReport{State: status.ReportIdle, Lag: ptr(9)})                              // sees the whole topic
	heartbeat(t, f, "supervisor", "a", now, status.AgentReport{State: status.ReportServing, Running: 2, Instances: 1})
	heartbeat(t, f, "supervisor", "b", now, status.AgentReport{State: status.ReportIdle})
	a := f.View(now).Agents["t/n"]
	if *a.Lag != 7 || a.Unsettled() != 8 || a.Running() != 2 || a.Instances != 1 || a.Workers != 1 {
		t.Errorf("%+v", a)
	}
}

func TestAnAgentThatNobodyServesHasItsLagOnce(t *testing.T) {
	f, now := New(), time.Unix(1000, 0)
	heartbeat(t, f, "dispatcher", "a", now, status.AgentReport{State: status.ReportIdle, Lag: ptr(9)})
	heartbeat(t, f, "dispatcher", "b", now, status.AgentReport{State: status.ReportIdle, Lag: ptr(9)})
	if a := f.View(now).Agents["t/n"]; *a.Lag != 9 {
		t.Errorf("lag %d", *a.Lag)
	}
}

func TestOpenTasksAreThoseOfTheLastLookLessWhatWasFinishedSince(t *testing.T) {
	for name, c := range map[string]struct {
		unsettled, then       int64 // when last looked at
		running               int
		finished, between     int64 // now
		wantWaiting, wantRuns int64
	}{
		"nothing since":           {8, 100, 3, 100, 0, 5, 3},
		"some finished since":     {8, 100, 3, 104, 0, 1, 3},
		"all finished since":      {8, 100, 3, 108, 0, 0, 0},
		"more finished since":     {8, 100, 3, 120, 0, 0, 0},
		"all between attempts":    {0, 100, 0, 100, 4, 4, 0},
		"retries are queued anew": {4, 100, 0, 100, 4, 4, 0},
	} {
		f, now := New(), time.Unix(1000, 0)
		heartbeat(t, f, "dispatcher", "a", now, status.AgentReport{State: status.ReportServing, Unsettled: &c.unsettled})
		heartbeat(t, f, "supervisor", "a", now, status.AgentReport{State: status.ReportServing, Running: c.running})
		f.Finished(map[string]int64{"t/n": c.then})
		if waiting, running := f.View(now).Agents["t/n"].Open(c.finished, c.between); waiting != c.wantWaiting || running != c.wantRuns {
			t.Errorf("%s: %d wait and %d run", name, waiting, running)
		}
	}
	if waiting, running := (*Agent)(nil).Open(9, 3); waiting != 3 || running != 0 {
		t.Error("nobody alive: what is between attempts waits")
	}
}

func TestAnAgentFailsOnlyWhenEveryWorkerOfItsGenerationFails(t *testing.T) {
	cause := &spec.Cause{Type: "AgentCallbackNotFoundError", Message: "no such function"}
	failed := status.AgentReport{State: status.ReportError, Generation: 2, Error: cause}
	for name, c := range map[string]struct {
		reports []status.AgentReport
		want    bool
	}{
		"nobody":                         {nil, false},
		"one":                            {[]status.AgentReport{failed}, true},
		"one of two":                     {[]status.AgentReport{failed, {State: status.ReportServing, Generation: 2}}, false},
		"one has not seen the spec yet":  {[]status.AgentReport{failed, {State: status.ReportIdle, Generation: 1}}, false},
		"one can't, the other's circuit": {[]status.AgentReport{failed, {State: status.ReportCircuitOpen, Generation: 2}}, true},
		"the report is of an older spec": {[]status.AgentReport{{State: status.ReportError, Generation: 1}}, false},
	} {
		f, now := New(), time.Unix(1000, 0)
		heartbeat(t, f, "dispatcher", "d", now, status.AgentReport{State: status.ReportServing, Generation: 1})
		for i, r := range c.reports {
			heartbeat(t, f, "supervisor", string(rune('a'+i)), now, r)
		}
		got, ok := f.View(now).Agents["t/n"].Failed(2)
		if ok != c.want || ok && got.Type == "" {
			t.Errorf("%s: got %v, %+v", name, ok, got)
		}
	}
}

func TestAnInstanceIsNoMoreThanItsNode(t *testing.T) {
	now := time.Unix(1000, 0).UTC()
	live := View{Nodes: []Node{{Service: "dispatcher", Node: "d", Alive: true}, {Service: "supervisor", Node: "a", Alive: true, StartedAt: now},
		{Service: "supervisor", Node: "dead", StartedAt: now}}}
	for name, c := range map[string]struct {
		in    Instance
		state string
	}{
		"on a live node":             {Instance{Node: "a", State: "RUNNING", UpdatedAt: now.Add(time.Second)}, "RUNNING"},
		"of its node's earlier life": {Instance{Node: "a", State: "RUNNING", UpdatedAt: now.Add(-time.Second)}, stopped},
		"on a dead node":             {Instance{Node: "dead", State: "RUNNING", UpdatedAt: now.Add(time.Second)}, stopped},
		"on a node nobody knows":     {Instance{Node: "d", State: "CRASHED", UpdatedAt: now.Add(time.Second)}, stopped},
	} {
		if c.in.judge(live); c.in.State != c.state || (c.in.Reason != "") != (c.state == stopped) {
			t.Errorf("%s: %+v", name, c.in)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte(`{"event":"node_heartbeat","agents":[{"lag":1}]}`))
	f.Add([]byte(`{"event":"agent_report"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		fl := New()
		fl.Apply(value, time.Unix(1, 0))
		fl.View(time.Unix(2, 0))
	})
}
