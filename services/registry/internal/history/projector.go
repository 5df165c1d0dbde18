package history

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/services/registry/internal/orders"
)

// Projector is the projection of the outcomes topic. It serves one run of a projection at a time.
type Projector struct {
	db      *sqlx.DB
	logger  *slog.Logger
	sources map[string]int32 // agent, zero byte, topic UUID → sources.id; what is in here is committed
	headers []string
	tables  map[int64]bool // numbers of the tables of attempts that are known to exist

	// Of the batch under way.
	attempts []attempt
	ids      []int32 // of the attempts' sources
	text     lines
}

// NewProjector makes a projector.
func NewProjector(db *sqlx.DB, logger *slog.Logger) *Projector {
	return &Projector{db: db, logger: logger, headers: headerKeys(), sources: map[string]int32{}, tables: map[int64]bool{}}
}

// Headers are the headers that attempts are read from: results are none of the projector's business.
func (p *Projector) Headers() []string { return p.headers }

// Prepare reads the records and makes what their rows need: sources and tables.
func (p *Projector) Prepare(ctx context.Context, records []*kgo.Record) error {
	if err := p.read(ctx, records); err != nil {
		return err
	}
	var next int64
	if err := p.db.GetContext(ctx, &next, `SELECT next_id FROM attempts_head`); err != nil {
		return fmt.Errorf("read the next attempt's number: %w", err)
	}
	return p.makeTables(ctx, next, next+int64(len(p.attempts)))
}

// read reads the records into the batch and numbers their sources.
func (p *Projector) read(ctx context.Context, records []*kgo.Record) error {
	p.attempts, p.ids = slices.Grow(p.attempts[:0], len(records)), slices.Grow(p.ids[:0], len(records))
	var key []byte
	var lastID int32
	for _, r := range records {
		n := len(p.attempts)
		p.attempts = p.attempts[:n+1]
		a := &p.attempts[n]
		if err := a.read(r, p.headers); err != nil {
			p.attempts = p.attempts[:n]
			p.logger.Warn("a record of the outcomes topic is no outcome and is left out", slog.Int("partition", int(r.Partition)), slog.Int64("offset", r.Offset), slog.Any("error", err))
			continue
		}
		if !sameSource(key, a) {
			key = append(append(append(key[:0], a.agent...), 0), a.topicID...)
			id, err := p.source(ctx, key)
			if err != nil {
				return err
			}
			lastID = id
		}
		p.ids = append(p.ids, lastID)
	}
	return nil
}

func sameSource(key []byte, a *attempt) bool {
	n := len(a.agent)
	return len(key) == n+1+len(a.topicID) && bytes.Equal(key[:n], a.agent) && bytes.Equal(key[n+1:], a.topicID)
}

