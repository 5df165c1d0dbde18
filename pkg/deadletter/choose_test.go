package deadletter

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/task"
)

func record(headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: "reeve.dlq.orders.bill", Value: []byte("v")}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestAnOrderMeansWhatItNames(t *testing.T) {
	dead := func(origin, print, redrives string) *kgo.Record {
		return record(task.HeaderAgent, "orders/bill", task.HeaderOrigin, origin, task.HeaderErrorFingerprint, print, task.HeaderRedrives, redrives)
	}
	order := func(verb command.Verb, change func(*command.Command)) command.Command {
		c := command.Command{ID: "1", Verb: verb, Topic: "orders", Agent: "bill", At: time.Now(), Dead: &command.Dead{Ends: map[int32]int64{0: 1}}}
		change(&c)
		return c
	}
	all := func(c *command.Command) { c.Dead.All = true }
	for name, c := range map[string]struct {
		order  command.Command
		letter *kgo.Record
		want   Choice
	}{
		"all":                            {order(command.Redrive, all), dead("orders/0/1/u", "f", "4"), Take},
		"all, but what came back often":  {order(command.Redrive, all), dead("orders/0/1/u", "f", "5"), Guarded},
		"all, by force":                  {order(command.Redrive, func(c *command.Command) { c.Dead.All, c.Dead.Force = true, true }), dead("orders/0/1/u", "f", "9"), Take},
		"what is no task":                {order(command.Redrive, all), record("a", "b"), Foreign},
		"another agent's":                {order(command.Redrive, all), record(task.HeaderAgent, "orders/x", task.HeaderOrigin, "orders/0/1"), Foreign},
		"a purge of all":                 {order(command.Purge, all), record("a", "b"), Take},
		"a purge looks at no redrives":   {order(command.Purge, all), dead("orders/0/1/u", "f", "9"), Take},
		"by fingerprint":                 {order(command.Redrive, func(c *command.Command) { c.Dead.Fingerprint = "f" }), dead("orders/0/1/u", "f", "0"), Take},
		"by another fingerprint":         {order(command.Redrive, func(c *command.Command) { c.Dead.Fingerprint = "g" }), dead("orders/0/1/u", "f", "0"), Leave},
		"one":                            {order(command.Redrive, func(c *command.Command) { c.Task = "orders/0/1" }), dead("orders/0/1/u", "f", "9"), Take},
		"one by its topic's id":          {order(command.Redrive, func(c *command.Command) { c.Task = "orders/0/1/u" }), dead("orders/0/1/u", "f", "0"), Take},
		"of a topic that was made again": {order(command.Redrive, func(c *command.Command) { c.Task = "orders/0/1/old" }), dead("orders/0/1/u", "f", "0"), Leave},
		"another one":                    {order(command.Purge, func(c *command.Command) { c.Task = "orders/0/2" }), dead("orders/0/1/u", "f", "0"), Leave},
	} {
		if got := Choose(c.order, c.letter); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
