// Package fleet is the live picture of the other services, kept in memory from the status topic: which nodes are alive,
// and what they say of each agent. Nothing in it is stored; a registry that starts reads the last minutes of the topic.
package fleet

import (
	"encoding/json"
	"fmt"
	"maps"
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
	// Commands is told what became of commands, as soon as it is heard of; it must not block. Defaults to nobody.
	Commands func(status.CommandResult)

	mu    sync.Mutex
	nodes map[string]*node // by service/node
	// progress is what running tasks have told, as long as there is room.
	progress map[progressKey]status.Progress
	ear      ear
	bounds   map[string]*bound // by topic/name
	swept    time.Time
}

type node struct {
	beat    status.Node
	seen    time.Time
	reports map[string]status.AgentReport // by topic/name
}

// New makes an empty fleet.
func New() *Fleet { return &Fleet{nodes: map[string]*node{}, bounds: map[string]*bound{}} }

// Apply takes a record of the status topic that was seen at a time. Records of other kinds, and those that don't parse,
// are none of its business.
func (f *Fleet) Apply(value []byte, seen time.Time) {
	var head struct{ Event string }
	if value = storable(value); json.Unmarshal(value, &head) != nil {
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
	case status.EventProgress:
		var p status.Progress
		if json.Unmarshal(value, &p) == nil {
			f.progressed(p)
		}
	case status.EventCommand:
		var r status.CommandResult
		if f.Commands != nil && json.Unmarshal(value, &r) == nil {
			f.Commands(r)
		}
	}
}

func (f *Fleet) heartbeat(n status.Node, seen time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := &node{beat: n, seen: seen, reports: make(map[string]status.AgentReport, len(n.Agents))}
	for _, r := range n.Agents {
		ref := r.Topic + "/" + r.AgentName
		fresh.reports[ref] = r
		if r.Unsettled != nil {
			if f.bounds[ref] == nil {
				f.bounds[ref] = &bound{begun: seen, since: seen}
			}
			f.bounds[ref].add(*r.Unsettled, seen)
		}
	}
	fresh.beat.Agents = nil
	f.nodes[n.Service+"/"+n.Node] = fresh
	f.sweep(seen)
}

// sweep forgets agents that nobody has told of lately, and nodes that weren't heard of for as long as they are kept. The lock is
// held.
func (f *Fleet) sweep(now time.Time) {
	if now.Sub(f.swept) < lately {
		return
	}
	f.swept = now
	maps.DeleteFunc(f.bounds, func(_ string, b *bound) bool { return b.old(now) })
	maps.DeleteFunc(f.nodes, func(_ string, n *node) bool { return now.Sub(n.seen) > keepReports })
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
	Lag                *int64 // events of the user topic that aren't routed; nil where nobody knows
	TopicMissing       bool
	Problems           []Problem
	Cleaned            *status.Cleaned // what a dispatcher has deleted of an earlier life
	Outages            int             // workers that have paused it, because its last tasks failed alike and none succeeded

	votes     []vote
	running   int64  // attempts in flight
	unsettled *int64 // bound of the tasks on the task topic, as the dispatcher that was heard last knows it; each of them looks at all
	lookedAt  time.Time
	lately    *int64 // the same of the last while; nil where it isn't known for as long
	whole     *int64 // lag as a dispatcher sees it that doesn't serve the agent: of the whole topic
}

// Problem is what a live node complains of.
type Problem struct {
	Node, State string
	Error       *spec.Cause
}

// StateOutage is the state of a Problem that is an outage: the worker serves the agent, and starts nothing of it but one
// task at a time.
const StateOutage = "outage"

// outageCause says no more than what the worker must have seen.
func outageCause(o status.Outage) *spec.Cause {
	which := "nearly all tasks"
	if o.Class.Outside() {
		which = "tasks" // two are enough
	}
	return &spec.Cause{Type: "AgentOutage",
		Message:     fmt.Sprintf("since %s %s fail alike (%s: %s)", floatTime(o.Since).Format(time.RFC3339), which, o.Class, o.Message),
		Remediation: "bring back what the agent depends on, or mend the agent: it tries one task at a time and goes on by itself; its events wait, none is dead-lettered for it"}
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
	// Unheard is when reports could not be read lately: who is silent then may well be alive. Nil where they can.
	Unheard *Gap
}

