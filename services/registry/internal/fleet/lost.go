package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/reeve-run/reeve/pkg/status"
)

// Lost is a range of events that retention removed before an agent had consumed them: offsets from First up to Next, Next
// excluded. First is -1 where nobody knows it.
type Lost struct {
	Topic, Name string
	Partition   int32
	First, Next int64
	At          time.Time
}

// storeLost records a range and writes it into the agent's history, once however often it is reported.
func storeLost(ctx context.Context, tx *sqlx.Tx, l status.Lost) error {
	res, err := tx.ExecContext(ctx, `INSERT INTO events_lost (topic, name, topic_id, partition, first, next, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT DO NOTHING`, l.Topic, l.AgentName, l.TopicID, l.Partition, l.From, l.To, floatTime(l.Timestamp))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	reason := fmt.Sprintf("retention removed %d events of partition %d, offsets %d to %d, before they were consumed", l.To-l.From, l.Partition, l.From, l.To-1)
	if l.From < 0 {
		reason = fmt.Sprintf("retention removed events of partition %d below offset %d before they were consumed", l.Partition, l.To)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO agent_history (topic, name, at, action, old_phase, phase, generation, actor, reason)
		SELECT topic, name, $3, 'events_lost', phase, phase, generation, 'dispatcher', $4 FROM agents WHERE topic = $1 AND name = $2`,
		l.Topic, l.AgentName, floatTime(l.Timestamp), reason)
	return err
}

// LostOf lists what retention took from an agent, the latest first, at most 100 ranges.
func (s Store) LostOf(ctx context.Context, topic, name string) ([]Lost, error) {
	var out []Lost
	err := s.DB.SelectContext(ctx, &out, `SELECT topic, name, partition, first, next, at FROM events_lost WHERE topic = $1 AND name = $2 ORDER BY at DESC, partition, next LIMIT 100`, topic, name)
	if err != nil {
		return nil, fmt.Errorf("read lost events of %s/%s: %w", topic, name, err)
	}
	return out, nil
}

// mostLost is how many ranges are kept of an agent, with what its history says of each: one that is always slower than its
// topic's retention loses some for ever.
const mostLost = 1000

// pruneLost forgets the oldest ranges that there is no room for.
func pruneLost(ctx context.Context, db *sqlx.DB) error {
	_, err := db.ExecContext(ctx, `WITH many AS (SELECT topic, name, (array_agg(at ORDER BY at DESC))[$1] AS since FROM events_lost GROUP BY topic, name HAVING count(*) > $1),
		gone AS (DELETE FROM events_lost e USING many m WHERE e.topic = m.topic AND e.name = m.name AND e.at < m.since)
		DELETE FROM agent_history h USING many m WHERE h.topic = m.topic AND h.name = m.name AND h.action = 'events_lost' AND h.at < m.since`, mostLost)
	if err != nil {
		return fmt.Errorf("prune lost events: %w", err)
	}
	return nil
}
