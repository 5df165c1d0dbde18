package fleet

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

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

func TestOpenTasksAreThoseDispatchedThatArentFinished(t *testing.T) {
	for name, c := range map[string]struct {
		dispatched, finished, between int64
		unsettled                     *int64
		running                       int
		wantWaiting, wantRuns         int64
	}{
		"queued ones and running ones":              {108, 100, 0, ptr(20), 3, 5, 3},
		"retries wait beside queued ones":           {108, 100, 3, ptr(5), 0, 8, 0},
		"all finished":                              {100, 100, 0, ptr(0), 0, 0, 0},
		"the count of dispatched tasks is late":     {100, 104, 2, ptr(9), 1, 1, 1},
		"more run than there are":                   {101, 100, 0, ptr(9), 4, 0, 1},
		"retries beyond the count":                  {101, 100, 5, ptr(9), 2, 3, 2},
		"nobody has looked at the task topic":       {108, 100, 0, nil, 0, 8, 0},
		"records were deleted from the task topic":  {108, 100, 0, ptr(0), 0, 0, 0},
		"the history began anew":                    {9000, 10, 1, ptr(4), 1, 4, 1},
		"an agent that was dispatched never before": {0, 0, 0, ptr(0), 0, 0, 0},
	} {
		f, now := New(), time.Unix(1000, 0)
		for range 3 { // it is the same for long enough
			now = now.Add(lately)
			heartbeat(t, f, "dispatcher", "a", now, status.AgentReport{State: status.ReportServing, Unsettled: c.unsettled})
		}
		heartbeat(t, f, "supervisor", "a", now, status.AgentReport{State: status.ReportServing, Running: c.running})
		if waiting, running := f.View(now).Agents["t/n"].Open(c.dispatched, c.finished, c.between); waiting != c.wantWaiting || running != c.wantRuns {
			t.Errorf("%s: %d wait and %d run", name, waiting, running)
		}
	}
	if waiting, running := (*Agent)(nil).Open(12, 9, 1); waiting != 3 || running != 0 {
		t.Error("nobody alive: what was dispatched waits")
	}
}

// The task topic shows what a worker has settled before the history does: nothing vanishes in between.
func TestWhatIsSettledAndNotYetProjectedIsStillOpen(t *testing.T) {
	f, now := New(), time.Unix(1000, 0)
	for _, unsettled := range []int64{200, 200, 200, 0} {
		now = now.Add(lately / 2)
		heartbeat(t, f, "dispatcher", "a", now, status.AgentReport{State: status.ReportServing, Unsettled: ptr(unsettled)})
	}
	open := func() int64 {
		waiting, running := f.View(now).Agents["t/n"].Open(200, 22, 0)
		return waiting + running
	}
	if n := open(); n != 178 {
		t.Errorf("%d of 178 are open", n)
	}
	for range 5 { // the history would have them by now
		now = now.Add(lately / 2)
		heartbeat(t, f, "dispatcher", "a", now, status.AgentReport{State: status.ReportServing, Unsettled: ptr(0)})
	}
	if n := open(); n != 0 {
		t.Errorf("%d are open of which the task topic has none", n)
	}
}

// However heartbeats are lost, repeated, mixed up between dispatchers and cut into batches: once the last counts have
// come, the sum is the truth, and before that it is never more.
func TestCountsAreExactWhateverBecomesOfHeartbeats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type beat []status.Dispatched
		var sent []beat
		truth, last := Passed{}, beat{}
		for p := range int32(rapid.IntRange(1, 4).Draw(t, "partitions")) {
			n, over, since := int64(0), int64(0), int64(1)
			for range rapid.IntRange(0, 10).Draw(t, "commits") {
				if rapid.IntRange(0, 9).Draw(t, "lost") == 0 { // somebody reset the group: the count begins anew
					last = append(last, status.Dispatched{Partition: p, Since: since, N: n, Filtered: over})
					n, over, since = 0, 0, since+1
				}
				more := rapid.Int64Range(0, 50).Draw(t, "tasks")
				less := rapid.Int64Range(0, 50).Draw(t, "filtered")
				n, over, truth = n+more, over+less, Passed{truth.Tasks + more, truth.Filtered + less}
				sent = append(sent, beat{{Partition: p, Since: since, N: n, Filtered: over}})
			}
			last = append(last, status.Dispatched{Partition: p, Since: since, N: n, Filtered: over})
		}
		got := counts{}
		sum := func() (n Passed) {
			for _, c := range got {
				n = Passed{n.Tasks + c.Tasks, n.Filtered + c.Filtered}
			}
			return n
		}
		for range rapid.IntRange(0, 30).Draw(t, "arrivals") {
			if len(sent) > 0 {
				got.add([]status.AgentReport{{Topic: "t", AgentName: "n", Dispatched: rapid.SampledFrom(sent).Draw(t, "heartbeat")}})
			}
			if n := sum(); n.Tasks > truth.Tasks || n.Filtered > truth.Filtered {
				t.Fatalf("%d of %d", n, truth)
			}
		}
		got.add([]status.AgentReport{{Topic: "t", AgentName: "n", Dispatched: last}})
		if sum() != truth {
			t.Fatalf("%d, want %d", sum(), truth)
		}
	})
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
		a := f.View(now).Agents["t/n"]
		got, ok := a.Failed(2)
		if ok != c.want || ok && got.Type == "" {
			t.Errorf("%s: got %v, %+v", name, ok, got)
		}
		if older := a.Failing() && !ok; older != (name == "the report is of an older spec") {
			t.Errorf("%s: it may fail: %v", name, a.Failing())
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

// Agents are made and deleted for years, and so are nodes: what is remembered is of those that are told of.
func TestNobodyIsRememberedForEver(t *testing.T) {
	f, now := New(), time.Unix(1000, 0)
	tell := func(agent, node string) {
		value, err := json.Marshal(status.Node{Event: status.EventNode, Service: "dispatcher", Node: node, Agents: []status.AgentReport{{Topic: "t", AgentName: agent, Unsettled: ptr(3)}}})
		if err != nil {
			t.Fatal(err)
		}
		f.Apply(value, now)
	}
	for n := range 500 {
		tell(fmt.Sprint("agent-", n), fmt.Sprint("node-", n))
		now = now.Add(10 * time.Minute)
	}
	if len(f.bounds) > 2 || len(f.nodes) > 24*6+2 {
		t.Errorf("%d agents and %d nodes are remembered", len(f.bounds), len(f.nodes))
	}
	for range 15 { // who is told of is known
		tell("agent-499", "node-499")
		now = now.Add(2 * time.Second)
	}
	if got := f.View(now).Agents["t/agent-499"].lately; got == nil || *got != 3 {
		t.Errorf("%v", got)
	}
}
