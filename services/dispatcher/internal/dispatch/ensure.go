package dispatch

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/spec"
)

var errNoTopic = errors.New("the topic doesn't exist")

// userTopic gives the id of the agent's topic, which it makes where that is allowed, and how many partitions it has.
func (k *Keeper) userTopic(ctx context.Context, a *spec.Agent) (id [16]byte, partitions int, err error) {
	found, err := k.env.admin().ListTopics(ctx, a.Topic)
	if err != nil {
		return id, 0, err
	}
	t := found[a.Topic]
	if errors.Is(t.Err, kerr.UnknownTopicOrPartition) || t.Err == nil && len(t.Partitions) == 0 {
		if k.env.CreateTopics {
			if err := kafka.EnsureTopics(ctx, k.env.Client, k.env.Kafka.Replication, kafka.Topic{Name: a.Topic, Partitions: -1}); err != nil {
				return id, 0, err
			}
		}
		return id, 0, errNoTopic
	}
	return t.ID, len(t.Partitions), t.Err
}

// taskTopic makes the agent's task topic and sees to it that topics that its records go through take them.
func (k *Keeper) taskTopic(ctx context.Context, a *spec.Agent) error {
	source, err := k.sourceLimit(ctx, a)
	if err != nil {
		return err
	}
	tasks := kafka.TasksTopic(k.env.Names, a, source)
	found, err := k.env.admin().ListTopics(ctx, tasks.Name)
	if err != nil {
		return fmt.Errorf("look up topic %s: %w", tasks.Name, err)
	}
	if found[tasks.Name].Err != nil || len(found[tasks.Name].Partitions) == 0 {
		if err := kafka.EnsureTopics(ctx, k.env.Client, k.env.Kafka.Replication, tasks); err != nil {
			return err
		}
	}
	limit := kafka.DerivedMaxBytes(source)
	through := []string{tasks.Name}
	if limit > kafka.SharedMaxBytes {
		for _, tier := range k.env.Tiers {
			through = append(through, k.env.Names.Retry(tier))
		}
	}
	for _, topic := range through {
		err := kafka.RaiseMaxBytes(ctx, k.env.Client, topic, limit)
		if err := k.env.Rights.Accept("read and raise the record size limit of "+topic, fmt.Sprintf("an event that is too large for it will wait; its max.message.bytes should be at least %d", limit), err); err != nil {
			return err
		}
	}
	return nil
}

// sourceLimit is the largest record that the agent's topic takes.
func (k *Keeper) sourceLimit(ctx context.Context, a *spec.Agent) (int, error) {
	source, err := kafka.MaxBytes(ctx, k.env.Client, a.Topic)
	if err == nil {
		return source, nil
	}
	if isUnknownTopic(err) {
		return kafka.DefaultMaxBytes, nil
	}
	return kafka.DefaultMaxBytes, k.env.Rights.Accept("read the settings of "+a.Topic, "its record size limit is taken to be Kafka's default", err)
}
