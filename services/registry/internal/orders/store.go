// Package orders keeps what people asked for of dead letters: redrives and purges. Dispatchers carry them out, and say on the
// status topic how far they have come. A command expires; an order is issued again until it has ended, however long its
// agent is paused.
package orders

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
)

const (
	// Accepted is the state of an order that no dispatcher has begun. The others are those of status.DLQOrder.
	Accepted = "accepted"
	// sendAgain is how long after it was issued an order that hasn't ended is issued again.
	sendAgain = 10 * time.Minute
	// keep is how long an order is kept after it has ended.
	keep = 30 * 24 * time.Hour
)

// ends are the states of an order that are for good.
const ends = `'done', 'stopped', 'refused', 'cancelled'`

// Ended reports whether nothing more becomes of the order.
func (o Order) Ended() bool {
	switch o.State {
	case status.OrderDone, status.OrderStopped, status.OrderRefused, status.OrderCancelled:
		return true
	}
	return false
}

// ErrNotFound says that there is no such order.
var ErrNotFound = errors.New("there is no such order")

// Store has the orders in Postgres. Its methods are safe for concurrent use.
type Store struct{ DB *sqlx.DB }

// Order is one order and how far it has come.
type Order struct {
	ID, Topic, Name, Verb string
	Command               *command.Command `db:"-"`
	Cancel                *command.Command `db:"-"` // what takes it back, where somebody asked for that
	Raw                   []byte           `db:"command"`
	Matched               int64
	RequestedBy           string    `db:"requested_by"`
	RequestedAt           time.Time `db:"requested_at"`
	State, Reason         string
	Moved, Completed      int64
	CameBack              int64 `db:"came_back"`
	Kept, Guarded, Unfit  int64
	UpdatedAt             time.Time `db:"updated_at"`
}

// selected are orders. What their dispatchers say has ended lacks what did so while none looked; what is counted of outcomes
// comes later than theirs, and lacks nothing then. Both only grow.
const selected = `SELECT o.id, o.topic, o.name, o.verb, o.command, o.matched, o.requested_by, o.requested_at, o.state, o.reason, o.moved,
		greatest(o.completed, c.completed) AS completed, greatest(o.came_back, c.came_back) AS came_back, o.kept, o.guarded, o.unfit, o.updated_at
	FROM dlq_orders o LEFT JOIN dlq_order_outcomes c ON c.order_id = o.id `

// Meant is how many dead letters an order means, and how many beside them it leaves where they are: they came back too often,
// or their agent as it is now doesn't take them.
type Meant struct{ Matched, Guarded, Unfit int64 }

// Add stores an order that is about to be issued.
func (s *Store) Add(ctx context.Context, c command.Command, m Meant, now time.Time) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode an order: %w", err)
	}
	_, err = s.DB.ExecContext(ctx, `INSERT INTO dlq_orders (id, topic, name, verb, command, matched, guarded, unfit, requested_by, requested_at, sent_at, state, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $10) ON CONFLICT (id) DO NOTHING`,
		c.ID, c.Topic, c.Agent, c.Verb, raw, m.Matched, m.Guarded, m.Unfit, c.Actor, now, Accepted)
	if err != nil {
		return fmt.Errorf("store an order: %w", err)
	}
	return nil
}

// Drop forgets an order that couldn't be issued.
func (s *Store) Drop(ctx context.Context, id string) error {
	if _, err := s.DB.ExecContext(ctx, `DELETE FROM dlq_orders WHERE id = $1 AND state = $2`, id, Accepted); err != nil {
		return fmt.Errorf("drop an order: %w", err)
	}
	return nil
}

// Get gives one order of an agent, or ErrNotFound.
func (s *Store) Get(ctx context.Context, topic, name, id string) (Order, error) {
	var o Order
	err := s.DB.GetContext(ctx, &o, selected+`WHERE o.id = $1 AND o.topic = $2 AND o.name = $3`, id, topic, name)
	if errors.Is(err, sql.ErrNoRows) {
		return o, ErrNotFound
	}
	if err == nil {
		err = o.decode()
	}
	if err != nil {
		return o, fmt.Errorf("read an order: %w", err)
	}
	return o, nil
}

// Named reports whether an order has named a webhook by its id.
func (s *Store) Named(ctx context.Context, webhook string) (named bool, err error) {
	err = s.DB.GetContext(ctx, &named, `SELECT EXISTS (SELECT 1 FROM dlq_orders WHERE topic = '' AND name = $1 AND command -> 'dead' ->> 'webhook' = $2)`, command.Webhooks, webhook)
	if err != nil {
		return false, fmt.Errorf("look for orders about a webhook: %w", err)
	}
	return named, nil
}

