package fleet

import (
	"context"
	"log/slog"
	"slices"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
	"github.com/reeve-run/reeve/services/supervisor/internal/pool"
)

func (k *Keeper) engineAlert(a worker.Alert) {
	al := k.about(a.Kind, a.Severity, a.Message, a.Resolved)
	if !a.Since.IsZero() {
		al.Since = status.Seconds(a.Since)
	}
	k.env.Reporter.Alert(al)
}

func (k *Keeper) sendAlert(kind, severity, message string, resolved bool) {
	k.env.Reporter.Alert(k.about(kind, severity, message, resolved))
}

func (k *Keeper) about(kind, severity, message string, resolved bool) status.Alert {
	topic, name, _ := spec.ParseKey(k.key)
	return status.Alert{Topic: topic, AgentName: name, Kind: kind, Severity: severity, Message: message, Resolved: resolved}
}

// raise alerts when all instances are down, and takes that back.
func (k *Keeper) raise(s pool.Status) {
	if s.Down == nil {
		k.settle()
		return
	}
	kind, severity, message := status.KindCircuitOpen, "critical", "the agent's processes ended too often, nothing of it runs here until it is reset: "
	switch {
	case unstartable(s.Down.Cause):
		kind, message = status.KindAgentError, "the agent can't be started here: "
	case s.Down.Act == instance.ActAsk:
		kind, severity, message = status.KindRestartNeeded, "warning", "the agent's process ended, and its policy leaves the restart to a person: "
	case s.Down.Act == instance.ActLeave:
		kind, severity, message = status.KindRestartNeeded, "warning", "the agent's process ended and isn't restarted, as its policy says: "
	}
	if k.alert != kind {
		k.settle()
		k.alert = kind
		k.sendAlert(kind, severity, message+s.Down.Cause.Message, false)
	}
}

func (k *Keeper) settle() {
	if k.alert != "" {
		k.sendAlert(k.alert, "warning", "it runs again, or is to run no more", true)
		k.alert = ""
	}
}

// tell brings the report up to date.
func (k *Keeper) tell() {
	if k.pool == nil {
		k.set(status.ReportIdle, nil)
		return
	}
	s := judge(k.pool.Status(), k.engine != nil)
	k.set(s.state, s.cause)
}

// set sends the report at once where its state or error changed, or an outage began or ended; the figures go with the next
// heartbeat.
func (k *Keeper) set(state string, cause *spec.Cause) {
	r := status.AgentReport{State: state, Error: cause}
	if k.pool != nil {
		r.Instances = k.pool.Status().Running
	}
	if k.engine != nil {
		f := k.engine.Figures()
		r.Partitions, r.Running = f.Partitions, f.Running
		if o := f.Outage; o != nil {
			r.Outage = &status.Outage{Since: status.Seconds(o.Since), Class: o.Class, Message: o.Message}
		}
	}
	k.mu.Lock()
	old := k.report
	r.Topic, r.AgentName, r.Generation = old.Topic, old.AgentName, old.Generation
	if k.desired != nil && (k.pool == nil || !k.pool.Rolling()) {
		r.Generation = k.desired.Generation
		if k.spec != nil {
			r.Generation = k.spec.Generation
		}
	}
	k.report = r
	k.mu.Unlock()
	if old.State != r.State || !sameCause(old.Error, r.Error) || old.Generation != r.Generation || (old.Outage == nil) != (r.Outage == nil) {
		k.env.Reporter.Agent(r)
	}
}

func sameCause(a, b *spec.Cause) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// observer passes on what instances do. A crash is an agent's business at once.
type observer struct{ k *Keeper }

// Changed reports the change and logs it.
func (o observer) Changed(a *spec.Agent, id string, c instance.Change) {
	o.k.env.Reporter.Changed(a, id, c)
	level := slog.LevelDebug
	if slices.Contains([]instance.State{instance.Running, instance.Stopped}, c.To) {
		level = slog.LevelInfo
	}
	o.k.log.Log(context.Background(), level, "instance changed", slog.String("state", string(c.To)), slog.String("instance", id), slog.Int("pid", c.PID), slog.String("reason", c.Reason))
}

// Checked reports what a ping found.
func (o observer) Checked(a *spec.Agent, id string, c instance.Check) {
	o.k.env.Reporter.Checked(a, id, c)
}

// Output passes on a line of the agent's log.
func (o observer) Output(a *spec.Agent, id, line string, heldBack int) {
	o.k.env.Reporter.Output(a, id, line, heldBack)
}
