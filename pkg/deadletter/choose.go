package deadletter

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// MaxRedrives is how often a task or a webhook is redriven among many. After that it takes an order of its own, or force.
const MaxRedrives = 5

// A Queue is where dead letters stand, and the group whose commits say which of them are open.
type Queue struct{ Topic, Group string }

// QueueOf gives the dead letters of an agent, or those that are webhooks, by what a command calls them.
func QueueOf(names topics.Names, c command.Command) Queue {
	if c.OfWebhooks() {
		return Queue{names.WebhookDLQ(), names.WebhookDLQGroup()}
	}
	return Queue{names.DLQ(c.Topic, c.Agent), names.DLQGroup(c.Topic, c.Agent)}
}

// Choice is what an order means for a dead letter.
type Choice int

// The choices.
const (
	Leave   Choice = iota // it isn't meant
	Take                  // it is
	Guarded               // it is, but has come back too often
	Foreign               // it is, but it is no task, or no webhook
)

// Leaves reports whether an order leaves dead letters where they are which their agent, as it is now, doesn't take: redriven they
// would be rejected, or come back as they were. Who names a task means it.
func Leaves(c command.Command) bool {
	return c.Verb == command.Redrive && !c.OfWebhooks() && !c.OfOne() && c.Dead != nil && !c.Dead.Force
}

// Choose decides what an order means for an open dead letter that stands below its ends.
func Choose(c command.Command, r *kgo.Record) Choice {
	if c.OfWebhooks() {
		return chooseWebhook(c, r)
	}
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

func chooseWebhook(c command.Command, r *kgo.Record) Choice {
	if c.Dead.Webhook != "" {
		if route.WebhookID(r) != c.Dead.Webhook {
			return Leave
		}
		return Take
	}
	_, endpoint, _ := route.WebhookURL(r)
	times, _ := route.WebhookRedrives(r)
	switch {
	case c.Dead.Endpoint != "" && endpoint != c.Dead.Endpoint:
		return Leave
	case c.Verb == command.Purge:
		return Take
	case route.Header(r, task.HeaderWebhook) == "":
		return Foreign
	case times >= MaxRedrives && !c.Dead.Force:
		return Guarded
	}
	return Take
}
