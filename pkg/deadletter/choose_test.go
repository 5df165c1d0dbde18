package deadletter

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
)

func record(headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: "reeve.dlq.orders.bill", Value: []byte("v")}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestAnOrderAboutWebhooksMeansWhatItNames(t *testing.T) {
	hook := func(url, redriven string) *kgo.Record {
		return record(task.HeaderWebhook, url, task.HeaderAgent, "orders/bill", task.HeaderOrigin, "orders/0/1/u", task.HeaderWebhookRedriven, redriven)
	}
	order := func(verb command.Verb, dead command.Dead) command.Command {
		return command.Command{ID: "1", Verb: verb, Agent: command.Webhooks, Dead: &dead}
	}
	id := route.WebhookID(hook("", ""))
	for name, c := range map[string]struct {
		order  command.Command
		letter *kgo.Record
		want   Choice
	}{
		"all":                               {order(command.Redrive, command.Dead{All: true}), hook("http://h/a", "4 17"), Take},
		"all, but what was redriven often":  {order(command.Redrive, command.Dead{All: true}), hook("http://h/a", "5 17"), Guarded},
		"all, by force":                     {order(command.Redrive, command.Dead{All: true, Force: true}), hook("http://h/a", "9 17"), Take},
		"to an endpoint":                    {order(command.Redrive, command.Dead{Endpoint: "http://h:80"}), hook("http://H/a", ""), Take},
		"to another one":                    {order(command.Redrive, command.Dead{Endpoint: "http://h:8080"}), hook("http://h/a", ""), Leave},
		"what is no webhook":                {order(command.Redrive, command.Dead{All: true}), record("a", "b"), Foreign},
		"a purge of all":                    {order(command.Purge, command.Dead{All: true}), record("a", "b"), Take},
		"a purge looks at no redrives":      {order(command.Purge, command.Dead{Endpoint: "http://h:80"}), hook("http://h/a", "9 17"), Take},
		"one, however often":                {order(command.Redrive, command.Dead{Webhook: id}), hook("http://h/a", "9 17"), Take},
		"another one":                       {order(command.Redrive, command.Dead{Webhook: "msg_0"}), hook("http://h/a", ""), Leave},
		"one to nowhere, which can be said": {order(command.Purge, command.Dead{Endpoint: route.NoEndpoint}), hook("ftp://h", ""), Take},
	} {
		if got := Choose(c.order, c.letter); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
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

func TestWhoNamesATaskOrInsistsMeansAlsoWhatItsAgentDoesNotTake(t *testing.T) {
	of := func(verb command.Verb, task string, d command.Dead) command.Command {
		return command.Command{Verb: verb, Topic: "orders", Agent: "bill", Task: task, Dead: &d}
	}
	webhooks := of(command.Redrive, "", command.Dead{All: true})
	webhooks.Topic, webhooks.Agent = "", command.Webhooks
	for name, c := range map[string]struct {
		order  command.Command
		leaves bool
	}{
		"all":              {of(command.Redrive, "", command.Dead{All: true}), true},
		"those of a print": {of(command.Redrive, "", command.Dead{Fingerprint: "f"}), true},
		"all, by force":    {of(command.Redrive, "", command.Dead{All: true, Force: true}), false},
		"one":              {of(command.Redrive, "orders/0/1", command.Dead{}), false},
		"a purge":          {of(command.Purge, "", command.Dead{All: true}), false},
		"webhooks":         {webhooks, false},
	} {
		if Leaves(c.order) != c.leaves {
			t.Errorf("%s: %v", name, !c.leaves)
		}
	}
}
