package fleet

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/reeve-run/reeve/pkg/status"
)

// counts are the greatest counts of tasks, and of events that were passed over, that heartbeats told. In whatever order
// they come, however often, whoever sent them: the result is the same.
type counts map[counted]Passed

// Passed is what has become of the events that an agent's group has passed.
type Passed struct {
	Tasks    int64
	Filtered int64 // nothing: the agent's filter isn't true of them, or it skips their type
}

type counted struct {
	topic, name string
	partition   int32
	since       int64
}

func (c counts) add(reports []status.AgentReport) {
	for _, r := range reports {
		for _, d := range r.Dispatched {
			key := counted{r.Topic, r.AgentName, d.Partition, d.Since}
			c[key] = Passed{max(c[key].Tasks, d.N), max(c[key].Filtered, d.Filtered)}
		}
	}
}

func storeDispatched(ctx context.Context, tx *sqlx.Tx, c counts) error {
	if len(c) == 0 {
		return nil
	}
	var topics, names []string
	var partitions []int32
	var sinces, tasks, filtered []int64
	for key, n := range c {
		topics, names, partitions = append(topics, key.topic), append(names, key.name), append(partitions, key.partition)
		sinces, tasks, filtered = append(sinces, key.since), append(tasks, n.Tasks), append(filtered, n.Filtered)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO dispatched AS d (topic, name, partition, since, tasks, filtered)
		SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[])
		ON CONFLICT (topic, name, partition, since) DO UPDATE SET tasks = greatest(excluded.tasks, d.tasks), filtered = greatest(excluded.filtered, d.filtered)
		WHERE excluded.tasks > d.tasks OR excluded.filtered > d.filtered`,
		pq.Array(topics), pq.Array(names), pq.Array(partitions), pq.Array(sinces), pq.Array(tasks), pq.Array(filtered))
	return err
}

// Dispatched gives the tasks that were ever dispatched, less those that were finished when the counters were last
// cleared, and the events that were filtered since then, by topic/name: of one agent, of a topic's (name ""), or of all
// (topic "").
func (s Store) Dispatched(ctx context.Context, topic, name string) (map[string]Passed, error) {
	var rows []struct {
		Topic, Name string
		Passed
	}
	err := s.DB.SelectContext(ctx, &rows, `SELECT topic, name, sum(tasks)::bigint - coalesce(max(b.finished), 0) AS tasks,
			sum(d.filtered)::bigint - coalesce(max(b.filtered), 0) AS filtered
		FROM dispatched d LEFT JOIN dispatched_before b USING (topic, name)
		WHERE ($1 = '' OR topic = $1) AND ($2 = '' OR name = $2) GROUP BY topic, name LIMIT 10000`, topic, name)
	if err != nil {
		return nil, fmt.Errorf("read counts of dispatched tasks: %w", err)
	}
	out := make(map[string]Passed, len(rows))
	for _, r := range rows {
		out[r.Topic+"/"+r.Name] = r.Passed
	}
	return out, nil
}
