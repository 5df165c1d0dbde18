package history

import (
	"context"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// summed are the columns of counters that a batch adds to, as Counters has them.
func summed() []string {
	return []string{"received", "completed", "failed", "retried", "dead_lettered", "rejected", "cancelled", "discarded", "run_ms", "completed_ms", "latency_ms",
		"reopened_completed", "reopened_failed", "reopened_dead_lettered", "reopened_rejected", "reopened_cancelled", "reopened_discarded"}
}

// addCounters adds a batch's figures, a statement a row: there are as many as agents in the batch.
func addCounters(ctx context.Context, tx *sqlx.Tx, deltas map[counterKey]*delta) error {
	if len(deltas) == 0 {
		return nil
	}
	var names, places, sums strings.Builder
	for _, column := range summed() {
		fmt.Fprintf(&names, ", %s", column)
		fmt.Fprintf(&places, ", :%s", column)
		fmt.Fprintf(&sums, "%s = c.%[1]s + excluded.%[1]s, ", column)
	}
	statement := `INSERT INTO counters AS c (topic, name, version, latency_max, latency` + names.String() + `)
		VALUES (:topic, :name, :version, :latency_max, :latency` + places.String() + `)
		ON CONFLICT (topic, name, version) DO UPDATE SET ` + sums.String() + `latency_max = greatest(c.latency_max, excluded.latency_max),
			latency = (SELECT coalesce(array_agg(coalesce(x, 0) + coalesce(y, 0) ORDER BY i), '{}')
				FROM unnest(c.latency, excluded.latency) WITH ORDINALITY AS u (x, y, i))`
	for key, d := range deltas {
		topic, name, _ := strings.Cut(clean(key.agent), "/")
		row := counterRow{topic, name, clean(key.version), d.Counters, append(pq.Int64Array{}, d.latency...)} // a nil array would be NULL
		if _, err := tx.NamedExecContext(ctx, statement, row); err != nil {
			return fmt.Errorf("add to the counters of %s: %w", key.agent, err)
		}
	}
	return nil
}

// counterRow is a row of counters.
type counterRow struct {
	Topic, Name, Version string
	Counters
	Latency pq.Int64Array
}

// AgentCounters are the figures of one version of an agent.
type AgentCounters struct {
	Topic, Name, Version string
	Counters
	Latency Histogram
}

// Counters reads the figures of all versions of agents: of one agent, of a topic's (name ""), or of all (topic "").
func (s *Store) Counters(ctx context.Context, topic, name string) ([]AgentCounters, error) {
	var rows []counterRow
	err := s.DB.SelectContext(ctx, &rows, `SELECT topic, name, version, latency_max, latency, `+strings.Join(summed(), ", ")+`
		FROM counters WHERE ($1 = '' OR topic = $1) AND ($2 = '' OR name = $2) ORDER BY topic, name, version LIMIT 10000`, topic, name)
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	out := make([]AgentCounters, len(rows))
	for i, r := range rows {
		out[i] = AgentCounters{r.Topic, r.Name, r.Version, r.Counters, Histogram(r.Latency)}
	}
	return out, nil
}

// Sums gives the figures of agents over all versions, by topic/name; see Counters for which.
func (s *Store) Sums(ctx context.Context, topic, name string) (map[string]Counters, error) {
	versions, err := s.Counters(ctx, topic, name)
	if err != nil {
		return nil, err
	}
	out := map[string]Counters{}
	for _, v := range versions {
		sum := out[v.Topic+"/"+v.Name]
		sum.Add(&v.Counters)
		out[v.Topic+"/"+v.Name] = sum
	}
	return out, nil
}
