package history

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// What can be cleared.
const (
	clearedResults = "results"
	clearedMetrics = "metrics"
)

// Stock is how much there is.
type Stock struct {
	Results          int64 // that are kept, to the minute
	Counters         int64 // rows, one for each agent and version
	ResultsClearedAt *time.Time
	MetricsClearedAt *time.Time
}

// Stock counts what is stored; results that were settled before a time count no more.
func (s *Store) Stock(ctx context.Context, since time.Time) (Stock, error) {
	var out Stock
	err := s.DB.QueryRowContext(ctx, `SELECT (SELECT coalesce(sum(stored), 0) FROM results WHERE minute >= $1), (SELECT count(*) FROM counters),
			(SELECT at FROM cleared WHERE what = 'results'), (SELECT at FROM cleared WHERE what = 'metrics')`, minute(since.UnixMilli())).
		Scan(&out.Results, &out.Counters, &out.ResultsClearedAt, &out.MetricsClearedAt)
	if err != nil {
		return Stock{}, fmt.Errorf("count what is stored: %w", err)
	}
	return out, nil
}

// MetricsSince is when the counters began anew, or nil where they never did.
func (s *Store) MetricsSince(ctx context.Context) (*time.Time, error) {
	var at time.Time
	err := s.DB.GetContext(ctx, &at, `SELECT at FROM cleared WHERE what = 'metrics'`)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read when the counters began: %w", err)
	}
	return &at, nil
}

func minute(ms int64) int64 { return ms / 60_000 }