// View sums up what is known at a time.
func (f *Fleet) View(now time.Time) View {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := View{Agents: map[string]*Agent{}, Unheard: f.ear.gap(now)}
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
			v.Agents[ref].add(n, r)
		}
	}
	for ref, a := range v.Agents {
		a.lately = f.bounds[ref].get(now)
	}
	for _, a := range v.Agents {
		if a.Lag == nil {
			a.Lag = a.whole
		}
	}
	slices.SortFunc(v.Nodes, func(a, b Node) int { return strings.Compare(a.Service+"/"+a.Node, b.Service+"/"+b.Node) })
	return v
}

func (a *Agent) add(n *node, r status.AgentReport) {
	a.Instances += r.Instances
	a.running += int64(r.Running)
	a.TopicMissing = a.TopicMissing || r.TopicMissing
	if r.Error != nil || r.State == status.ReportError || r.State == status.ReportCircuitOpen {
		a.Problems = append(a.Problems, Problem{Node: n.beat.Node, State: r.State, Error: r.Error})
	}
	if r.Outage != nil {
		a.Outages++
		a.Problems = append(a.Problems, Problem{Node: n.beat.Node, State: StateOutage, Error: outageCause(*r.Outage)})
	}
	if n.beat.Service == dispatcher {
		a.addDispatcher(n, r)
		return
	}
	a.votes = append(a.votes, vote{r.Generation, r.State, r.Error})
	if r.State == status.ReportServing {
		a.Workers++
	}
}

func (a *Agent) addDispatcher(n *node, r status.AgentReport) {
	if c := r.Cleaned; c != nil && (a.Cleaned == nil || a.Cleaned.Since < c.Since) {
		a.Cleaned = c
	}
	switch {
	case r.Lag == nil:
	case r.State != status.ReportServing:
		a.whole = r.Lag
	case a.Lag == nil:
		a.Lag = r.Lag
	default:
		sum := *a.Lag + *r.Lag
		a.Lag = &sum
	}
	if r.Unsettled != nil && n.seen.After(a.lookedAt) {
		a.unsettled, a.lookedAt = r.Unsettled, n.seen
	}
}

// Failing reports whether every live worker says that it can't run the agent, whatever generation each speaks of: only then
// it may have Failed.
func (a *Agent) Failing() bool {
	return len(a.votes) > 0 && !slices.ContainsFunc(a.votes, func(v vote) bool { return !v.fails() })
}

// fails reports whether the worker can't run it.
func (v vote) fails() bool {
	return v.state == status.ReportError || v.state == status.ReportCircuitOpen
}

// Failed reports whether every live worker that knows an agent's generation can't run it, and why the first of them
// can't. A worker that is still at an older generation has a say yet, so nothing is decided before it has spoken.
func (a *Agent) Failed(generation int64) (spec.Cause, bool) {
	if !a.Failing() {
		return spec.Cause{}, false
	}
	var cause *spec.Cause
	for _, v := range a.votes {
		if v.generation != generation {
			return spec.Cause{}, false
		}
		if cause == nil {
			cause = v.cause
		}
	}
	if cause == nil {
		cause = &spec.Cause{Type: "AgentCrashedError", Message: "every instance's circuit is open: its processes end again and again",
			Remediation: "see the agent's log for the cause (reeve agent logs TOPIC/NAME), then reset it (reeve agent reset TOPIC/NAME)"}
	}
	return *cause, true
}

// Open counts the tasks that aren't finished: those that wait and those that run. It is given how many were ever
// dispatched, how many are finished, and how many of the others have had an attempt.
//
// The dispatchers' count is exact and up to a heartbeat old, so that what is open is never more than the truth, and less
// by at most what was dispatched since. What the task topic can't hold is taken off it: a task whose record somebody
// deleted there never finishes, and a database that was made anew doesn't know what has.
func (a *Agent) Open(dispatched, finished, between int64) (waiting, running int64) {
	between = max(between, 0)
	open := max(dispatched-finished, between)
	if a == nil {
		return open, 0
	}
	if a.lately != nil {
		open = min(open, *a.lately+between)
	}
	running = min(a.running, open)
	return open - running, running
}

// Unsettled bounds the tasks on the task topic that aren't settled, as last reported; 0 where nobody reported any.
func (a *Agent) Unsettled() int64 {
	if a.unsettled == nil {
		return 0
	}
	return *a.unsettled
}

// Running counts attempts in flight, as last reported.
func (a *Agent) Running() int64 { return a.running }

func floatTime(seconds float64) time.Time {
	return time.UnixMilli(int64(seconds * 1000)).UTC()
}
