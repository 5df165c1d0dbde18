package rest

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/health"
)

// GetHealth says how the system is: 200 for running and ready, else 503.
func (s *Server) GetHealth(ctx context.Context, _ api.GetHealthRequestObject) (api.GetHealthResponseObject, error) {
	in, report := s.Health(ctx)
	body := s.healthOf(in, report)
	if report.Status.Good() {
		return api.GetHealth200JSONResponse(body), nil
	}
	return api.GetHealth503JSONResponse(body), nil
}

func (s *Server) healthOf(in health.Inputs, r health.Report) api.Health {
	h := api.Health{Status: api.HealthStatus(r.Status), Detail: r.Detail, Unread: in.Unread, RegisteredAgents: r.Registered, ActiveConsumers: r.Consumers,
		UptimeSeconds: r.Uptime.Seconds(), Components: componentsOf(in, r), Agents: map[string]api.AgentHealth{},
		IsRunning: r.Status == health.Running, HasActiveConsumers: r.Consumers > 0, EventBusConnected: in.Kafka == nil, EventBusType: "kafka",
		StorageHealthy: in.Postgres == nil, StorageStatus: "healthy", RegisteredAgentsCount: r.Registered, SubscribedTopics: []string{},
		RunnerId: s.Node, RunnerRunning: workerAlive(in.Fleet), AgentHealth: map[string]api.AgentHealthFigures{}}
	if in.Postgres != nil {
		h.StorageStatus = "unhealthy"
	}
	for _, a := range in.Agents {
		one := r.Agents[a.Ref()]
		h.Agents[a.Ref()] = api.AgentHealth{Phase: one.Phase, Workers: one.Workers, Instances: one.Instances, Healthy: one.Healthy, Condition: api.AgentHealthCondition(one.Condition), Detail: one.Detail}
		if !slices.Contains(h.SubscribedTopics, a.Topic) {
			h.SubscribedTopics = append(h.SubscribedTopics, a.Topic)
		}
		if one.Healthy {
			h.HealthyAgentsCount++
		} else {
			h.UnhealthyAgentsCount++
		}
		if in.Postgres == nil {
			h.AgentHealth[a.Ref()] = figuresOf(one.Healthy, in.Instances, a.Topic, a.Name)
		}
	}
	for _, n := range in.Fleet.Nodes {
		h.Nodes = append(h.Nodes, api.Node{Service: n.Service, Node: n.Node, Host: n.Host, Pid: n.PID, Alive: n.Alive,
			StartedAt: utc(n.StartedAt), LastSeenAt: n.SeenAt.UTC()})
	}
	for _, a := range in.Alerts {
		h.Alerts = append(h.Alerts, api.Alert{Topic: a.Topic, Name: a.Name, Kind: a.Kind, Severity: a.Severity, Subject: a.Subject, Message: a.Message, Since: a.Since.UTC(), Nodes: a.Nodes})
	}
	return h
}

func workerAlive(v fleet.View) bool {
	return slices.ContainsFunc(v.Nodes, func(n fleet.Node) bool { return n.Alive && n.Service != "dispatcher" })
}

// figuresOf sums up an agent's processes.
func figuresOf(healthy bool, all []fleet.Instance, topic, name string) api.AgentHealthFigures {
	out := api.AgentHealthFigures{State: api.AgentHealthFiguresStateIDLE, Healthy: healthy}
	for _, i := range all {
		if i.Topic != topic || i.Name != name {
			continue
		}
		out.RestartCount += i.RestartCount
		running := api.AgentHealthFiguresState(i.State) == api.AgentHealthFiguresStateRUNNING
		if at := i.UpdatedAt.UTC(); out.LastHeartbeat == nil || at.After(*out.LastHeartbeat) {
			out.LastHeartbeat = &at
			if out.Pid == nil {
				out.State = api.AgentHealthFiguresState(i.State)
			}
		}
		if running {
			out.State, out.Pid = api.AgentHealthFiguresStateRUNNING, &i.PID
			out.CpuPercent += i.CPUPercent
			out.MemoryMb += i.MemoryMB
		}
	}
	return out
}

func componentsOf(in health.Inputs, r health.Report) map[string]api.Component {
	out := map[string]api.Component{"registry": {Status: api.ComponentStatusUp}, "kafka": answers(in.Kafka), "postgres": answers(in.Postgres)}
	projections := api.Component{Status: api.ComponentStatusUp, Behind: in.Behind}
	switch {
	case in.Postgres != nil:
		projections.Status, projections.Detail = api.ComponentStatusBehind, "waits for Postgres"
	case in.Stalled != "":
		projections.Status, projections.Detail = api.ComponentStatusBehind, in.Stalled
	}
	out["projections"] = projections
	control := api.Component{Status: api.ComponentStatusUp, Behind: in.Outbox.Changes}
	if control.Detail = in.ControlBehind(); control.Detail != "" {
		control.Status = api.ComponentStatusBehind
	}
	out["control"] = control
	for _, service := range []string{"dispatcher", "supervisor"} {
		c := api.Component{Status: api.ComponentStatusUp, Nodes: r.Live[service]}
		if c.Nodes == 0 {
			c.Status, c.Detail = api.ComponentStatusAbsent, "no "+service+" is alive"
			switch {
			case in.Kafka != nil:
				c.Detail = "unknown while Kafka does not answer"
			case in.Fleet.Unheard != nil:
				c.Detail = "unknown: its reports could not be read from Kafka"
			}
		}
		out[service] = c
	}
	if n := r.Live["worker"]; n > 0 { // programs of the Go SDK; many installations have none
		out["worker"] = api.Component{Status: api.ComponentStatusUp, Nodes: n}
	}
	return out
}

func answers(err error) api.Component {
	if err == nil {
		return api.Component{Status: api.ComponentStatusUp}
	}
	return api.Component{Status: api.ComponentStatusDown, Detail: strings.TrimSpace(err.Error())}
}

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func millis(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	return utc(time.UnixMilli(ms))
}
