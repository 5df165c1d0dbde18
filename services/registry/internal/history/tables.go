package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

const (
	perTable = 1_000_000
	// KeepTables is how many tables of a million attempts are kept, the one that grows among them.
	KeepTables = 8
	// KeepFor is how long attempts are kept at least as long as there is room.
	KeepFor = 7 * 24 * time.Hour
)

func tableName(number int64) string { return fmt.Sprintf("attempts_%06d", number) }

// makeTables makes the tables for attempts with numbers from first up to and with last.
func (p *Projector) makeTables(ctx context.Context, first, last int64) error {
	for n := first / perTable; n <= last/perTable; n++ {
		if p.tables[n] {
			continue
		}
		if err := makeTable(ctx, p.db, n); err != nil {
			return err
		}
		p.tables[n] = true
	}
	return nil
}

// makeTable makes a table of attempts, unless it is there.
func makeTable(ctx context.Context, db sqlx.ExtContext, n int64) error {
	var there bool
	err := sqlx.GetContext(ctx, db, &there, `SELECT EXISTS (SELECT 1 FROM attempts_tables WHERE number = $1)`, n)
	if err == nil && !there {
		_, err = db.ExecContext(ctx, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s PARTITION OF attempts FOR VALUES FROM (%d) TO (%d)`,
			pq.QuoteIdentifier(tableName(n)), n*perTable, (n+1)*perTable))
		if err == nil || madeMeanwhile(err) {
			_, err = db.ExecContext(ctx, `INSERT INTO attempts_tables (number) VALUES ($1) ON CONFLICT DO NOTHING`, n)
		}
	}
	if err != nil {
		return fmt.Errorf("make table %s: %w", tableName(n), err)
	}
	return nil
}

// madeMeanwhile reports whether another registry was faster: IF NOT EXISTS doesn't look at what isn't committed.
func madeMeanwhile(err error) bool {
	var answer *pq.Error
	return errors.As(err, &answer) && (answer.Code == "42P07" || answer.Code == "23505")
}

// Prune drops the tables of attempts that there is no room for, or that are too old, and says which.
func Prune(ctx context.Context, db *sqlx.DB, now time.Time) ([]string, error) {
	var numbers []int64
	// A table's newest row is older than the table after it.
	err := db.SelectContext(ctx, &numbers, `SELECT number FROM (SELECT number, lead(made_at) OVER later AS filled_at, max(number) OVER () - number AS newer
			FROM attempts_tables WINDOW later AS (ORDER BY number)) t
		WHERE newer >= $1 OR filled_at < $2 ORDER BY number`, KeepTables, now.Add(-KeepFor))
	if err != nil {
		return nil, fmt.Errorf("look for old tables of attempts: %w", err)
	}
	var dropped []string
	for _, n := range numbers {
		if err := drop(ctx, db, n); err != nil {
			return dropped, err
		}
		dropped = append(dropped, tableName(n))
		// Packs are few: a row stands for all that one batch had of one partition.
		if _, err := db.ExecContext(ctx, `DELETE FROM packs WHERE id < $1`, (n+1)*perTable); err != nil {
			return dropped, fmt.Errorf("drop packs of %s: %w", tableName(n), err)
		}
		if _, err := db.ExecContext(ctx, `DELETE FROM event_pages WHERE number < $1`, (n+1)*perTable/perPage); err != nil {
			return dropped, fmt.Errorf("drop filters of %s: %w", tableName(n), err)
		}
	}
	return dropped, nil
}

// drop waits only shortly for readers: the next round tries again.
func drop(ctx context.Context, db *sqlx.DB, number int64) error {
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("drop table %s: %w", tableName(number), err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	for _, statement := range []string{
		`SET LOCAL lock_timeout = '2s'`,
		`DROP TABLE IF EXISTS ` + pq.QuoteIdentifier(tableName(number)),
		fmt.Sprintf(`DELETE FROM attempts_tables WHERE number = %d`, number),
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("drop table %s: %w", tableName(number), err)
		}
	}
	return tx.Commit()
}
