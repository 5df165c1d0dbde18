package agents

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

// Row is an agent with what the store knows beside its record.
type Row struct {
	*spec.Agent
	InitializedAt *time.Time
}

// Filter selects agents. Empty fields select all.
type Filter struct {
	Topic   string
	Phase   spec.Phase
	Deleted bool      // deleted ones too
	After   [2]string // topic and name of the last agent of the page before
	Limit   int
}

type row struct {
	Record        []byte
	InitializedAt *time.Time `db:"initialized_at"`
}

// Get gives an agent that isn't deleted, or ErrNotFound.
func (s *Store) Get(ctx context.Context, topic, name string) (Row, error) {
	var r row
	err := s.db.GetContext(ctx, &r, `SELECT record, initialized_at FROM agents WHERE topic = $1 AND name = $2 AND phase <> 'terminated'`, topic, name)
	if errors.Is(err, sql.ErrNoRows) {
		return Row{}, ErrNotFound
	}
	if err != nil {
		return Row{}, fmt.Errorf("read agent %s/%s: %w", topic, name, err)
	}
	a, err := decode(r.Record)
	return Row{a, r.InitializedAt}, err
}

// List gives agents by topic and name.
func (s *Store) List(ctx context.Context, f Filter) ([]Row, error) {
	var rows []row
	err := s.db.SelectContext(ctx, &rows, `SELECT record, initialized_at FROM agents
		WHERE ($1 = '' OR topic = $1) AND ($2 = '' OR phase = $2) AND ($3 OR $2 = 'terminated' OR phase <> 'terminated') AND (topic, name) > ($4, $5)
		ORDER BY topic, name LIMIT $6`, f.Topic, string(f.Phase), f.Deleted, f.After[0], f.After[1], f.Limit)
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	out := make([]Row, 0, len(rows))
	for _, r := range rows {
		a, err := decode(r.Record)
		if err != nil {
			return nil, err
		}
		out = append(out, Row{a, r.InitializedAt})
	}
	return out, nil
}

// Count counts the agents that aren't deleted.
func (s *Store) Count(ctx context.Context) (int64, error) {
	var n int64
	if err := s.db.GetContext(ctx, &n, `SELECT count(*) FROM agents WHERE phase <> 'terminated'`); err != nil {
		return 0, fmt.Errorf("count agents: %w", err)
	}
	return n, nil
}

// Move is one line of an agent's history.
type Move struct {
	ID         int64
	At         time.Time
	Action     string
	OldPhase   *spec.Phase `db:"old_phase"`
	Phase      spec.Phase
	Generation int64
	Actor      string
	Reason     string
}

// History lists an agent's moves, newest first, below an id (0 is none).
func (s *Store) History(ctx context.Context, topic, name string, below int64, limit int) ([]Move, error) {
	var out []Move
	err := s.db.SelectContext(ctx, &out, `SELECT id, at, action, old_phase, phase, generation, actor, reason FROM agent_history
		WHERE topic = $1 AND name = $2 AND ($3 = 0 OR id < $3) ORDER BY id DESC LIMIT $4`, topic, name, below, limit)
	if err != nil {
		return nil, fmt.Errorf("read history of agent %s/%s: %w", topic, name, err)
	}
	return out, nil
}
