package orders

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Outcomes is how much of what orders have moved has ended, by the orders' ids. Each outcome of a redriven task names its order
// (task.HeaderOrder), and so does what is told first of a redriven webhook. So a projection that counts them in the
// transaction which moves it past them is exact, whoever carried the order out, and however often they were restarted.
type Outcomes map[string]Outcome

// Outcome is how many have ended well, and how many are dead once more.
type Outcome struct{ Completed, CameBack int64 }

// maxID is the length of an order's id in bytes beyond which nobody of Reeve has given it.
const maxID = 100

// Add counts one. An id that is none of an order's is left out.
func (o Outcomes) Add(id string, completed bool) {
	if id == "" || len(id) > maxID {
		return
	}
	sum := o[id]
	if completed {
		sum.Completed++
	} else {
		sum.CameBack++
	}
	o[id] = sum
}

// Store adds them to what is stored.
func (o Outcomes) Store(ctx context.Context, tx *sqlx.Tx) error {
	if len(o) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(o))
	var completed, cameBack []int64
	for _, id := range ids {
		completed, cameBack = append(completed, o[id].Completed), append(cameBack, o[id].CameBack)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO dlq_order_outcomes AS d (order_id, completed, came_back, updated_at)
		SELECT id, completed, came_back, now() FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS n (id, completed, came_back)
		ON CONFLICT (order_id) DO UPDATE SET completed = d.completed + excluded.completed, came_back = d.came_back + excluded.came_back,
			updated_at = excluded.updated_at`, pq.Array(ids), pq.Array(completed), pq.Array(cameBack))
	if err != nil {
		return fmt.Errorf("count the outcomes of orders about dead letters: %w", err)
	}
	return nil
}
