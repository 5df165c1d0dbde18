// Package health says how the system is. It is computed from what answers now and from live heartbeats, never from a
// stored flag.
package health

import (
	"fmt"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/relay"
)

// Status of the system.
type Status string

// The statuses, the worst last.
const (
	Running  Status = "running"
	Ready    Status = "ready"    // no agents
	Stopped  Status = "stopped"  // agents, but nothing that runs them
	Degraded Status = "degraded" // the database or a projection is behind
	Down     Status = "down"     // no Kafka
)

// Good reports whether nothing needs a person.
func (s Status) Good() bool { return s == Running || s == Ready }

// late is how old the oldest change of an agent gets on its way to the control topic before that counts as behind: usually it
// is there within milliseconds.
const late = 15 * time.Second

// Inputs are what health is computed from.
type Inputs struct {
	Now      time.Time
	Kafka    error // why Kafka doesn't answer, or nil
	Postgres error // why the database doesn't answer, or nil
	Behind   int64 // records that the history of tasks has still to read
	// Stalled says which projection makes no progress though there is something to read; "": none.
	Stalled string
	// Outbox is what is still to be published to the control topic.
	Outbox relay.Backlog
	Fleet  fleet.View
	Agents []*spec.Agent // not deleted; as last read where the database is away
	Alerts []fleet.Alert // open ones

	Instances []fleet.Instance // of agents; none where the database is away
	// Unread says what could not be read of the database though it answers, and why: it is missing above.
	Unread []string
}

// ControlBehind says that dispatchers and workers don't hear of changes of agents, and what to do; "" says that they do.
func (in *Inputs) ControlBehind() string {
	if in.Outbox.Age <= late {
		return ""
	}
	return fmt.Sprintf("changes of agents are not on the control topic (%d, the oldest for %s), so that dispatchers and workers go on as they were: "+
		"the log of the registry that leads says why its relay can't publish", in.Outbox.Changes, in.Outbox.Age.Round(time.Second))
}

// unheard says that nobody can know what lives, and why; "" says that it is known.
func (in *Inputs) unheard() string {
	gap := in.Fleet.Unheard
	switch {
	case gap == nil:
		return ""
	case in.Kafka != nil:
		return fmt.Sprintf("; nothing was read of it since %s, and what lives is not known", clock(gap.From))
	case gap.Until.IsZero():
		return fmt.Sprintf("the registry could read no reports from Kafka since %s, though a broker answers: what lives is not known; "+
			"look whether the broker that leads the status topic answers", clock(gap.From))
	}
	return fmt.Sprintf("the registry could read no reports from Kafka from %s to %s: what lives is known again at %s at the latest",
		clock(gap.From), clock(gap.Until), clock(gap.Until.Add(fleet.Dead)))
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05Z") }

// Report is the answer.
type Report struct {
	Status     Status
	Detail     string // why, where the status isn't good
	Registered int
	Consumers  int // active agents with a live worker
	Uptime     time.Duration
	Live       map[string]int // live nodes by service
	Agents     map[string]Agent
}

// Agent is one agent's part.
type Agent struct {
	Phase              spec.Phase
	Workers, Instances int
	Healthy            bool
	Condition          Condition
	Detail             string
}

// Condition is how an agent does.
type Condition string

// The conditions, the worst last.
const (
	Healthy   Condition = "healthy"
	Impaired  Condition = "degraded" // it is served, and waits for something that it depends on
	Unhealthy Condition = "unhealthy"
)

// Compute judges.
func Compute(in Inputs) Report {
	r := Report{Registered: len(in.Agents), Live: map[string]int{}, Agents: map[string]Agent{}}
	oldest := in.Now
	workers := 0
	for _, n := range in.Fleet.Nodes {
		if !n.Alive {
			continue
		}
		r.Live[n.Service]++
		if n.Service == "dispatcher" {
			continue
		}
		workers++
		if n.StartedAt.Before(oldest) {
			oldest = n.StartedAt
		}
	}
	r.Uptime = in.Now.Sub(oldest)
	active := 0
	for _, a := range in.Agents {
		one := judge(a, in.Fleet.Agents[a.Ref()], in.Fleet.Unheard != nil)
		r.Agents[a.Ref()] = one
		if a.Phase == spec.Active {
			active++
			if one.Workers > 0 {
				r.Consumers++
			}
		}
	}
	r.Status, r.Detail = judgeAll(in, r, workers, active)
	return r
}

func judgeAll(in Inputs, r Report, workers, active int) (Status, string) {
	switch {
	case in.Kafka != nil:
		return Down, fmt.Sprintf("Kafka does not answer: %v%s", in.Kafka, in.unheard())
	case in.Postgres != nil:
		return Degraded, fmt.Sprintf("Postgres does not answer: %v; events keep flowing, the history catches up", in.Postgres)
	case in.Stalled != "":
		return Degraded, in.Stalled
	case in.ControlBehind() != "":
		return Degraded, in.ControlBehind()
	case len(in.Unread) > 0:
		return Degraded, "this answer is not whole: " + strings.Join(in.Unread, "; ") + "; ask again, and see what keeps Postgres busy where it lasts"
	case r.Registered == 0:
		return Ready, ""
	case in.Fleet.Unheard != nil && (workers == 0 || r.Live["dispatcher"] == 0 || active > 0 && r.Consumers == 0):
		return Degraded, in.unheard()
	case workers == 0:
		return Stopped, "no supervisor and no program of the Go SDK is alive: start one"
	case r.Live["dispatcher"] == 0:
		return Stopped, "no dispatcher is alive: start one"
	case active > 0 && r.Consumers == 0:
		return Stopped, "no live worker serves any active agent: " + strings.Join(unserved(r), ", ")
	}
	return Running, ""
}

func unserved(r Report) []string {
	var out []string
	for ref, a := range r.Agents {
		if a.Phase == spec.Active && a.Workers == 0 {
			out = append(out, ref)
		}
		if len(out) == 5 {
			break
		}
	}
	return out
}

func judge(a *spec.Agent, live *fleet.Agent, unheard bool) Agent {
	out := Agent{Phase: a.Phase, Healthy: true}
	if live != nil {
		out.Workers, out.Instances = live.Workers, live.Instances
	}
	switch {
	case a.Phase == spec.Error:
		out.Healthy = false
		if a.Cause != nil {
			out.Detail = a.Cause.Message
		}
	case a.Phase == spec.Active && live != nil && live.TopicMissing:
		out.Detail = "the topic " + a.Topic + " does not exist"
	case a.Phase == spec.Active && out.Workers == 0 && unheard:
		out.Healthy, out.Detail = false, "whether a worker serves it is not known: its reports could not be read from Kafka"
	case a.Phase == spec.Active && out.Workers == 0:
		out.Healthy, out.Detail = false, "no live worker serves it"
	}
	if live != nil && len(live.Problems) > 0 {
		p := live.Problems[0]
		out.Healthy = false
		out.Detail = fmt.Sprintf("%s on node %s", p.State, p.Node)
		if p.Error != nil {
			out.Detail += ": " + p.Error.Message
		}
	}
	switch {
	case out.Healthy:
		out.Condition = Healthy
	case unheard && out.Workers == 0 && a.Phase == spec.Active, out.Workers > 0 && live.Outages == len(live.Problems):
		out.Condition = Impaired
	default:
		out.Condition = Unhealthy
	}
	return out
}
