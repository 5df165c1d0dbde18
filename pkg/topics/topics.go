// Package topics names everything that Reeve keeps on Kafka: topics, consumer groups and transactional ids.
//
// Names are pure functions of an installation's prefix and of an agent's topic and name, so every service,
// and every person with Kafka's own tools, arrives at the same ones.
package topics

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DefaultPrefix is the prefix of an installation that names none.
const DefaultPrefix = "reeve"

// MaxLength is the longest topic name that Kafka accepts, in characters.
const MaxLength = 249

// Names derives names for one installation. The zero value uses DefaultPrefix.
type Names struct {
	// Prefix stands before every topic, group and transactional id. Defaults to DefaultPrefix.
	Prefix string
}

func (n Names) prefix() string {
	if n.Prefix == "" {
		return DefaultPrefix
	}
	return n.Prefix
}

// Control is the compacted topic of specs with their desired state; it has one partition.
func (n Names) Control() string { return n.prefix() + ".control" }

// Commands carries what is asked of dispatchers and workers once, such as to cancel a task; the registry writes it.
func (n Names) Commands() string { return n.prefix() + ".commands" }

// Status carries state changes, heartbeats, figures and alerts from dispatchers and workers to the registry.
func (n Names) Status() string { return n.prefix() + ".status" }

// Outcomes carries one record per settled attempt.
func (n Names) Outcomes() string { return n.prefix() + ".outcomes" }

// Tasks is the task topic of an agent.
func (n Names) Tasks(topic, agent string) string {
	return n.prefix() + ".tasks." + escape(topic) + "." + escape(agent)
}

// DLQ is the dead-letter topic of an agent.
func (n Names) DLQ(topic, agent string) string {
	return n.prefix() + ".dlq." + escape(topic) + "." + escape(agent)
}

// Retry is the topic of a retry tier.
func (n Names) Retry(tier time.Duration) string { return n.prefix() + ".retry." + Tier(tier) }

// TierOf is the tier of a Retry or a WebhookRetry topic; ok is false for any other.
func (n Names) TierOf(topic string) (tier time.Duration, ok bool) {
	for _, head := range []string{n.prefix() + ".retry.", n.Webhooks() + "."} {
		if rest, found := strings.CutPrefix(topic, head); found {
			d, err := time.ParseDuration(rest)
			return d, err == nil && d > 0 && Tier(d) == rest
		}
	}
	return 0, false
}

// Webhooks carries the results that are to be sent to URLs.
func (n Names) Webhooks() string { return n.prefix() + ".webhooks" }

// WebhookRetry is the topic of webhooks that wait for a tier's delay.
func (n Names) WebhookRetry(tier time.Duration) string { return n.Webhooks() + "." + Tier(tier) }

// WebhookDLQ is the topic of webhooks that were given up.
func (n Names) WebhookDLQ() string { return n.prefix() + ".dlq.webhooks" }

// WebhookGroup is the group that dispatchers join on Webhooks, and WebhookRetryGroup that on a WebhookRetry topic. The slash
// keeps them from being an agent's.
func (n Names) WebhookGroup() string { return n.Webhooks() + "/send" }

// WebhookRetryGroup see WebhookGroup.
func (n Names) WebhookRetryGroup(tier time.Duration) string {
	return n.Webhooks() + "/" + Tier(tier)
}

// Group is the group of an agent on its user topic, which dispatchers join.
func (n Names) Group(topic, agent string) string { return n.prefix() + "." + topic + "." + agent }

// WorkGroup is the group of an agent on its task topic, which workers join.
func (n Names) WorkGroup(topic, agent string) string {
	return n.prefix() + ".work." + topic + "." + agent
}

// RetryGroup is the group that dispatchers join on a retry tier's topic.
func (n Names) RetryGroup(tier time.Duration) string { return n.Retry(tier) }

// DLQGroup is the group whose committed offset says which of an agent's dead letters are still open. No topic and no agent
// has a slash in its name, so it is nobody else's.
func (n Names) DLQGroup(topic, agent string) string {
	return n.prefix() + ".dlq/" + topic + "/" + agent
}

// WebhookDLQGroup is DLQGroup for webhooks that were given up.
func (n Names) WebhookDLQGroup() string { return n.prefix() + ".dlq/webhooks" }

// NodeGroup is the group that holds a node's name, with that node as its only member. No topic and no agent has a slash in
// its name, so it is nobody else's.
func (n Names) NodeGroup(service, node string) string {
	return n.prefix() + ".work." + service + "/" + node
}

// TransactionalID is the id of a service process's producer number k.
func (n Names) TransactionalID(service, node string, k int) string {
	return n.prefix() + "-" + service + "-" + node + "-" + strconv.Itoa(k)
}

// Reserved reports whether a topic is one of Reeve's own, which no agent may listen to or reply to.
func (n Names) Reserved(topic string) bool { return strings.HasPrefix(topic, n.prefix()+".") }

// Check reports why an agent's derived names can't be used, or nil.
func (n Names) Check(topic, agent string) error {
	for _, name := range []string{n.Tasks(topic, agent), n.DLQ(topic, agent)} {
		if len(name) > MaxLength {
			return fmt.Errorf("the topic name %s has %d characters, Kafka takes at most %d: shorten the agent's topic or name by %d",
				name, len(name), MaxLength, len(name)-MaxLength)
		}
	}
	return nil
}

// Tier writes a retry delay as it stands in topic names: 1s, 30s, 5m, 1h.
func Tier(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d >= time.Minute && d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	case d >= time.Second && d%time.Second == 0:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	default:
		return strconv.FormatInt(int64(d/time.Millisecond), 10) + "ms"
	}
}

// escape writes an underscore as two hyphens: Kafka takes '.' and '_' for the same character in metric names
// and refuses topics that collide there.
func escape(s string) string { return strings.ReplaceAll(s, "_", "--") }
