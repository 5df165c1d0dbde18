package dispatch

import (
	"context"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/dispatcher/internal/redrive"
)

// handlers are the commands that a dispatcher carries out, by verb.
func (f *Fleet) handlers() map[command.Verb]command.Handler {
	return map[command.Verb]command.Handler{
		command.Cancel:      f.env.asks.add,
		command.Retry:       f.env.asks.add,
		command.Reopen:      f.reopenTask,
		command.Redrive:     f.dead.Order,
		command.Purge:       f.dead.Order,
		command.CancelOrder: f.dead.Cancel,
	}
}

// deadLetters makes what carries out orders about dead letters.
func (f *Fleet) deadLetters() *redrive.Desks {
	env := f.env
	return redrive.NewDesks(redrive.Config{
		Opts: env.Opts, Client: env.Client, Pool: env.Pool, Names: env.Names, Service: env.Service, Node: env.Node, Logger: env.Logger,
		Agent: f.spec, Mend: f.mendTaskTopic, Leads: f.upkeep.leads, Unrun: env.unrun,
		Gate:     func(a *spec.Agent) (*route.Gate, error) { return route.NewGate(a, compile) },
		Finished: func(id string) bool { return f.commands.Finished(id) },
		CatchUp:  func(ctx context.Context) error { return f.commands.CatchUp(ctx, env.admin()) },
		Place: func(ref string, want int32) (int32, bool) {
			k := f.keeper(ref)
			if k == nil {
				return 0, false
			}
			return k.Room().Place(want)
		},
		Opened: env.Reporter.Rounds,
		Report: func(o status.DLQOrder) { env.Reporter.Send(o.Topic+"/"+o.AgentName, o) },
		Ended: func(ctx context.Context, o status.DLQOrder) error {
			return env.Reporter.Write(ctx, o.Topic+"/"+o.AgentName, o)
		},
		Trim: func(ctx context.Context, topic string, below map[int32]int64) error {
			err := kafka.Trim(ctx, env.Client, map[string]map[int32]int64{topic: below})
			return env.Rights.Accept("delete redriven and purged dead letters from "+topic, "they are hidden, and stay until somebody grants Delete on it", err)
		},
		WebhooksRedriven: env.Metrics.Webhooks.Redriven,
		Fail:             func(error) { f.fail(env.replaced(context.Background())) },
	})
}

// reopenTask opens a finished task's next round, as soon as its agent's events are routed here.
func (f *Fleet) reopenTask(c command.Command) {
	if why := reopenable(f.spec(c.Ref())); why != "" {
		f.env.Reporter.Command(c, status.CommandRefused, why)
		return
	}
	f.reopener.add(c)
}
