// Package fleet is the live picture of the other services, kept in memory from the status topic: which nodes are alive,
// and what they say of each agent. Nothing in it is stored; a registry that starts reads the last minutes of the topic.
package fleet

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
)

// Dead is how long after its last heartbeat a node counts as dead; heartbeats come every 2 s.
const Dead = 10 * time.Second

// dispatcher is the service that doesn't run agents.
const dispatcher = "dispatcher"

// Fleet collects reports. Its methods are safe for concurrent use.
type Fleet struct {
	mu    sync.Mutex
	nodes map[string]*node // by service/node
}

type node struct {
	beat    status.Node
	seen    time.Time
	reports map[string]status.AgentReport // by topic/name
}

// New makes an empty fleet.
func New() *Fleet { return &Fleet{nodes: map[string]*node{}} }

// Apply takes a record of the status topic that was seen at a time. Records of other kinds, and those that don't parse,
// are none of its business.
func (f *Fleet) Apply(value []byte, seen time.Time) {
	var head struct{ Event string }
	if json.Unmarshal(value, &head) != nil {
		return
	}
	switch head.Event {
	case status.EventNode:
		var n status.Node
		if json.Unmarshal(value, &n) == nil {
			f.heartbeat(n, seen)
		}
	case status.EventAgent:
		var r status.AgentReport
		if json.Unmarshal(value, &r) == nil {
			f.report(r)
		}
	}
}

func (f *Fleet) heartbeat(n status.Node, seen time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := &node{beat: n, seen: seen, reports: make(map[string]status.AgentReport, len(n.Agents))}
	for _, r := range n.Agents {
		fresh.reports[r.Topic+"/"+r.AgentName] = r
	}
	fresh.beat.Agents = nil
	f.nodes[n.Service+"/"+n.Node] = fresh
}

func (f *Fleet) report(r status.AgentReport) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, ok := f.nodes[r.Service+"/"+r.Node]; ok {
		n.reports[r.Topic+"/"+r.AgentName] = r
	}
}

// Node is a service process as last heard of.
type Node struct {
	Service, Node, Host string
	PID                 int
	StartedAt, SeenAt   time.Time
	Alive               bool
}

// Agent is what the live nodes say of an agent, summed up.
type Agent struct {
	Workers, Instances int
	Running            int64
	Lag                *int64 // events of the user topic that aren't routed; nil where nobody knows
	TopicMissing       bool
	Problems           []Problem

	votes   []vote
	owned   *int64 // unsettled tasks, as the workers count those that they own
	visible int64  // and as the dispatcher that sees most of them does, each of which looks at all
}

// Problem is what a live node complains of.
type Problem struct {
	Node, State string
	Error       *spec.Cause
}

// vote is whether a worker can run an agent's generation.
type vote struct {
	generation int64
	state      string
	cause      *spec.Cause
}

// View is the fleet at a moment.
type View struct {
	Nodes  []Node            // by service and node
	Agents map[string]*Agent // by topic/name; nil for one that no live node speaks of
}

// View sums up what is known at a time.
func (f *Fleet) View(now time.Time) View {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := View{Agents: map[string]*Agent{}}
	for _, n := range f.nodes {
		alive := !n.beat.Leaving && now.Sub(n.seen) < Dead
		v.Nodes = append(v.Nodes, Node{Service: n.beat.Service, Node: n.beat.Node, Host: n.beat.Host, PID: n.beat.PID,
			StartedAt: floatTime(n.beat.StartedAt), SeenAt: n.seen, Alive: alive})
		if !alive {
			continue
		}
		for ref, r := range n.reports {
			if v.Agents[ref] == nil {
				v.Agents[ref] = &Agent{}
			}
			v.Agents[ref].add(n.beat.Service, n.beat.Node, r)
		}
	}
	slices.SortFunc(v.Nodes, func(a, b Node) int { return strings.Compare(a.Service+"/"+a.Node, b.Service+"/"+b.Node) })
	return v
}

func (a *Agent) add(service, node string, r status.AgentReport) {
	a.Running += int64(r.Running)
	a.Instances += r.Instances
	a.TopicMissing = a.TopicMissing || r.TopicMissing
	a.Lag = add(a.Lag, r.Lag)
	if r.Error != nil || r.State == status.ReportError || r.State == status.ReportCircuitOpen {
		a.Problems = append(a.Problems, Problem{Node: node, State: r.State, Error: r.Error})
	}
	if service == dispatcher {
		if r.Unsettled != nil {
			a.visible = max(a.visible, *r.Unsettled)
		}
		return
	}
	a.owned = add(a.owned, r.Unsettled)
	a.votes = append(a.votes, vote{r.Generation, r.State, r.Error})
	if r.State == status.ReportServing {
		a.Workers++
	}
}

// add sums figures of which any may be unknown.
func add(sum, n *int64) *int64 {
	if sum == nil || n == nil {
		return cmp.Or(sum, n)
	}
	both := *sum + *n
	return &both
}

// Unsettled counts the tasks on the task topic that aren't settled.
func (a *Agent) Unsettled() int64 {
	if a.owned != nil {
		return *a.owned
	}
	return a.visible
}

// Failed reports whether every live worker that knows an agent's generation can't run it, and why the first of them
// can't. A worker that is still at an older generation has a say yet, so nothing is decided before it has spoken.
func (a *Agent) Failed(generation int64) (spec.Cause, bool) {
	var cause *spec.Cause
	for _, v := range a.votes {
		if v.generation != generation || v.state != status.ReportError && v.state != status.ReportCircuitOpen {
			return spec.Cause{}, false
		}
		if cause == nil {
			cause = v.cause
		}
	}
	if len(a.votes) == 0 {
		return spec.Cause{}, false
	}
	if cause == nil {
		cause = &spec.Cause{Type: "AgentCrashedError", Message: "every instance's circuit is open: its processes end again and again",
			Remediation: "see the agent's log for the cause, then reset it: reeve agent reset"}
	}
	return *cause, true
}

// Waiting counts the tasks that were dispatched and don't run, given how many are between two attempts.
func (a *Agent) Waiting(between int64) int64 {
	if a == nil {
		return max(0, between)
	}
	return max(0, a.Unsettled()+between-a.Running)
}

func floatTime(seconds float64) time.Time {
	return time.UnixMilli(int64(seconds * 1000)).UTC()
}
