package dispatch

import "github.com/reeve-run/reeve/pkg/command"

// handlers are the commands that a dispatcher carries out, by verb.
func (f *Fleet) handlers() map[command.Verb]command.Handler {
	return map[command.Verb]command.Handler{}
}
