package fleet

import (
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/worker"
)

// handlers are the commands that a supervisor carries out, by verb.
func (f *Fleet) handlers() map[command.Verb]command.Handler {
	return map[command.Verb]command.Handler{command.Cancel: f.cancelTask, command.Retry: f.hastenTask}
}

// keeper is an agent's, or nil.
func (f *Fleet) keeper(topic, name string) *Keeper {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keepers["agent/"+topic+"/"+name]
}

// cancelTask ends a task, if it is here or comes here.
func (f *Fleet) cancelTask(c command.Command) {
	k := f.keeper(c.Topic, c.Agent)
	if k == nil {
		return // the agent isn't this supervisor's
	}
	x, err := worker.CancellationOf(c, func(state, message string) { f.env.Reporter.Command(c, state, message) })
	if err != nil {
		f.env.Reporter.Command(c, status.CommandRefused, err.Error())
		return
	}
	k.wishes.Cancel(x)
}

// hastenTask lets a task's next attempt start at once, if it waits here.
func (f *Fleet) hastenTask(c command.Command) {
	k := f.keeper(c.Topic, c.Agent)
	if k == nil {
		return
	}
	if x, err := worker.HasteningOf(c, func(state, message string) { f.env.Reporter.Command(c, state, message) }); err == nil {
		k.wishes.Hasten(x) // of one that can't be read the dispatcher says so
	}
}

// progress tells how far a task has come.
func (k *Keeper) progress(p worker.Progress) {
	topic, name, _ := spec.ParseKey(k.key)
	k.env.Reporter.Progress(p.Origin, status.Progress{Topic: topic, AgentName: name, Attempt: p.Attempt, Round: p.Round, Instance: p.Instance,
		Fraction: p.Fraction, Message: p.Message, Timestamp: status.Seconds(p.At)})
}