// ClearMetrics deletes all counters and says how many rows there were. Attempts up to now belong to the time before: what
// comes of their tasks later is counted as if they had just been received, so that no figure falls below zero.
func (s *Store) ClearMetrics(ctx context.Context) (int64, error) {
	var rows int64
	err := s.clear(ctx, clearedMetrics, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO dispatched_before AS b (topic, name, finished)
			SELECT topic, name, sum(completed + failed + dead_lettered + rejected + cancelled + discarded) FROM counters GROUP BY topic, name
			ON CONFLICT (topic, name) DO UPDATE SET finished = b.finished + excluded.finished`)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO dispatched_before (topic, name, finished, filtered)
			SELECT topic, name, 0, sum(filtered) FROM dispatched GROUP BY topic, name HAVING sum(filtered) > 0
			ON CONFLICT (topic, name) DO UPDATE SET filtered = excluded.filtered`)
		if err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM counters`)
		if err == nil {
			rows, err = res.RowsAffected()
		}
		return err
	})
	return rows, err
}

// ClearResults makes all results up to now count as deleted, and says how many that were that had been settled since a
// time. below is up to where the outcomes topic, by partition, holds nothing else.
func (s *Store) ClearResults(ctx context.Context, since time.Time) (n int64, below map[int32]int64, err error) {
	below = map[int32]int64{}
	err = s.clear(ctx, clearedResults, func(tx *sqlx.Tx) error {
		if err := tx.GetContext(ctx, &n, `SELECT coalesce(sum(stored), 0) FROM results WHERE minute >= $1`, minute(since.UnixMilli())); err != nil {
			return err
		}
		var projected []struct {
			Partition  int32
			NextOffset int64 `db:"next_offset"`
		}
		if err := tx.SelectContext(ctx, &projected, `SELECT partition, next_offset FROM projections WHERE name = 'outcomes'`); err != nil {
			return err
		}
		for _, p := range projected {
			below[p.Partition] = p.NextOffset
		}
		for _, table := range []string{"results", "results_deleted"} {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+pq.QuoteIdentifier(table)); err != nil {
				return err
			}
		}
		return nil
	})
	return n, below, err
}

// clear does work between two batches of the projection, and notes that what is numbered so far was before it. It commits
// so that a crash of the database keeps it, and with it the batches before.
func (s *Store) clear(ctx context.Context, what string, work func(tx *sqlx.Tx) error) error {
	tx, err := s.DB.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("clear %s: %w", what, err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	var next int64
	// A batch holds this row from its beginning to its end.
	err = tx.GetContext(ctx, &next, `SELECT next_id FROM attempts_head FOR UPDATE`)
	if err == nil {
		err = work(tx)
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, `INSERT INTO cleared (what, at, below) VALUES ($1, now(), $2)
			ON CONFLICT (what) DO UPDATE SET at = excluded.at, below = excluded.below`, what, next)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return fmt.Errorf("clear %s: %w", what, err)
	}
	return nil
}

// clearedBelow is the number below which attempts came before a clearing; 0 where there was none.
func clearedBelow(ctx context.Context, db sqlx.QueryerContext, what string) (int64, error) {
	var below int64
	err := sqlx.GetContext(ctx, db, &below, `SELECT coalesce(max(below), 0) FROM cleared WHERE what = $1`, what)
	if err != nil {
		return 0, fmt.Errorf("read when %s were cleared: %w", what, err)
	}
	return below, nil
}

// countResults adds the batch's results to the minutes that they were settled in.
func (p *Projector) countResults(ctx context.Context, tx *sqlx.Tx) error {
	stored := map[int64]int64{}
	for i := range p.attempts {
		if p.attempts[i].status == completed {
			stored[minute(p.attempts[i].settled)]++
		}
	}
	for _, at := range slices.Sorted(maps.Keys(stored)) { // as DeleteResults has them, or each could wait for the other
		if _, err := tx.ExecContext(ctx, `INSERT INTO results AS r (minute, stored) VALUES ($1, $2)
			ON CONFLICT (minute) DO UPDATE SET stored = r.stored + excluded.stored`, at, stored[at]); err != nil {
			return fmt.Errorf("count results: %w", err)
		}
	}
	return nil
}

// PruneResults forgets the counts of results that were settled before a time, and which of them were deleted.
func PruneResults(ctx context.Context, db *sqlx.DB, before time.Time) error {
	_, err := db.ExecContext(ctx, `DELETE FROM results WHERE minute < $1`, minute(before.UnixMilli()))
	if err == nil {
		_, err = db.ExecContext(ctx, `DELETE FROM results_deleted WHERE settled_ms < $1`, before.UnixMilli())
	}
	if err != nil {
		return fmt.Errorf("forget old results: %w", err)
	}
	return nil
}

// Kept gives those of attempts whose results are kept: settled since a time, and neither cleared nor deleted.
func (s *Store) Kept(ctx context.Context, attempts []Attempt, since time.Time) ([]Attempt, error) {
	below, err := clearedBelow(ctx, s.DB, clearedResults)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(attempts))
	for i, a := range attempts {
		ids[i] = a.ID
	}
	var deleted []int64
	if err := s.DB.SelectContext(ctx, &deleted, `SELECT attempt_id FROM results_deleted WHERE attempt_id = ANY($1)`, pq.Array(ids)); err != nil {
		return nil, fmt.Errorf("look for deleted results: %w", err)
	}
	var out []Attempt
	for _, a := range attempts {
		if a.ID >= below && a.SettledMS >= since.UnixMilli() && !slices.Contains(deleted, a.ID) {
			out = append(out, a)
		}
	}
	return out, nil
}

// resultPages bounds how far back a list of results looks.
const resultPages = 10

// Results lists the tasks whose results are kept, the latest first.
func (s *Store) Results(ctx context.Context, since time.Time, limit int) ([]Attempt, error) {
	var out []Attempt
	f := Filter{Status: Completed, Since: since, Limit: limit}
	for range resultPages {
		page, err := s.Tasks(ctx, f)
		if err != nil {
			return nil, err
		}
		kept, err := s.Kept(ctx, page, since)
		if err != nil {
			return nil, err
		}
		if out = append(out, kept...); len(out) >= limit || len(page) < limit {
			break
		}
		f.Below = page[len(page)-1].ID
	}
	out = out[:min(len(out), limit)]
	slices.SortStableFunc(out, func(a, b Attempt) int { return cmp.Compare(b.SettledMS, a.SettledMS) })
	return out, nil
}

// DeleteResults makes the results of attempts count as deleted.
func (s *Store) DeleteResults(ctx context.Context, attempts []Attempt) error {
	tx, err := s.DB.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("delete results: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	ordered := slices.SortedFunc(slices.Values(attempts), func(a, b Attempt) int { return cmp.Or(cmp.Compare(a.SettledMS, b.SettledMS), cmp.Compare(a.ID, b.ID)) })
	for _, a := range ordered {
		res, err := tx.ExecContext(ctx, `INSERT INTO results_deleted (attempt_id, settled_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING`, a.ID, a.SettledMS)
		if err != nil {
			return fmt.Errorf("delete a result: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 || a.Status() != Completed {
			continue // somebody else has just deleted it, or it is a failure, which isn't counted
		}
		if _, err := tx.ExecContext(ctx, `UPDATE results SET stored = stored - 1 WHERE minute = $1`, minute(a.SettledMS)); err != nil {
			return fmt.Errorf("count a result that is deleted: %w", err)
		}
	}
	return tx.Commit()
}