// source gives the number of an agent's source, and makes it where there is none.
func (p *Projector) source(ctx context.Context, key []byte) (int32, error) {
	if id, ok := p.sources[string(key)]; ok {
		return id, nil
	}
	ref, topicID, _ := strings.Cut(string(key), "\x00")
	topic, name, _ := strings.Cut(clean(ref), "/")
	// In two statements: one alone doesn't see the row that another registry makes while it runs.
	_, err := p.db.ExecContext(ctx, `INSERT INTO sources (topic, name, topic_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, topic, name, clean(topicID))
	var id int32
	if err == nil {
		err = p.db.GetContext(ctx, &id, `SELECT id FROM sources WHERE topic = $1 AND name = $2 AND topic_id = $3`, topic, name, clean(topicID))
	}
	if err != nil {
		return 0, fmt.Errorf("number the source %s: %w", ref, err)
	}
	p.sources[string(key)] = id
	return id, nil
}

// clean makes text that Postgres takes.
func clean(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "") }

// task identifies a task.
type taskKey struct {
	source    int32
	partition int32
	offset    int64
}

// Write folds the batch into the counters and copies its attempts.
func (p *Projector) Write(ctx context.Context, conn *sqlx.Conn, tx *sqlx.Tx, _ []*kgo.Record) error {
	if len(p.attempts) == 0 {
		return nil
	}
	defer clear(p.attempts) // or what was read last would stay in memory until there is more
	var first int64
	err := tx.QueryRowContext(ctx, `UPDATE attempts_head SET next_id = next_id + $1 RETURNING next_id - $1`, len(p.attempts)).Scan(&first)
	if err != nil {
		return fmt.Errorf("number the attempts: %w", err)
	}
	known, err := p.lookUp(ctx, tx)
	if err != nil {
		return err
	}
	if err := p.unfinish(ctx, tx, known); err != nil {
		return err
	}
	if err := addCounters(ctx, tx, p.foldBatch(known)); err != nil {
		return err
	}
	if err := p.countResults(ctx, tx); err != nil {
		return err
	}
	if err := p.ofOrders().Store(ctx, tx); err != nil {
		return err
	}
	packs, rest := p.packBatch()
	next, err := storePacks(ctx, tx, packs, first)
	if err != nil || len(rest) == 0 {
		return err
	}
	p.text = p.text[:0]
	for n, i := range rest {
		p.text.attempt(next+int64(n), p.ids[i], &p.attempts[i])
	}
	return copyIn(ctx, conn, p.text)
}

// ofOrders counts the outcomes of what orders about dead letters have moved. What is cancelled or discarded counts for neither.
func (p *Projector) ofOrders() orders.Outcomes {
	moved := orders.Outcomes{}
	for i := range p.attempts {
		a := &p.attempts[i]
		if len(a.order) > 0 && (a.status == completed || a.status == deadLettered || a.status == failed) {
			moved.Add(clean(string(a.order)), a.status == completed)
		}
	}
	return moved
}

// counterKey is a row of counters.
type counterKey struct{ agent, version string }

// foldBatch folds the batch, given what is known of the tasks in it that may have been seen before.
func (p *Projector) foldBatch(known map[taskKey]prior) map[counterKey]*delta {
	deltas := map[counterKey]*delta{}
	var last *delta
	var lastKey counterKey
	for i := range p.attempts {
		a := &p.attempts[i]
		of := func(version []byte) *delta {
			if last != nil && lastKey.version == string(version) && lastKey.agent == string(a.agent) {
				return last
			}
			lastKey = counterKey{string(a.agent), string(version)}
			if last = deltas[lastKey]; last == nil {
				last = &delta{}
				deltas[lastKey] = last
			}
			return last
		}
		key := taskKey{p.ids[i], a.partition, a.offset}
		before, tracked := prior{}, false
		if len(known) > 0 {
			before, tracked = known[key]
		}
		after := before.fold(a, of)
		if tracked || !a.final() {
			known[key] = after
		}
	}
	return deltas
}

// unfinish takes the tasks of the batch that were finished before the counters were cleared, and are at work in a new
// round, off those that were: they count as open again, and are finished once more.
func (p *Projector) unfinish(ctx context.Context, tx *sqlx.Tx, known map[taskKey]prior) error {
	again := map[string]int64{}
	done := map[taskKey]bool{}
	for i := range p.attempts {
		key := taskKey{p.ids[i], p.attempts[i].partition, p.attempts[i].offset}
		if known[key].cleared && !done[key] {
			done[key] = true
			again[clean(string(p.attempts[i].agent))]++
		}
	}
	return countAgain(ctx, tx, again)
}

// countAgain takes tasks that were finished before the counters were cleared off those, by agent.
func countAgain(ctx context.Context, tx *sqlx.Tx, again map[string]int64) error {
	for _, agent := range slices.Sorted(maps.Keys(again)) {
		topic, name, _ := strings.Cut(agent, "/")
		if _, err := tx.ExecContext(ctx, `UPDATE dispatched_before SET finished = finished - $3 WHERE topic = $1 AND name = $2`, topic, name, again[agent]); err != nil {
			return fmt.Errorf("count tasks of %s as open again: %w", agent, err)
		}
	}
	return nil
}

// later reports whether a task may have been seen before: the first attempt of its first round is the first that is heard of
// it. What is dropped or cancelled before it runs has the number of its last attempt, which may have been settled.
func (a *attempt) later() bool {
	return a.number > 1 || a.redrives > 0 || a.number == 1 && a.started == 0
}

// lookUp reads what the database knows of the batch's tasks that aren't on their first attempt of their first round. What
// came before the counters were cleared is as if it had not been.
func (p *Projector) lookUp(ctx context.Context, tx *sqlx.Tx) (map[taskKey]prior, error) {
	known := map[taskKey]prior{}
	var sources, partitions []int32
	var offsets []int64
	for i := range p.attempts {
		a := &p.attempts[i]
		key := taskKey{p.ids[i], a.partition, a.offset}
		if _, ok := known[key]; ok || !a.later() {
			continue
		}
		known[key] = prior{}
		sources, partitions, offsets = append(sources, key.source), append(partitions, key.partition), append(offsets, key.offset)
	}
	if len(sources) == 0 {
		return known, nil
	}
	below, err := clearedBelow(ctx, tx, clearedMetrics)
	if err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT k.source_id, k.partition, k."offset", CASE a.status WHEN 8 THEN a.outcome ELSE a.status END, a.version, a.id < $4, a.redrives,
			CASE WHEN a.redrives > 0 THEN coalesce((SELECT f.dispatched_ms FROM attempts f WHERE f.source_id = k.source_id AND f.partition = k.partition
				AND f."offset" = k."offset" AND f.redrives = a.redrives AND f.attempt = 1 AND f.started_ms > 0 ORDER BY f.id LIMIT 1), 0) ELSE 0 END
		FROM unnest($1::int[], $2::int[], $3::bigint[]) AS k (source_id, partition, "offset")
		CROSS JOIN LATERAL (SELECT id, status, outcome, version, redrives FROM attempts a
			WHERE a.source_id = k.source_id AND a.partition = k.partition AND a."offset" = k."offset" AND `+counted+` ORDER BY id DESC LIMIT 1) a`,
		pq.Array(sources), pq.Array(partitions), pq.Array(offsets), below)
	if err != nil {
		return nil, fmt.Errorf("look up earlier attempts: %w", err)
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	for rows.Next() {
		var key taskKey
		was := prior{seen: true}
		var gone bool
		if err := rows.Scan(&key.source, &key.partition, &key.offset, &was.final, &was.version, &gone, &was.redrives, &was.began); err != nil {
			return nil, fmt.Errorf("look up earlier attempts: %w", err)
		}
		switch {
		case was.final == retrying:
			was.final = 0
		case was.final < 0: // it is open, and counts so already
			was = prior{seen: was.final != tookCleared, redrives: was.redrives, began: was.began}
		}
		if gone {
			was = prior{cleared: was.final != 0, redrives: was.redrives, began: was.began}
		}
		known[key] = was
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look up earlier attempts: %w", err)
	}
	return known, p.lookIntoPacks(ctx, tx, known, below)
}

// lookIntoPacks adds what the packs know of tasks in a later round, whose first one may have been plain.
func (p *Projector) lookIntoPacks(ctx context.Context, tx *sqlx.Tx, known map[taskKey]prior, below int64) error {
	for i := range p.attempts {
		a := &p.attempts[i]
		key := taskKey{p.ids[i], a.partition, a.offset}
		if a.redrives == 0 || known[key].seen || known[key].cleared {
			continue
		}
		packed, err := packedTask(ctx, tx, []int32{key.source}, key.partition, key.offset)
		if err != nil {
			return err
		}
		for _, was := range packed {
			if was.ID < below {
				known[key] = prior{cleared: true}
				continue
			}
			known[key] = prior{seen: true, final: completed, version: []byte(was.Version)}
		}
	}
	return nil
}
