// Package report tells the status topic what a supervisor does: states of instances, health, alerts, heartbeats, log
// lines. It never waits for Kafka: what doesn't fit into the client's bounded buffer is dropped and counted.
package report

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
)

// Reporter writes status records. It is safe for concurrent use.
type Reporter struct {
	client        *kgo.Client
	topic         string
	service, node string
	host          string
	started       time.Time
	logger        *slog.Logger
	dropped       atomic.Int64
}

// New makes a reporter that writes with a client which somebody else closes.
func New(cl *kgo.Client, names topics.Names, service, node string, logger *slog.Logger) *Reporter {
	host, _ := os.Hostname() // "" where the machine has none
	return &Reporter{client: cl, topic: names.Status(), service: service, node: node, host: host, started: time.Now(), logger: logger}
}

// Started is when the node started, as its heartbeats say.
func (r *Reporter) Started() time.Time { return r.started }

// Dropped counts the records that were dropped since the start.
func (r *Reporter) Dropped() int64 { return r.dropped.Load() }

// Node sends the heartbeat.
func (r *Reporter) Node(agents []status.AgentReport, leaving bool) {
	r.send(r.service+"/"+r.node, status.Node{
		Event: status.EventNode, Service: r.service, Node: r.node, Host: r.host, PID: os.Getpid(), StartedAt: seconds(r.started),
		Leaving: leaving, Agents: agents, Timestamp: seconds(time.Now()),
	})
}

// Agent sends one agent's report.
func (r *Reporter) Agent(a status.AgentReport) {
	a.Event, a.Service, a.Node, a.Timestamp = status.EventAgent, r.service, r.node, seconds(time.Now())
	r.send(a.Topic+"/"+a.AgentName, a)
}

// Alert asks for a person; resolved takes the alert of the same kind back.
func (r *Reporter) Alert(a *spec.Agent, kind, severity, message string, resolved bool) {
	now := seconds(time.Now())
	log := r.logger.Warn
	if resolved {
		log = r.logger.Info
	}
	log("alert: "+message, slog.String("kind", kind), slog.String("agent", a.Ref()), slog.Bool("resolved", resolved))
	r.send(a.Ref(), status.Alert{
		Event: status.EventAlert, Topic: a.Topic, AgentName: a.Name, Kind: kind, Severity: severity, Subject: a.Ref(), Message: message,
		Since: now, Resolved: resolved, Timestamp: now,
	})
}

// Changed sends an instance's change of state.
func (r *Reporter) Changed(a *spec.Agent, id string, c instance.Change) {
	r.send(a.Ref(), status.StateChange{
		Event: status.EventStateChange, Topic: a.Topic, AgentName: a.Name, Instance: id, Node: r.node,
		OldState: string(c.From), NewState: string(c.To), Reason: c.Reason, PID: c.PID, Timestamp: seconds(c.When),
	})
}

// Checked sends the result of a ping.
func (r *Reporter) Checked(a *spec.Agent, id string, c instance.Check) {
	r.send(a.Ref(), status.HealthCheck{
		Event: status.EventHealthCheck, Topic: a.Topic, AgentName: a.Name, Instance: id, Node: r.node,
		State: string(c.State), Health: string(c.Health), CPUPercent: c.CPUPercent, MemoryMB: c.MemoryMB,
		LatencyMS: float64(c.Latency.Microseconds()) / 1000, RestartCount: c.Restarts, Timestamp: seconds(c.When),
	})
}

// Output sends a line of an agent's log.
func (r *Reporter) Output(a *spec.Agent, id, line string, heldBack int) {
	if heldBack > 0 {
		line = fmt.Sprintf("[%d lines left out] %s", heldBack, line)
	}
	r.logger.Debug("agent output", slog.String("agent", a.Ref()), slog.String("instance", id), slog.String("line", line))
	r.send(a.Ref(), status.LogLine{Event: status.EventLog, Topic: a.Topic, AgentName: a.Name, Instance: id, Line: line, Timestamp: seconds(time.Now())})
}

func (r *Reporter) send(key string, record any) {
	value, err := json.Marshal(record)
	if err != nil {
		r.logger.Error("encode a status record", slog.Any("error", err))
		return
	}
	r.client.TryProduce(context.Background(), &kgo.Record{Topic: r.topic, Key: []byte(key), Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			r.dropped.Add(1)
		}
	})
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
