package hop

import (
	"context"
	"testing"
)

// A producer that meets the transaction it can't end with each connection that it loses adds nothing to what is looked at.
func TestATransactionIsLookedAtOnce(t *testing.T) {
	life, end := context.WithCancel(t.Context())
	end() // nobody looks
	p := &Pool{life: life}
	for _, w := range []withheld{
		{topic: "out", id: "a", last: memory{producer: 1, epoch: 2}},
		{topic: "out", id: "a", last: memory{producer: 1, epoch: 2}},
		{topic: "in", id: "a", last: memory{producer: 1, epoch: 2}},
		{topic: "out", id: "a", last: memory{producer: 1, epoch: 3}},
		{topic: "out", id: "a", last: memory{producer: 1, epoch: 2}},
	} {
		p.withhold(&w)
	}
	if n := len(p.withheld.all); n != 3 {
		t.Errorf("%d are looked at", n)
	}
}
