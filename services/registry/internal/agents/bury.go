package agents

import (
	"context"
	"fmt"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

// mostBuried bounds a transaction; the others' turn comes with the next call.
const mostBuried = 1000

// Bury takes agents off the control topic that were deleted before a time, and gives them. One that leaves something which is
// still to be deleted stays there until that is done.
//
// The tombstone is written to the outbox while the agent's row is held, as every record of it is, so it stands before the record
// of a later life and behind that of the deletion. The row stays, with what a later life goes on from: its generation, its nonces,
// where its groups stood.
func (s *Store) Bury(ctx context.Context, before time.Time) (buried []string, err error) {
	err = s.transact(ctx, false, func(tx *tx) error {
		buried = buried[:0]
		var raws [][]byte
		err := tx.SelectContext(ctx, &raws, `SELECT record FROM agents
			WHERE phase = 'terminated' AND NOT buried AND updated_at < $1 ORDER BY topic, name LIMIT 100000 FOR UPDATE`, before)
		if err != nil {
			return fmt.Errorf("look for agents that were deleted long ago: %w", err)
		}
		gone, err := decodeAll(raws)
		if err != nil {
			return err
		}
		for _, a := range gone {
			if a.Cleaning() || len(buried) == mostBuried {
				continue
			}
			if err := tx.bury(ctx, a); err != nil {
				return err
			}
			buried = append(buried, a.Ref())
		}
		return nil
	})
	return buried, err
}

func (t *tx) bury(ctx context.Context, a *spec.Agent) error {
	_, err := t.ExecContext(ctx, `UPDATE agents SET buried = true WHERE topic = $1 AND name = $2`, a.Topic, a.Name)
	if err == nil {
		_, err = t.ExecContext(ctx, `INSERT INTO outbox (key, value) VALUES ($1, NULL)`, a.Key())
	}
	if err != nil {
		return fmt.Errorf("take the deleted agent %s off the control topic: %w", a.Ref(), err)
	}
	t.published = true
	return nil
}
