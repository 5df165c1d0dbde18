package agent

import "github.com/reeve-run/reeve/pkg/command"

// handlers are the commands that a program carries out, by verb.
func (r *Runner) handlers() map[command.Verb]command.Handler {
	return map[command.Verb]command.Handler{}
}
