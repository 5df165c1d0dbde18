package fleet

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

const (
	// keepWebhooks is for how long it is known what became of a webhook, and mostWebhooks of how many.
	keepWebhooks = 7 * 24 * time.Hour
	mostWebhooks = 1_000_000
)

// webhookKey is the task whose webhook is told of.
type webhookKey struct {
	topic, name string
	partition   int32
	offset      int64
}

// webhooks are the latest of what a batch tells of each task's.
type webhooks map[webhookKey]toldWebhook

type toldWebhook struct {
	status.Webhook
	topicID string
}

func (w webhooks) add(told status.Webhook) {
	o, err := task.ParseOrigin(told.Origin)
	if err != nil || told.AgentName == "" {
		return
	}
	key := webhookKey{told.Topic, told.AgentName, o.Partition, o.Offset}
	if before, ok := w[key]; !ok || before.topicID != o.TopicID || !older(told, before.Webhook) {
		w[key] = toldWebhook{told, o.TopicID}
	}
}

// older reports whether one of two of a task is from before the other: repeats after a kill may come late.
func older(a, b status.Webhook) bool {
	return a.Redrives < b.Redrives || a.Redrives == b.Redrives && a.Attempts < b.Attempts
}

func storeWebhooks(ctx context.Context, tx *sqlx.Tx, all webhooks) error {
	if len(all) == 0 {
		return nil
	}
	var topics, names, topicIDs, ids, endpoints, states, classes, messages []string
	var partitions, redrives, attempts, codes []int64
	var offsets, next, updated []int64
	for key, w := range all {
		topics, names, topicIDs = append(topics, key.topic), append(names, key.name), append(topicIDs, w.topicID)
		partitions, offsets = append(partitions, int64(key.partition)), append(offsets, key.offset)
		redrives, attempts, codes = append(redrives, int64(w.Redrives)), append(attempts, int64(w.Attempts)), append(codes, int64(w.StatusCode))
		ids, endpoints, states = append(ids, w.ID), append(endpoints, w.Endpoint), append(states, w.State)
		classes, messages = append(classes, w.ErrorClass), append(messages, w.Error)
		next, updated = append(next, floatTime(w.NextAt).UnixMilli()), append(updated, floatTime(w.Timestamp).UnixMilli())
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO webhooks AS w (topic, name, topic_id, partition, "offset", redrives, attempts, status_code, webhook_id, endpoint, state,
			error_class, error, next_at, updated_at)
		SELECT topic, name, topic_id, partition, "offset", redrives, attempts, code, id, endpoint, state, class, message,
			CASE WHEN next > 0 THEN to_timestamp(next / 1000.0) END, to_timestamp(updated / 1000.0)
		FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::int[], $7::int[], $8::int[], $9::text[], $10::text[], $11::text[],
			$12::text[], $13::text[], $14::bigint[], $15::bigint[])
			AS t (topic, name, topic_id, partition, "offset", redrives, attempts, code, id, endpoint, state, class, message, next, updated)
		ON CONFLICT (topic, name, partition, "offset") DO UPDATE SET topic_id = excluded.topic_id, redrives = excluded.redrives, attempts = excluded.attempts,
			status_code = excluded.status_code, webhook_id = excluded.webhook_id, endpoint = excluded.endpoint, state = excluded.state,
			error_class = excluded.error_class, error = excluded.error, next_at = excluded.next_at, updated_at = excluded.updated_at
		WHERE w.topic_id <> excluded.topic_id OR (excluded.redrives, excluded.attempts) >= (w.redrives, w.attempts)`,
		pq.Array(topics), pq.Array(names), pq.Array(topicIDs), pq.Array(partitions), pq.Array(offsets), pq.Array(redrives), pq.Array(attempts), pq.Array(codes),
		pq.Array(ids), pq.Array(endpoints), pq.Array(states), pq.Array(classes), pq.Array(messages), pq.Array(next), pq.Array(updated))
	return err
}

// Webhook is what became of a task's webhook.
type Webhook struct {
	TopicID    string `db:"topic_id"`
	Redrives   int
	Attempts   int
	WebhookID  string `db:"webhook_id"`
	Endpoint   string
	State      string
	StatusCode int    `db:"status_code"`
	ErrorClass string `db:"error_class"`
	Error      string
	NextAt     *time.Time `db:"next_at"`
	UpdatedAt  time.Time  `db:"updated_at"`
}

// Webhook tells what became of the webhook of a task's round; nil where nobody has told yet, or it is forgotten.
func (s Store) Webhook(ctx context.Context, topic, name string, partition int32, offset int64, redrives int) (*Webhook, error) {
	var w Webhook
	err := s.DB.GetContext(ctx, &w, `SELECT topic_id, redrives, attempts, webhook_id, endpoint, state, status_code, error_class, error, next_at, updated_at
		FROM webhooks WHERE topic = $1 AND name = $2 AND partition = $3 AND "offset" = $4 AND redrives = $5`, topic, name, partition, offset, redrives)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the webhook of %s/%s %d/%d: %w", topic, name, partition, offset, err)
	}
	return &w, nil
}

// KnowsWebhook reports whether it was told of a webhook with this id, and isn't forgotten. It looks at all that are known.
func (s Store) KnowsWebhook(ctx context.Context, id string) (known bool, err error) {
	if err := s.DB.GetContext(ctx, &known, `SELECT EXISTS (SELECT 1 FROM webhooks WHERE webhook_id = $1)`, id); err != nil {
		return false, fmt.Errorf("look for the webhook %s: %w", id, err)
	}
	return known, nil
}

// pruneWebhooks forgets what is old, and what there is no room for.
func pruneWebhooks(ctx context.Context, db *sqlx.DB, now time.Time) error {
	_, err := db.ExecContext(ctx, `DELETE FROM webhooks WHERE updated_at < greatest($1, (SELECT updated_at FROM webhooks ORDER BY updated_at DESC OFFSET $2 LIMIT 1))`,
		now.Add(-keepWebhooks), mostWebhooks)
	if err != nil {
		return fmt.Errorf("prune webhooks: %w", err)
	}
	return nil
}
