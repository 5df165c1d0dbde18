// Package wishes keeps what people want of tasks that nobody has come across yet: to be cancelled, to be retried at once, to
// be run once more. A command expires, and the agent of such a task may be paused for weeks; so a wish is issued again until
// it is carried out or can't be any more. It decides nothing of a task: who carries commands out does.
package wishes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/registry/internal/history"
)

const (
	// Longest is how long a wish stands at most.
	Longest = 90 * 24 * time.Hour
	// Most is how many stand at once. Each costs its followers a few hundred bytes of memory, and two records a day.
	Most = 10_000
	// ahead is how long before its command expires a wish is issued again: less than command.Renewal by more than clocks are apart.
	ahead = command.Renewal / 2
	// atOnce is how many are issued again in one go.
	atOnce = 1000
)

// ErrFull says that as many wishes stand as can.
var ErrFull = errors.New("too many wishes stand")

// Store has the wishes in Postgres. Its methods are safe for concurrent use.
type Store struct{ DB *sqlx.DB }

// Wish is one that stands.
type Wish struct {
	Command command.Command
	AskedAt time.Time
}

// Add stores a wish that is about to be issued, or makes one stand longer; ErrFull if there is no room.
func (s *Store) Add(ctx context.Context, c command.Command, now time.Time) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode a wish: %w", err)
	}
	res, err := s.DB.ExecContext(ctx, `INSERT INTO wishes (id, topic, name, command, asked_at, expires)
		SELECT $1, $2, $3, $4::jsonb, $5::timestamptz, $6::timestamptz WHERE (SELECT count(*) FROM wishes) < $7 OR EXISTS (SELECT 1 FROM wishes WHERE id = $1)
		ON CONFLICT (id) DO UPDATE SET asked_at = excluded.asked_at, expires = excluded.expires`,
		c.ID, c.Topic, c.Agent, raw, now, now.Add(command.MaxLife), Most)
	if err != nil {
		return fmt.Errorf("store a wish: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(ErrFull, err)
	}
	return nil
}

// Drop forgets a wish.
func (s *Store) Drop(ctx context.Context, id string) error {
	if _, err := s.DB.ExecContext(ctx, `DELETE FROM wishes WHERE id = $1`, id); err != nil {
		return fmt.Errorf("drop a wish: %w", err)
	}
	return nil
}

// Due gives wishes whose commands expire soon, the earliest first.
func (s *Store) Due(ctx context.Context, now time.Time) ([]Wish, error) {
	var rows []struct {
		Command []byte
		AskedAt time.Time `db:"asked_at"`
	}
	if err := s.DB.SelectContext(ctx, &rows, `SELECT command, asked_at FROM wishes WHERE expires < $1 ORDER BY expires LIMIT $2`, now.Add(ahead), atOnce); err != nil {
		return nil, fmt.Errorf("list wishes: %w", err)
	}
	out := make([]Wish, len(rows))
	for i, r := range rows {
		if err := json.Unmarshal(r.Command, &out[i].Command); err != nil {
			return nil, fmt.Errorf("read a wish: %w", err)
		}
		out[i].AskedAt = r.AskedAt
	}
	return out, nil
}

// Issued notes until when a wish counts that was issued again.
func (s *Store) Issued(ctx context.Context, id string, expires time.Time) error {
	if _, err := s.DB.ExecContext(ctx, `UPDATE wishes SET expires = $2 WHERE id = $1`, id, expires); err != nil {
		return fmt.Errorf("note that a wish was issued again: %w", err)
	}
	return nil
}

// Report forgets the wish that was carried out, or was refused.
func Report(ctx context.Context, tx *sqlx.Tx, r status.CommandResult) error {
	if r.State != status.CommandDone && r.State != status.CommandRefused {
		return nil
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM wishes WHERE id = $1 AND topic = $2 AND name = $3`, r.ID, r.Topic, r.AgentName)
	return err
}

// Over reports whether nothing is left to be carried out of a wish, by what its task's attempts have come to, the latest last,
// and by its age.
func Over(w Wish, attempts []history.Attempt, now time.Time) bool {
	if now.Sub(w.AskedAt) > Longest {
		return true
	}
	if len(attempts) == 0 {
		return false
	}
	last := attempts[len(attempts)-1]
	switch {
	case last.Redrives != w.Command.Round:
		return last.Redrives > w.Command.Round
	case w.Command.Verb == command.Reopen: // it is about a round that has ended
		return false
	case w.Command.Verb == command.Retry && last.Attempt >= w.Command.Attempt:
		return true
	}
	return !slices.Contains([]history.Status{history.Queued, history.Running, history.Retrying}, last.Status())
}
