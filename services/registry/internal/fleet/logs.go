package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/reeve-run/reeve/pkg/status"
)

const (
	// keepLines is how many lines are kept of each agent, and keepLog how long. Tidying up goes by it once a minute.
	keepLines = 1000
	keepLog   = 24 * time.Hour
)

func storeLines(ctx context.Context, tx *sqlx.Tx, lines []status.LogLine) error {
	if len(lines) == 0 {
		return nil
	}
	var topics, names, instances, texts []string
	var at []int64
	for _, l := range lines {
		topics, names, instances = append(topics, l.Topic), append(names, l.AgentName), append(instances, l.Instance)
		texts, at = append(texts, l.Line), append(at, floatTime(l.Timestamp).UnixMilli())
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO agent_logs (topic, name, instance, line, at)
		SELECT topic, name, instance, line, to_timestamp(at / 1000.0)
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) WITH ORDINALITY AS l (topic, name, instance, line, at, n) ORDER BY n`,
		pq.Array(topics), pq.Array(names), pq.Array(instances), pq.Array(texts), pq.Array(at))
	return err
}

// LogLine is a line of an agent's log.
type LogLine struct {
	ID       int64 // grows from line to line
	Instance string
	At       time.Time
	Line     string
}

// Log gives lines of an agent's log, the oldest first: the last limit ones, or with after > 0 the first limit ones behind
// that line. An empty instance selects all.
func (s Store) Log(ctx context.Context, topic, name, instance string, after int64, limit int) ([]LogLine, error) {
	out := []LogLine{}
	err := s.DB.SelectContext(ctx, &out, `SELECT id, instance, at, line FROM (
			SELECT id, instance, at, line FROM agent_logs
			WHERE topic = $1 AND name = $2 AND ($3 = '' OR instance = $3) AND id > $4
			ORDER BY CASE WHEN $4 > 0 THEN id ELSE -id END LIMIT $5) l ORDER BY id`, topic, name, instance, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the log of %s/%s: %w", topic, name, err)
	}
	return out, nil
}

// pruneLogs forgets lines that are old, or that newer ones have pushed out.
func pruneLogs(ctx context.Context, db *sqlx.DB, now time.Time) error {
	_, err := db.ExecContext(ctx, `DELETE FROM agent_logs WHERE at < $1`, now.Add(-keepLog))
	if err == nil {
		_, err = db.ExecContext(ctx, `DELETE FROM agent_logs l
			USING (SELECT topic, name, id, row_number() OVER (PARTITION BY topic, name ORDER BY id DESC) AS n FROM agent_logs) newest
			WHERE newest.n = $1 AND l.topic = newest.topic AND l.name = newest.name AND l.id < newest.id`, keepLines)
	}
	if err != nil {
		return fmt.Errorf("prune agents' logs: %w", err)
	}
	return nil
}
