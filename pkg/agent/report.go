package agent

import (
	"fmt"
	"log/slog"

	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/worker"
)

// healthy says what keeps an active agent from being served.
func (k *keeper) healthy() error {
	if k.settled() {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.engine != nil {
		return fmt.Errorf("the agent %s isn't confirmed by its group", k.own.Ref())
	}
	return fmt.Errorf("the agent %s isn't served: its task topic isn't there yet (is a dispatcher running, and does the topic %s exist?)", k.own.Ref(), k.own.Topic)
}

// engineAlert passes an alert on.
func (k *keeper) engineAlert(run *running, a worker.Alert) {
	record := k.record(Alert{Kind: a.Kind, Severity: a.Severity, Message: a.Message, Resolved: a.Resolved})
	if !a.Since.IsZero() {
		record.Since = status.Seconds(a.Since)
	}
	run.reporter.Alert(record)
	k.tellAlert(run, Alert{Kind: a.Kind, Severity: a.Severity, Message: a.Message, Resolved: a.Resolved})
	k.poke() // the report changes too
}

func (k *keeper) alert(a Alert) {
	run := k.runner.running
	run.reporter.Alert(k.record(a))
	k.tellAlert(run, a)
}

func (k *keeper) record(a Alert) status.Alert {
	return status.Alert{Topic: k.own.Topic, AgentName: k.own.Name, Kind: a.Kind, Severity: a.Severity, Message: a.Message, Resolved: a.Resolved}
}

// tellAlert tells this program.
func (k *keeper) tellAlert(run *running, a Alert) {
	a.Topic, a.Name = k.own.Topic, k.own.Name
	if !a.Resolved {
		k.counts.raised(a.Kind)
	}
	select {
	case run.alerts <- a:
	default: // it is in the log and with the registry
	}
}

// lookOverdue alerts while functions go on that should have ended long ago: each keeps a place from the agent's events.
func (k *keeper) lookOverdue() {
	n := k.figures().Overdue
	switch {
	case n > 0 && !k.overdue:
		k.alert(Alert{Kind: "attempts_overdue", Severity: "warning", Message: fmt.Sprintf("%d calls of the agent's function have taken twice their time: it should end with its context", n)})
	case n == 0 && k.overdue:
		k.alert(Alert{Kind: "attempts_overdue", Severity: "warning", Message: "no call of the agent's function is overdue any more", Resolved: true})
	}
	k.overdue = n > 0
}

// tell brings the report up to date.
func (k *keeper) tell(run *running) {
	switch {
	case k.engine == nil && k.wantsToRun():
		k.set(run, status.ReportStarting)
	case k.engine == nil:
		k.set(run, status.ReportIdle)
	case k.engine.Figures().Joined:
		k.set(run, status.ReportServing)
	}
}

func (k *keeper) wantsToRun() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return runnable(k.desired)
}

// set sends the report at once where its state changed; the figures go with the next heartbeat.
func (k *keeper) set(run *running, state string) {
	k.mu.Lock()
	old := k.report
	k.report.State = state
	if k.engine != nil {
		k.report.Outage = outageOf(k.engine.Figures().Outage)
	} else {
		k.report.Outage = nil
	}
	if k.desired != nil {
		k.report.Generation = k.desired.Generation
	}
	now := k.withFigures()
	k.mu.Unlock()
	if old.State != now.State || old.Generation != now.Generation || (old.Outage == nil) != (now.Outage == nil) {
		k.log.Debug("agent", slog.String("state", state), slog.Int64("generation", now.Generation))
		run.reporter.Agent(now)
	}
}

func outageOf(o *worker.Outage) *status.Outage {
	if o == nil {
		return nil
	}
	return &status.Outage{Since: status.Seconds(o.Since), Class: o.Class, Message: o.Message}
}

// withFigures is the report as of now. The lock is held.
func (k *keeper) withFigures() status.AgentReport {
	r := k.report
	if k.engine != nil {
		f := k.engine.Figures()
		r.Partitions, r.Running, r.Outage = f.Partitions, f.Running, outageOf(f.Outage)
	}
	if r.State == status.ReportServing {
		r.Instances = 1 // the program is the agent's process here
	}
	return r
}

// reportNow is what a heartbeat says of the agent; ok is false for one that isn't registered.
func (k *keeper) reportNow() (r status.AgentReport, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.withFigures(), k.desired != nil
}
