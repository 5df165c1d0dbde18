package bus

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/spec"
)

// StartAt finds the offsets that an agent's start means now; nil is the topic's beginning, which is all that a topic that
// doesn't exist yet has. Events of transactions that are still open count as not published yet.
func (b *Bus) StartAt(ctx context.Context, a *spec.Agent) (*spec.StartAt, error) {
	since, err := a.StartTime()
	if err != nil {
		return nil, err
	}
	found, err := kafka.ListTopics(ctx, b.client, a.Topic)
	if err != nil {
		return nil, err
	}
	t := found[a.Topic]
	if errors.Is(t.Err, kerr.UnknownTopicOrPartition) || t.Err == nil && len(t.Partitions) == 0 {
		return nil, nil
	}
	if t.Err != nil {
		return nil, fmt.Errorf("look up topic %s: %w", a.Topic, t.Err)
	}
	adm := kadm.NewClient(b.client)
	ends, err := adm.ListCommittedOffsets(ctx, a.Topic)
	at := ends
	if err == nil && !since.IsZero() {
		at, err = adm.ListOffsetsAfterMilli(ctx, since.UnixMilli(), a.Topic)
	}
	if err = errors.Join(err, ends.Error(), at.Error()); err != nil {
		return nil, fmt.Errorf("list offsets of %s: %w", a.Topic, err)
	}
	start := &spec.StartAt{Offsets: map[int32]int64{}}
	if t.ID != (kadm.TopicID{}) {
		start.TopicID = base64.RawURLEncoding.EncodeToString(t.ID[:])
	}
	ends.Each(func(end kadm.ListedOffset) {
		if o, ok := at.Lookup(a.Topic, end.Partition); ok {
			start.Offsets[end.Partition] = min(o.Offset, end.Offset)
		}
	})
	return start, nil
}
