package fleet

import (
	"testing"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
	"github.com/reeve-run/reeve/services/supervisor/internal/pool"
)

func TestWhatASupervisorRuns(t *testing.T) {
	for name, tt := range map[string]struct {
		spec *spec.Agent
		want bool
	}{
		"active":           {&spec.Agent{Phase: spec.Active, Runtime: spec.Python}, true},
		"paused":           {&spec.Agent{Phase: spec.Paused, Runtime: spec.Python}, false},
		"in error":         {&spec.Agent{Phase: spec.Error, Runtime: spec.Python}, false},
		"a Go program's":   {&spec.Agent{Phase: spec.Active, Runtime: spec.SDK}, false},
		"deleted long ago": {nil, false},
	} {
		if got := runnable(tt.spec); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestWhichChangesNeedOtherProcesses(t *testing.T) {
	base := func() *spec.Agent {
		return &spec.Agent{Runtime: spec.Python, Callback: "a:b", Env: map[string]string{"A": "1"}, Command: []string{"x"},
			Config: spec.NewConfig(spec.Python), Process: spec.NewProcess(), Version: "1"}
	}
	for name, tt := range map[string]struct {
		change func(*spec.Agent)
		want   bool
	}{
		"nothing":     {func(*spec.Agent) {}, false},
		"retries":     {func(a *spec.Agent) { a.Config.MaxRetries = 9 }, false},
		"generation":  {func(a *spec.Agent) { a.Generation = 9 }, false},
		"phase":       {func(a *spec.Agent) { a.Phase = spec.Paused }, false},
		"concurrency": {func(a *spec.Agent) { a.Config.Concurrency = 9 }, true},
		"environment": {func(a *spec.Agent) { a.Env["A"] = "2" }, true},
		"command":     {func(a *spec.Agent) { a.Command = []string{"y"} }, true},
		"timeout":     {func(a *spec.Agent) { a.Process.GracefulTimeoutSec = 9 }, true},
		"version":     {func(a *spec.Agent) { a.Version = "2" }, true},
	} {
		now := base()
		tt.change(now)
		if got := recast(base(), now); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestWhatIsReported(t *testing.T) {
	crash, callback := instance.Cause("AgentCrashError", "x"), instance.Cause("AgentCallbackNotFoundError", "y")
	for name, tt := range map[string]struct {
		status pool.Status
		joined bool
		state  string
		cause  *spec.Cause
	}{
		"it starts":           {pool.Status{}, false, status.ReportStarting, nil},
		"its start failed":    {pool.Status{Fault: &crash}, false, status.ReportStarting, &crash},
		"it serves":           {pool.Status{Running: 1}, true, status.ReportServing, nil},
		"it is between lives": {pool.Status{Fault: &crash}, true, status.ReportServing, nil},
		"it crashed too much": {pool.Status{Down: &pool.Down{Act: instance.ActOpen, Cause: crash}}, true, status.ReportCircuitOpen, &crash},
		"it can't start":      {pool.Status{Down: &pool.Down{Act: instance.ActOpen, Cause: callback}}, false, status.ReportError, &callback},
	} {
		got := judge(tt.status, tt.joined)
		if got.state != tt.state || !sameCause(got.cause, tt.cause) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
