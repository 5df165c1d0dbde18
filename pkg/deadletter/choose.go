package deadletter

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
)

// MaxRedrives is how often a task is redriven among many. After that it takes an order of its own, or force.
const MaxRedrives = 5

// Choice is what an order means for a dead letter.
type Choice int

// The choices.
const (
	Leave   Choice = iota // it isn't meant
	Take                  // it is
	Guarded               // it is, but has come back too often
	Foreign               // it is, but it is no task
)

// Choose decides what an order means for an open dead letter that stands below its ends.
func Choose(c command.Command, r *kgo.Record) Choice {
	origin, err := task.ParseOrigin(route.Header(r, task.HeaderOrigin))
	switch {
	case c.Task != "":
		if want, bad := task.ParseOrigin(c.Task); bad != nil || err != nil || !want.Means(origin) {
			return Leave
		}
		return Take // who names a task means it
	case c.Dead.Fingerprint != "" && route.Header(r, task.HeaderErrorFingerprint) != c.Dead.Fingerprint:
		return Leave
	case c.Verb == command.Purge:
		return Take
	case err != nil || route.Header(r, task.HeaderAgent) != c.Ref():
		return Foreign
	case route.Redrives(r) >= MaxRedrives && !c.Dead.Force:
		return Guarded
	}
	return Take
}
