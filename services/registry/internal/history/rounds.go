package history

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/reeve-run/reeve/pkg/status"
)

// A further round of a task is opened by a dispatcher, and what it says of that comes on another topic than outcomes do: so
// before or after the outcomes of the rounds before, and before or after those of the round itself. Its row of attempts has
// status queued and no outcome, until the round's own attempts are there, which supersede it. In place of an outcome it has
// what it took off the counters, for the task counts as open again: that of the status which ended the round before, as a
// negative number, or one of these.
const (
	tookNothing = 0    // the history didn't know how the round before ended, or not yet: its next outcome counts for that
	tookCleared = -100 // it ended before the counters were cleared, which know nothing of it
)

// counted is true of all rows of attempts but those that took nothing off the counters.
const counted = `NOT (a.status = 8 AND a.outcome = 0)`

// Opened reports whether it is no attempt: it says that the task's further round is opened, and has settled none yet.
func (a *Attempt) Opened() bool { return a.StatusNumber == queued }

// opening is a further round of a task.
type opening struct {
	taskKey
	round int
	at    int64 // Unix milliseconds
}

// OpenRounds takes what dispatchers say of further rounds. What the history knows already changes nothing. The transaction holds
// back the projection of outcomes from then on.
func OpenRounds(ctx context.Context, tx *sqlx.Tx, reports []status.Rounds) error {
	opened, agents, err := openings(ctx, tx, reports)
	if err != nil || len(opened) == 0 {
		return err
	}
	var first int64
	if err := tx.GetContext(ctx, &first, `UPDATE attempts_head SET next_id = next_id + $1 RETURNING next_id - $1`, len(opened)); err != nil {
		return fmt.Errorf("number opened rounds: %w", err)
	}
	for n := first / perTable; n <= (first+int64(len(opened)))/perTable; n++ {
		if err := makeTable(ctx, tx, n); err != nil {
			return err
		}
	}
	taken, err := storeOpenings(ctx, tx, opened, first)
	if err != nil {
		return err
	}
	deltas, again := map[counterKey]*delta{}, map[string]int64{}
	for _, t := range taken {
		agent := agents[t.SourceID]
		if t.Outcome == tookCleared {
			again[agent]++
			continue
		}
		key := counterKey{agent, t.Version}
		if deltas[key] == nil {
			deltas[key] = &delta{}
		}
		deltas[key].reopen(-t.Outcome)
	}
	if err := countAgain(ctx, tx, again); err != nil {
		return err
	}
	return addCounters(ctx, tx, deltas)
}

// openings reads reports: of each task the latest round. It gives the agents of its sources too.
func openings(ctx context.Context, tx *sqlx.Tx, reports []status.Rounds) (latest []opening, agents map[int32]string, err error) {
	agents = map[int32]string{}
	places := map[taskKey]int{}
	for _, r := range reports {
		for _, t := range r.Tasks {
			var a attempt
			if a.origin([]byte(t.Task)) != nil || t.Round < 1 || t.Round > 1<<30 || r.Topic == "" || r.AgentName == "" {
				continue // no service of Reeve wrote it
			}
			source, err := sourceOf(ctx, tx, r.Topic, r.AgentName, clean(string(a.topicID)))
			if err != nil {
				return nil, nil, err
			}
			agents[source] = r.Topic + "/" + r.AgentName
			o := opening{taskKey{source, a.partition, a.offset}, t.Round, int64(r.Timestamp * 1000)}
			if at, ok := places[o.taskKey]; !ok {
				places[o.taskKey] = len(latest)
				latest = append(latest, o)
			} else if latest[at].round < o.round {
				latest[at] = o
			}
		}
	}
	return latest, agents, nil
}

// sourceOf gives the number of an agent's source within a transaction, and makes it where there is none.
func sourceOf(ctx context.Context, tx *sqlx.Tx, topic, name, topicID string) (int32, error) {
	var ids []int32
	const find = `SELECT id FROM sources WHERE topic = $1 AND name = $2 AND topic_id = $3`
	err := tx.SelectContext(ctx, &ids, find, topic, name, topicID)
	if err == nil && len(ids) == 0 {
		if _, err = tx.ExecContext(ctx, `INSERT INTO sources (topic, name, topic_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, topic, name, topicID); err == nil {
			err = tx.SelectContext(ctx, &ids, find, topic, name, topicID)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("number the source %s/%s: %w", topic, name, err)
	}
	return ids[0], nil
}

// takenBack is what an opened round takes off the counters.
type takenBack struct {
	SourceID int32 `db:"source_id"`
	Version  string
	Outcome  int16
}

// storeOpenings makes the rows of rounds that nothing is known of, numbered from first on, and gives what they take off the
// counters.
func storeOpenings(ctx context.Context, tx *sqlx.Tx, opened []opening, first int64) ([]takenBack, error) {
	below, err := clearedBelow(ctx, tx, clearedMetrics)
	if err != nil {
		return nil, err
	}
	var sources, partitions, rounds []int32
	var offsets, ats []int64
	for _, o := range opened {
		sources, partitions, offsets = append(sources, o.source), append(partitions, o.partition), append(offsets, o.offset)
		rounds, ats = append(rounds, int32(o.round)), append(ats, o.at)
	}
	var taken []takenBack
	err = tx.SelectContext(ctx, &taken, `INSERT INTO attempts (`+columns+`)
		SELECT $1 + k.place - 1, k.source_id, k.partition, k."offset", 0, k.round, 8,
			CASE WHEN a.id IS NULL OR a.status IN (7, 8) THEN 0 WHEN a.id < $2 THEN -100 ELSE -a.status END,
			-1, coalesce(a.published_ms, 0), k.at, 0, k.at, -1, coalesce(a.version, ''), '', a.event_id, a.correlation_id, NULL, NULL, NULL
		FROM unnest($3::int[], $4::int[], $5::bigint[], $6::int[], $7::bigint[]) WITH ORDINALITY AS k (source_id, partition, "offset", round, at, place)
		LEFT JOIN LATERAL (SELECT id, status, version, published_ms, event_id, correlation_id FROM attempts a
			WHERE a.source_id = k.source_id AND a.partition = k.partition AND a."offset" = k."offset" AND `+counted+` ORDER BY id DESC LIMIT 1) a ON true
		WHERE NOT EXISTS (SELECT 1 FROM attempts n
			WHERE n.source_id = k.source_id AND n.partition = k.partition AND n."offset" = k."offset" AND n.redrives >= k.round)
		RETURNING source_id, version, outcome`,
		first, below, pq.Array(sources), pq.Array(partitions), pq.Array(offsets), pq.Array(rounds), pq.Array(ats))
	if err != nil {
		return nil, fmt.Errorf("store opened rounds: %w", err)
	}
	return slices.DeleteFunc(taken, func(t takenBack) bool { return t.Outcome == tookNothing }), nil
}
