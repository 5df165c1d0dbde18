package fleet

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/reeve-run/reeve/pkg/status"
)

// counts are the greatest counts of tasks that heartbeats told. In whatever order they come, however often, whoever
// sent them: the result is the same.
type counts map[counted]int64

type counted struct {
	topic, name string
	partition   int32
	since       int64
}

func (c counts) add(reports []status.AgentReport) {
	for _, r := range reports {
		for _, d := range r.Dispatched {
			key := counted{r.Topic, r.AgentName, d.Partition, d.Since}
			c[key] = max(c[key], d.N)
		}
	}
}

func storeDispatched(ctx context.Context, tx *sqlx.Tx, c counts) error {
	if len(c) == 0 {
		return nil
	}
	var topics, names []string
	var partitions []int32
	var sinces, tasks []int64
	for key, n := range c {
		topics, names, partitions = append(topics, key.topic), append(names, key.name), append(partitions, key.partition)
		sinces, tasks = append(sinces, key.since), append(tasks, n)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO dispatched AS d (topic, name, partition, since, tasks)
		SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::bigint[])
		ON CONFLICT (topic, name, partition, since) DO UPDATE SET tasks = excluded.tasks WHERE excluded.tasks > d.tasks`,
		pq.Array(topics), pq.Array(names), pq.Array(partitions), pq.Array(sinces), pq.Array(tasks))
	return err
}

// Dispatched gives the tasks that were ever dispatched, less those that were finished when the counters were last
// cleared, by topic/name: of one agent, of a topic's (name ""), or of all
// (topic "").
func (s Store) Dispatched(ctx context.Context, topic, name string) (map[string]int64, error) {
	var rows []struct {
		Topic, Name string
		Tasks       int64
	}
	err := s.DB.SelectContext(ctx, &rows, `SELECT topic, name, sum(tasks)::bigint - coalesce(max(b.finished), 0) AS tasks
		FROM dispatched LEFT JOIN dispatched_before b USING (topic, name)
		WHERE ($1 = '' OR topic = $1) AND ($2 = '' OR name = $2) GROUP BY topic, name LIMIT 10000`, topic, name)
	if err != nil {
		return nil, fmt.Errorf("read counts of dispatched tasks: %w", err)
	}
	out := make(map[string]int64, len(rows))
	for _, r := range rows {
		out[r.Topic+"/"+r.Name] = r.Tasks
	}
	return out, nil
}
