package agent

import (
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/worker"
)

// handlers are the commands that a program carries out, by verb.
func (r *Runner) handlers() map[command.Verb]command.Handler {
	return map[command.Verb]command.Handler{command.Cancel: r.cancelTask, command.Retry: r.hastenTask}
}

// cancelTask ends a task, if it is here or comes here.
func (r *Runner) cancelTask(c command.Command) {
	r.mu.Lock()
	k, run := r.keepers["agent/"+c.Ref()], r.running
	r.mu.Unlock()
	if k == nil {
		return // the agent isn't this program's
	}
	x, err := worker.CancellationOf(c, func(state, message string) { run.reporter.Command(c, state, message) })
	if err != nil {
		run.reporter.Command(c, status.CommandRefused, err.Error())
		return
	}
	k.wishes.Cancel(x)
}

// hastenTask lets a task's next attempt start at once, if it waits here.
func (r *Runner) hastenTask(c command.Command) {
	r.mu.Lock()
	k, run := r.keepers["agent/"+c.Ref()], r.running
	r.mu.Unlock()
	if k == nil {
		return
	}
	if x, err := worker.HasteningOf(c, func(state, message string) { run.reporter.Command(c, state, message) }); err == nil {
		k.wishes.Hasten(x) // of one that can't be read the dispatcher says so
	}
}

// progress tells how far a task has come.
func (k *keeper) progress(p worker.Progress) {
	k.runner.running.reporter.Progress(p.Origin, status.Progress{Topic: k.own.Topic, AgentName: k.own.Name, Attempt: p.Attempt, Round: p.Round,
		Fraction: p.Fraction, Message: p.Message, Timestamp: status.Seconds(p.At)})
}
