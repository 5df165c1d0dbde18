// Package report tells the status topic what only a supervisor knows: states of instances, their health, their log lines.
package report

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
)

// Reporter is a status.Reporter that also writes of instances. It is safe for concurrent use.
type Reporter struct {
	*status.Reporter
	node   string
	logger *slog.Logger
}

// New makes a reporter that writes with a client which somebody else closes.
func New(cl *kgo.Client, names topics.Names, service, node string, logger *slog.Logger) *Reporter {
	return &Reporter{Reporter: status.NewReporter(cl, names, service, node, logger), node: node, logger: logger}
}

// Changed sends an instance's change of state.
func (r *Reporter) Changed(a *spec.Agent, id string, c instance.Change) {
	r.Send(a.Ref(), status.StateChange{
		Event: status.EventStateChange, Topic: a.Topic, AgentName: a.Name, Instance: id, Node: r.node,
		OldState: string(c.From), NewState: string(c.To), Reason: c.Reason, PID: c.PID, Timestamp: status.Seconds(c.When),
	})
}

// Checked sends the result of a ping.
func (r *Reporter) Checked(a *spec.Agent, id string, c instance.Check) {
	r.Send(a.Ref(), status.HealthCheck{
		Event: status.EventHealthCheck, Topic: a.Topic, AgentName: a.Name, Instance: id, Node: r.node,
		State: string(c.State), Health: string(c.Health), CPUPercent: c.CPUPercent, MemoryMB: c.MemoryMB,
		LatencyMS: float64(c.Latency.Microseconds()) / 1000, RestartCount: c.Restarts, Timestamp: status.Seconds(c.When),
	})
}

// Output sends a line of an agent's log.
func (r *Reporter) Output(a *spec.Agent, id, line string, heldBack int) {
	if heldBack > 0 {
		line = fmt.Sprintf("[%d lines left out] %s", heldBack, line)
	}
	r.logger.Debug("agent output", slog.String("agent", a.Ref()), slog.String("instance", id), slog.String("line", line))
	r.Send(a.Ref(), status.LogLine{Event: status.EventLog, Topic: a.Topic, AgentName: a.Name, Instance: id, Line: line, Timestamp: status.Seconds(time.Now())})
}
