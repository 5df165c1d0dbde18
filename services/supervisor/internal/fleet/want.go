package fleet

import (
	"reflect"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/supervisor/internal/pool"
)

// runnable reports whether a supervisor is to run an agent. A nil spec is one that was deleted.
func runnable(a *spec.Agent) bool {
	return a != nil && a.Phase == spec.Active && !a.Cleaning() && a.Runtime != spec.SDK
}

// recast reports whether a changed spec needs other processes.
func recast(old, now *spec.Agent) bool {
	return old.Runtime != now.Runtime || old.Dir != now.Dir || old.Callback != now.Callback || old.Version != now.Version ||
		old.Config.Concurrency != now.Config.Concurrency || old.Process != now.Process ||
		!reflect.DeepEqual(old.Command, now.Command) || !reflect.DeepEqual(old.Env, now.Env)
}

// standing is what a report says of an agent that is to run.
type standing struct {
	state string
	cause *spec.Cause
}

// judge sums up how an agent does here. joined says whether its worker is a member of the group.
func judge(s pool.Status, joined bool) standing {
	switch {
	case s.Down != nil && unstartable(s.Down.Cause):
		return standing{status.ReportError, &s.Down.Cause}
	case s.Down != nil:
		return standing{status.ReportCircuitOpen, &s.Down.Cause}
	case joined:
		return standing{status.ReportServing, nil}
	}
	return standing{status.ReportStarting, s.Fault}
}

// unstartable tells an agent that can't be started from one that crashed too often.
func unstartable(c spec.Cause) bool {
	return c.Type != "AgentCrashError" && c.Type != "AgentTimeoutError"
}
