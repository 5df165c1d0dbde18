package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/internal/kafka"
)

const (
	// buryAfter is how long a deleted agent stays on the control topic once its last retries have fallen due. Whoever was cut off
	// when it was deleted hears of it when they are back.
	buryAfter = 14 * 24 * time.Hour
	buryEvery = time.Hour
	buryLimit = 30 * time.Second
	// laggards is how long after it falls due a retry may be moved.
	laggards = 24 * time.Hour
)

// bury takes agents off the control topic that were deleted long ago, once nothing of them can be left on the retry topics: a
// retry of an agent that nobody knows goes round there for ever.
func (p *parts) bury(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, buryLimit)
	defer cancel()
	former, err := kafka.FormerTiers(ctx, p.client, p.cfg.Kafka.Names(), p.cfg.Kafka.RetryTiers)
	if err != nil {
		return err
	}
	tiers := slices.Concat(p.cfg.Kafka.RetryTiers, former)
	waits, err := p.retriesWait(ctx, tiers, now)
	if err != nil {
		return err
	}
	if waits != "" {
		p.cfg.Logger.Debug("agents that were deleted long ago stay on the control topic: old retries wait still", slog.String("topic", waits))
		return nil
	}
	gone, err := p.store.Bury(ctx, now.Add(-buryAfter-slices.Max(append(tiers, 0))))
	if len(gone) > 0 {
		p.cfg.Logger.Info("agents that were deleted long ago are taken off the control topic", slog.Any("agents", gone))
	}
	return err
}

// retriesWait names a retry topic of the tiers on which something is waiting that should have been moved long ago; "" where
// there is none.
func (p *parts) retriesWait(ctx context.Context, tiers []time.Duration, now time.Time) (topic string, err error) {
	names, adm := p.cfg.Kafka.Names(), kadm.NewClient(p.client)
	for _, tier := range tiers {
		topic := names.Retry(tier)
		starts, err1 := adm.ListStartOffsets(ctx, topic)
		news, err2 := adm.ListOffsetsAfterMilli(ctx, now.Add(-tier-laggards).UnixMilli(), topic)
		moved, err3 := adm.FetchOffsets(ctx, names.RetryGroup(tier))
		if errors.Is(err3, kerr.GroupIDNotFound) {
			err3 = nil
		}
		if err := errors.Join(err1, err2, err3); err != nil {
			return "", fmt.Errorf("look how far %s is moved: %w", topic, err)
		}
		waits := false
		news.Each(func(o kadm.ListedOffset) {
			start, _ := starts.Lookup(topic, o.Partition)
			at, _ := moved.Lookup(topic, o.Partition)
			switch {
			case errors.Is(o.Err, kerr.UnknownTopicOrPartition): // nobody has used the tier
			case o.Err != nil || start.Err != nil:
				err = errors.Join(err, o.Err, start.Err)
			default:
				waits = waits || max(at.At, start.Offset) < o.Offset
			}
		})
		if err != nil || waits {
			return topic, err
		}
	}
	return "", nil
}
