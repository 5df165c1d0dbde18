package redrive

import (
	"fmt"
	"testing"

	"github.com/reeve-run/reeve/pkg/command"
)

func TestADispatcherThatNeverLeadsForgetsOrdersThatAreCarriedOut(t *testing.T) {
	finished := map[string]bool{}
	d := NewDesks(Config{Leads: func() bool { return false }, Finished: func(id string) bool { return finished[id] }})
	for i := range 100 {
		id := fmt.Sprint(i)
		d.Order(command.Command{ID: id, Topic: "t", Agent: "n"})
		d.Order(command.Command{ID: id, Topic: "t", Agent: "n"}) // it is issued again until it has ended
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
