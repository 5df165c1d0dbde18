package fleet

import "github.com/reeve-run/reeve/pkg/command"

// handlers are the commands that a supervisor carries out, by verb.
func (f *Fleet) handlers() map[command.Verb]command.Handler {
	return map[command.Verb]command.Handler{}
}
