package kafka

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/topics"
)

// FormerTiers are the tiers that this installation has topics of beside those of its configuration, ascending: it was
// configured otherwise once, and what waits there still falls due.
func FormerTiers(ctx context.Context, cl *kgo.Client, names topics.Names, configured []time.Duration) ([]time.Duration, error) {
	found, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return nil, Explained("list topics", err)
	}
	var former []time.Duration
	for topic := range found {
		if tier, ok := names.TierOf(topic); ok && !slices.Contains(configured, tier) && !slices.Contains(former, tier) {
			former = append(former, tier)
		}
	}
	slices.Sort(former)
	return former, nil
}
