package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/dispatcher/internal/deliver"
)

// WebhookTier is the rule of a topic where webhooks wait: one passes when its tier's delay is over, to be sent, or to wait
// on where it has to wait longer than any tier does.
type WebhookTier struct {
	names topics.Names
	delay time.Duration
	tiers []time.Duration
	alert func(kind, message string)

	patience patience
}

// Take lets pass what has waited.
func (t *WebhookTier) Take(_ int32, records []*kgo.Record, limit int) ([]*kgo.Record, time.Duration) {
	return due(records[:min(limit, len(records))], t.delay, time.Now(), func(r *kgo.Record, now time.Time) *kgo.Record {
		return deliver.Onward(t.names, t.tiers, r, now)
	})
}

// Ended doesn't matter.
func (t *WebhookTier) Ended(bool) {}

// Refused tells a person: all that it writes to are Reeve's own topics, so the record is tried again.
func (t *WebhookTier) Refused(_ context.Context, _ *kgo.Record, reason error) {
	if t.patience.lost(time.Now()) {
		t.alert("webhooks_unwritable", fmt.Sprintf("webhooks that waited for %s can't be moved on: %v", topics.Tier(t.delay), reason))
	}
}

// Overtaken alerts people: something trimmed a topic that only Reeve trims.
func (t *WebhookTier) Overtaken(p int32, from, to int64) {
	t.alert("records_lost", lostRange(t.names.WebhookRetry(t.delay), p, from, to))
}

// Truncated alerts people.
func (t *WebhookTier) Truncated(p int32, end, read int64) {
	t.alert("records_lost", truncatedRange(t.names.WebhookRetry(t.delay), p, end, read))
}

// Assigned and Released don't matter.
func (t *WebhookTier) Assigned(hop.Assignment) {}

// Released see Assigned.
func (t *WebhookTier) Released(int32) {}

// runWebhookTier moves the webhooks on that have waited in a tier.
func (f *Fleet) runWebhookTier(ctx context.Context, delay time.Duration) {
	topic, group := f.env.Names.WebhookRetry(delay), f.env.Names.WebhookRetryGroup(delay)
	f.awaitTier(ctx, group, topic)
	rule := &WebhookTier{names: f.env.Names, delay: delay, tiers: f.env.Kafka.RetryTiers,
		alert: func(kind, message string) { f.env.Reporter.Meet("", "", kind, message) }}
	c, err := NewCarrier(CarrierConfig{Member: f.webhookMember(group, topic), Pool: f.env.Pool, Rule: rule, Logger: f.env.Logger}, nil)
	if err != nil {
		f.fail(err)
		return
	}
	defer c.Member().Close()
	f.webhooksEnded(ctx, c.Run(ctx))
}

// runWebhooks sends webhooks.
func (f *Fleet) runWebhooks(ctx context.Context) {
	f.awaitTier(ctx, f.env.Names.WebhookGroup(), f.env.Names.Webhooks())
	d, err := deliver.New(deliver.Config{
		Member: f.webhookMember(f.env.Names.WebhookGroup(), f.env.Names.Webhooks()), Pool: f.env.Pool, Names: f.env.Names,
		Tiers: f.env.Kafka.RetryTiers, Retries: f.env.WebhookRetries, Send: f.env.Sender.Send,
		MakeDLQ: func(ctx context.Context) error {
			return kafka.EnsureTopics(ctx, f.env.Client, f.env.Kafka.Replication, kafka.WebhookDLQTopic(f.env.Names))
		},
		Alert: f.alertWebhooks, Metrics: f.env.Metrics.Webhooks, Logger: f.env.Logger,
	})
	if err != nil {
		f.fail(err)
		return
	}
	f.webhooksEnded(ctx, d.Run(ctx))
}

func (f *Fleet) alertWebhooks(kind, message string, resolved bool) {
	f.env.Reporter.Alert(status.Alert{Kind: kind, Severity: "critical", Message: message, Resolved: resolved})
}

// webhookMember is a member of one of the dispatchers' groups for webhooks.
func (f *Fleet) webhookMember(group, topic string) hop.MemberConfig {
	return hop.MemberConfig{
		Opts: clientOptions(f.env.Opts), Names: f.env.Names, Group: group, Topic: topic, Service: f.env.Service, Node: f.env.Node,
		Denied: func(err error) { f.deniedShared(group, topic, "webhooks are sent again", err) },
	}
}

func (f *Fleet) webhooksEnded(ctx context.Context, err error) {
	switch {
	case errors.Is(err, hop.ErrReplaced):
		f.fail(f.env.replaced(ctx))
	case err != nil:
		f.fail(err)
	}
}
