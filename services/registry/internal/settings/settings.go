// Package settings keeps what people save under a key for their own use, as OmniDaemon's clients do. Nothing in Reeve
// reads it: Reeve itself is configured by its environment and by agents' specs.
package settings

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Bounds of what is kept.
const (
	MaxKey   = 256     // bytes
	MaxValue = 1 << 20 // bytes of JSON
	MaxKeys  = 10_000
)

// ErrFull says that there are MaxKeys keys.
var ErrFull = errors.New("there are too many keys")

// Store has the settings in Postgres. Its methods are safe for concurrent use.
type Store struct{ DB *sqlx.DB }

// Save stores a value under a key, over the one that is there.
func (s *Store) Save(ctx context.Context, key string, value json.RawMessage) error {
	res, err := s.DB.ExecContext(ctx, `INSERT INTO config (key, value, updated_at)
		SELECT $1, $2, now() WHERE EXISTS (SELECT 1 FROM config WHERE key = $1) OR (SELECT count(*) FROM config) < $3
		ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at`, key, string(value), MaxKeys)
	if err != nil {
		return fmt.Errorf("save %s: %w", key, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(ErrFull, err)
	}
	return nil
}

// Get gives the value under a key; ok is false where there is none.
func (s *Store) Get(ctx context.Context, key string) (value json.RawMessage, ok bool, err error) {
	var text string
	err = s.DB.GetContext(ctx, &text, `SELECT value FROM config WHERE key = $1`, key)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", key, err)
	}
	return json.RawMessage(text), true, nil
}

// Clear deletes all keys and says how many there were.
func (s *Store) Clear(ctx context.Context) (int64, error) {
	res, err := s.DB.ExecContext(ctx, `DELETE FROM config`)
	if err != nil {
		return 0, fmt.Errorf("delete all keys: %w", err)
	}
	return res.RowsAffected()
}
