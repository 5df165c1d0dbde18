package kafka

import (
	"slices"
	"strconv"
	"time"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Worker is the service name of a program that runs agents by the Go SDK.
const Worker = "worker"

// Services are all that have to do with Kafka, in the order in which events meet them.
func Services() []string {
	return []string{config.Registry, config.Dispatcher, config.Supervisor, Worker}
}

// Planned is a topic that an installation needs, and who uses it.
type Planned struct {
	Topic
	// Agent is whose topic it is, as topic/name; "" for the installation's own.
	Agent             string
	WrittenBy, ReadBy []string
	// CreatedBy are the services that make it where they may.
	CreatedBy []string
}

// Installation is what decides which topics and rights there have to be.
type Installation struct {
	Names  topics.Names
	Tiers  []time.Duration
	Agents []*spec.Agent
	// SourceMaxBytes is the largest max.message.bytes of the agents' topics. Defaults to Kafka's own default.
	SourceMaxBytes int
}

// Topics are all topics of an installation, its own first.
func (i Installation) Topics() []Planned {
	source := max(i.SourceMaxBytes, DefaultMaxBytes)
	workers := []string{config.Supervisor, Worker}
	out := []Planned{
		{Topic: ControlTopic(i.Names), WrittenBy: []string{config.Registry}, ReadBy: []string{config.Registry, config.Dispatcher, config.Supervisor, Worker}, CreatedBy: []string{config.Registry}},
		{Topic: CommandsTopic(i.Names), WrittenBy: []string{config.Registry, config.Dispatcher}, ReadBy: []string{config.Dispatcher, config.Supervisor, Worker}, CreatedBy: []string{config.Registry}},
		{Topic: StatusTopic(i.Names), WrittenBy: []string{config.Dispatcher, config.Supervisor, Worker}, ReadBy: []string{config.Registry}, CreatedBy: []string{config.Registry, config.Dispatcher, config.Supervisor}},
		{Topic: OutcomesTopic(i.Names), WrittenBy: []string{config.Supervisor, Worker, config.Dispatcher}, ReadBy: []string{config.Registry, config.Dispatcher}, CreatedBy: []string{config.Registry, config.Dispatcher, config.Supervisor}},
	}
	for _, t := range RetryTopics(i.Names, i.Tiers) {
		t.Configs[maxMessageBytes] = strconv.Itoa(DerivedMaxBytes(source))
		out = append(out, Planned{Topic: t, WrittenBy: workers, ReadBy: []string{config.Dispatcher}, CreatedBy: []string{config.Dispatcher, config.Supervisor}})
	}
	dispatchers := []string{config.Dispatcher}
	out = append(out, Planned{Topic: WebhooksTopic(i.Names), WrittenBy: slices.Concat(workers, dispatchers), ReadBy: dispatchers, CreatedBy: []string{config.Dispatcher, config.Supervisor}})
	for _, t := range WebhookRetryTopics(i.Names, i.Tiers) {
		out = append(out, Planned{Topic: t, WrittenBy: dispatchers, ReadBy: dispatchers, CreatedBy: dispatchers})
	}
	out = append(out, Planned{Topic: WebhookDLQTopic(i.Names), WrittenBy: dispatchers, ReadBy: []string{config.Registry, config.Dispatcher}, CreatedBy: dispatchers})
	for _, a := range i.Agents {
		out = append(out, Planned{Topic: TasksTopic(i.Names, a, source), Agent: a.Ref(), WrittenBy: []string{config.Dispatcher}, ReadBy: workersOf(a), CreatedBy: []string{config.Dispatcher}})
		if a.Config.DLQEnabled {
			out = append(out, Planned{Topic: DLQTopic(i.Names, a, source), Agent: a.Ref(), WrittenBy: workersOf(a), ReadBy: []string{config.Registry, config.Dispatcher}, CreatedBy: workersOf(a)})
		}
	}
	return out
}

// workersOf are the services that run an agent.
func workersOf(a *spec.Agent) []string {
	if a.Runtime == "sdk" {
		return []string{Worker}
	}
	return []string{config.Supervisor}
}

// UserTopics are the topics that the agents listen to, each once.
func (i Installation) UserTopics() []string {
	var out []string
	for _, a := range i.Agents {
		out = append(out, a.Topic)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
