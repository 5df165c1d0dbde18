// Package migrations has the registry's schema: forward-only SQL files, one purpose each, applied in order by goose.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed sql/*.sql
var files embed.FS

// lockSeconds is how long Up waits for another process that migrates the same schema. It asks once a second.
const lockSeconds = 300

// Up applies what is missing, in the schema that the connection's search_path names first. Several processes may call it
// at once; a lock in the database lets one of them work. Who migrates
// another schema of the same database waits for none of them.
func Up(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(files, "sql")
	if err != nil {
		return fmt.Errorf("open the embedded migrations: %w", err)
	}
	var id int64
	if err := db.QueryRowContext(ctx, `SELECT hashtextextended('reeve migrations of ' || coalesce(current_schema(), ''), 0)`).Scan(&id); err != nil {
		return fmt.Errorf("ask for the database's schema: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(id), lock.WithLockTimeout(1, lockSeconds))
	if err != nil {
		return fmt.Errorf("make the migrations' lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, dir, goose.WithSessionLocker(locker), goose.WithTableName("schema_migrations"))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}
