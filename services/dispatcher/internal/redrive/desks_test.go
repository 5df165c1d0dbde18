package redrive

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reeve-run/reeve/pkg/command"
)

func TestADispatcherThatNeverLeadsForgetsOrdersThatAreCarriedOut(t *testing.T) {
	finished := map[string]bool{}
	d := NewDesks(Config{Finished: func(id string) bool { return finished[id] }})
	until := time.Now().Add(command.MaxLife)
	for i := range 100 {
		id := fmt.Sprint(i)
		d.Order(command.Command{ID: id, Topic: "t", Agent: "n", Expires: until})
		d.Order(command.Command{ID: id, Topic: "t", Agent: "n", Expires: until}) // it is issued again until it has ended
		finished[id] = i != 7
	}
	var kept []string
	for _, c := range d.pending["t/n"] {
		kept = append(kept, c.ID)
	}
	if got := fmt.Sprint(kept); got != "[7 99]" {
		t.Errorf("it keeps the orders %s", got)
	}
	if c, ok := d.head("t/n"); !ok || c.ID != "7" {
		t.Errorf("the next order is %v", c)
	}
}

// That an order is carried out is known for as long as its command lives, not longer. Who gets the lead much later leaves
// alone what was done by then, or taken back.
func TestWhoLeadsLaterCarriesOutNoOldOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDesks(Config{Leads: func() bool { return false }, Finished: func(string) bool { return false }, Logger: slog.New(slog.DiscardHandler)})
		order := func(id, agent string) command.Command {
			return command.Command{ID: id, Verb: command.Redrive, Topic: "t", Agent: agent, Expires: time.Now().Add(command.MaxLife)}
		}
		cancel := func(id, agent string) {
			d.Cancel(command.Command{ID: "cancel " + id, Verb: command.CancelOrder, Order: id, Topic: "t", Agent: agent, Expires: time.Now().Add(command.MaxLife)})
		}
		pass := func(d time.Duration) { await(t.Context(), d, nil) }
		old := order("old", "a")
		d.Order(old)
		d.Order(order("taken back", "b"))
		d.Order(order("renewed", "c"))
		later := order("both", "d")
		later.Expires = later.Expires.Add(9 * time.Hour) // by another clock
		d.Order(later)
		cancel("both", "d")
		pass(6 * time.Hour)
		cancel("taken back", "b")
		cancel("never heard of", "e")
		d.Order(order("renewed", "c"))
		pass(5*time.Hour + 55*time.Minute) // no order may outlive the note of its end, which another clock may have dated
		for id, agent := range map[string]string{"taken back": "b", "renewed": "c", "both": "d", "never heard of": "e"} {
			if c, ok := d.head("t/" + agent); !ok || c.ID != id {
				t.Errorf("%q is forgotten too early", id)
			}
		}
		if c, ok := d.head("t/a"); ok || d.has(old) {
			t.Errorf("%q is carried out after it has expired", c.ID)
		}
		pass(6*time.Hour + 10*time.Minute)
		if refs := d.asked(); fmt.Sprint(refs) != "[t/d]" || len(d.cancels) != 1 {
			t.Errorf("%v have orders, %v", refs, d.cancels)
		}
		if _, ok := d.takenBack("both"); !ok {
			t.Error("an order that was taken back goes on")
		}
		pass(24 * time.Hour)
		if refs := d.asked(); len(refs) != 0 || len(d.pending) != 0 || len(d.cancels) != 0 {
			t.Errorf("%v have orders, %v", refs, d.cancels)
		}
	})
}
