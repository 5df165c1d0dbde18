package fleet

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/registry/internal/orders"
)

// What a kill made somebody tell again may come late: it takes nothing back. The first try of each that an order has redriven
// counts for the order.
func TestTheLatestOfATasksWebhookIsKept(t *testing.T) {
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	s := Store{DB: db}
	at := float64(time.Now().UnixMilli()) / 1000
	o := &orders.Store{DB: db}
	now := time.Now()
	redrive := command.Command{ID: "o1", Verb: command.Redrive, Agent: command.Webhooks, Actor: "ann", At: now, Expires: now.Add(time.Hour), Dead: &command.Dead{All: true, Ends: map[int32]int64{0: 9}}}
	if err := o.Add(t.Context(), redrive, orders.Meant{Matched: 9}, now); err != nil {
		t.Fatal(err)
	}
	tell := func(ws ...status.Webhook) {
		t.Helper()
		var records []*kgo.Record
		for _, w := range ws {
			w.Event, w.Topic, w.AgentName, w.Timestamp = status.EventWebhook, "orders", "bill", at
			value, err := json.Marshal(w)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, &kgo.Record{Value: value})
		}
		tx, err := db.BeginTxx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Write(t.Context(), nil, tx, records); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(redrives int, state string, attempts int) {
		t.Helper()
		w, err := s.Webhook(t.Context(), "orders", "bill", 0, 7, redrives)
		if err != nil || (w == nil) != (state == "") || w != nil && (w.State != state || w.Attempts != attempts) {
			t.Errorf("%+v, %v; want %s after %d", w, err, state, attempts)
		}
	}
	const origin = "orders/0/7/uuid"
	expect(0, "", 0)
	tell(status.Webhook{Origin: origin, State: "retrying", Attempts: 1, StatusCode: 500, NextAt: at + 5}, status.Webhook{Origin: origin, State: "retrying", Attempts: 2},
		status.Webhook{Origin: origin, State: "retrying", Attempts: 1}, status.Webhook{Origin: "no origin", State: "delivered"})
	expect(0, "retrying", 2)
	tell(status.Webhook{Origin: origin, State: "delivered", Attempts: 3, StatusCode: 200})
	tell(status.Webhook{Origin: origin, State: "retrying", Attempts: 2})
	expect(0, "delivered", 3)
	tell(status.Webhook{Origin: origin, Redrives: 1, State: "failed", Attempts: 1, Error: "gone"})
	expect(1, "failed", 1)
	expect(0, "", 0)
	tell(status.Webhook{Origin: "orders/0/7/made-again", State: "delivered", Attempts: 1})
	expect(0, "delivered", 1)
	tell(status.Webhook{Origin: "orders/0/8/uuid", State: "retrying", Attempts: 3, Order: "o1"}, status.Webhook{Origin: "orders/0/8/uuid", State: "delivered", Attempts: 4},
		status.Webhook{Origin: "orders/0/9/uuid", State: "delivered", Attempts: 3, Order: "o1"})
	tell(status.Webhook{Origin: "orders/0/10/uuid", State: "failed", Attempts: 2, Order: "o1"}) // long after the order
	if got, err := o.Get(t.Context(), "", command.Webhooks, "o1"); err != nil || got.Completed != 1 || got.CameBack != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.Prune(t.Context(), time.Now().Add(keepWebhooks-time.Hour)); err != nil {
		t.Fatal(err)
	}
	expect(0, "delivered", 1)
	if err := s.Prune(t.Context(), time.Now().Add(keepWebhooks+time.Hour)); err != nil {
		t.Fatal(err)
	}
	expect(0, "", 0)
}