// List gives an agent's latest orders, the newest first.
func (s *Store) List(ctx context.Context, topic, name string, limit int) ([]Order, error) {
	return s.list(ctx, selected+`WHERE o.topic = $1 AND o.name = $2 ORDER BY o.requested_at DESC, o.id LIMIT $3`, topic, name, limit)
}

// Open gives orders that haven't ended and were issued a while ago, the oldest first.
func (s *Store) Open(ctx context.Context, now time.Time) ([]Order, error) {
	return s.list(ctx, selected+`WHERE o.state NOT IN (`+ends+`) AND o.command IS NOT NULL AND o.sent_at < $1
		ORDER BY o.sent_at LIMIT 1000`, now.Add(-sendAgain))
}

func (s *Store) list(ctx context.Context, query string, args ...any) ([]Order, error) {
	var out []Order
	if err := s.DB.SelectContext(ctx, &out, query, args...); err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	for i := range out {
		if err := out[i].decode(); err != nil {
			return nil, fmt.Errorf("read an order: %w", err)
		}
	}
	return out, nil
}

func (o *Order) decode() error {
	if o.Raw == nil {
		return nil
	}
	issued := struct {
		*command.Command
		Cancel *command.Command `json:"cancel"`
	}{Command: new(command.Command)}
	err := json.Unmarshal(o.Raw, &issued)
	o.Command, o.Cancel = issued.Command, issued.Cancel
	return err
}

// TakeBack notes that an order is to be cancelled: from then on the command that cancels it is issued again, in its place. It
// reports whether the order hadn't ended.
func (s *Store) TakeBack(ctx context.Context, cancel command.Command, now time.Time) (bool, error) {
	raw, err := json.Marshal(cancel)
	if err != nil {
		return false, fmt.Errorf("encode an order: %w", err)
	}
	done, err := s.DB.ExecContext(ctx, `UPDATE dlq_orders SET command = coalesce(command, '{}') || jsonb_build_object('cancel', $4::jsonb), sent_at = $5
		WHERE id = $1 AND topic = $2 AND name = $3 AND state NOT IN (`+ends+`)`, cancel.Order, cancel.Topic, cancel.Agent, raw, now)
	if err != nil {
		return false, fmt.Errorf("take an order back: %w", err)
	}
	n, err := done.RowsAffected()
	return n > 0, err
}

// Sent notes that an order was issued again.
func (s *Store) Sent(ctx context.Context, id string, now time.Time) error {
	if _, err := s.DB.ExecContext(ctx, `UPDATE dlq_orders SET sent_at = $2 WHERE id = $1`, id, now); err != nil {
		return fmt.Errorf("note that an order was issued again: %w", err)
	}
	return nil
}

// Prune forgets orders that ended long ago, and what was counted for those that are forgotten.
func (s *Store) Prune(ctx context.Context, now time.Time) error {
	if _, err := s.DB.ExecContext(ctx, `DELETE FROM dlq_orders WHERE updated_at < $1 AND state IN (`+ends+`)`, now.Add(-keep)); err != nil {
		return fmt.Errorf("forget old orders: %w", err)
	}
	if _, err := s.DB.ExecContext(ctx, `DELETE FROM dlq_order_outcomes c WHERE updated_at < $1 AND NOT EXISTS (SELECT 1 FROM dlq_orders o WHERE o.id = c.order_id)`, now.Add(-keep)); err != nil {
		return fmt.Errorf("forget what was counted for old orders: %w", err)
	}
	return nil
}

// Report stores what a dispatcher says of an order. An end is for good.
func Report(ctx context.Context, tx *sqlx.Tx, o status.DLQOrder) error {
	at := time.UnixMilli(int64(o.Timestamp * 1000))
	_, err := tx.ExecContext(ctx, `INSERT INTO dlq_orders AS d (id, topic, name, verb, requested_at, sent_at, state, reason, moved, completed, came_back, kept, guarded, unfit, updated_at)
		VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8, $9, $10, $11, $12, $13, $5)
		ON CONFLICT (id) DO UPDATE SET state = excluded.state, reason = excluded.reason, moved = greatest(d.moved, excluded.moved),
			completed = greatest(d.completed, excluded.completed), came_back = greatest(d.came_back, excluded.came_back), kept = excluded.kept,
			guarded = excluded.guarded, unfit = excluded.unfit, updated_at = excluded.updated_at
		WHERE d.state NOT IN (`+ends+`) AND d.topic = excluded.topic AND d.name = excluded.name`,
		o.ID, o.Topic, o.AgentName, o.Verb, at, o.State, o.Reason, o.Moved, o.Completed, o.CameBack, o.Kept, o.Guarded, o.Unfit)
	return err
}
