package app

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// Sixteen agents are active, and nobody runs their tasks: their redrives can't go on. A seventeenth one's does, and no turn
// redrives more of the others.
func TestRedrivesThatCannotGoOnKeepNoOtherWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newMorgue(w, 20)
	const idle, letters = 16, 8
	for i := range idle {
		a := agent("orders", fmt.Sprintf("idle-%d", i))
		dlq := w.names.DLQ(a.Topic, a.Name)
		w.create(kafka.DLQTopic(w.names, a, kafka.DefaultMaxBytes), kafka.TasksTopic(w.names, a, kafka.DefaultMaxBytes))
		var rs []*kgo.Record
		for n := range letters {
			r := m.letter(3*n, 0) // all have one failure
			r.Topic = dlq
			for i := range r.Headers {
				if r.Headers[i].Key == task.HeaderAgent {
					r.Headers[i].Value = []byte(a.Ref())
				}
			}
			rs = append(rs, r)
		}
		w.produce(rs...)
		w.desire(a)
	}
	w.start()
	m.run()
	now := time.Now()
	for i := range idle {
		m.send(command.Command{ID: fmt.Sprintf("idle-%d", i), Verb: command.Redrive, Topic: "orders", Agent: fmt.Sprintf("idle-%d", i), Actor: "ann", At: now, Expires: now.Add(time.Hour),
			Dead: &command.Dead{All: true, Ends: map[int32]int64{0: letters}}})
	}
	reports := w.read(w.names.Status())
	moved := map[string]int64{}
	yielded, back := map[string]bool{}, 0
	var done *status.DLQOrder // of the seventeenth
	until := func(what string, is func() bool) {
		t.Helper()
		for began := time.Now(); !is(); {
			if time.Since(began) > time.Minute {
				t.Fatalf("waited in vain until %s: %v are moved, %v have yielded", what, moved, yielded)
			}
			for _, r := range reports.next(1) {
				var o status.DLQOrder
				if json.Unmarshal(r.Value, &o) != nil || o.Event != status.EventDLQOrder {
					continue
				}
				switch {
				case o.ID == "1" && o.State == status.OrderDone:
					done = &o
				case o.ID == "1":
				case o.State == status.OrderWaiting && strings.HasPrefix(o.Reason, "dead letters of 16 other agents"):
					yielded[o.ID] = true
				case o.State == status.OrderRunning && o.Moved > 0 && yielded[o.ID]:
					back++
				}
				if o.ID != "1" {
					moved[o.ID] = max(moved[o.ID], o.Moved)
				}
			}
		}
	}
	until("all have begun", func() bool {
		n := 0
		for _, m := range moved {
			if m > 0 {
				n++
			}
		}
		return n == idle
	})
	m.ask("1", command.Redrive, all)
	until("the one is done", func() bool { return done != nil })
	if done.Moved != 20 || done.Completed != 20 {
		t.Errorf("%+v", done)
	}
	until("one has its seat again", func() bool { return back > 0 })
	for id := range yielded {
		tasks := w.read(w.names.Tasks("orders", id))
		if got := tasks.next(5); len(got) != 5 {
			t.Errorf("%d of %s are redriven", len(got), id)
		}
		tasks.nothing(2 * time.Second) // none of the five has ended
	}
}
