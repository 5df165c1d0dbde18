package agentsfile

import (
	"errors"
	"strings"

	"github.com/goccy/go-yaml/token"

	"github.com/reeve-run/reeve/pkg/spec"
)

// Alone is the agent of a directory as an entry of a file there would make it, for running it by hand. callback is what
// an entry's callback is, or a function of the module callback; where it and command are empty, the function is found as
// in a file. The error says what is wrong and what to do.
func Alone(dir, callback string, command []string) (*spec.Agent, error) {
	d := &decoder{faults: &collector{}, options: Options{AgentsDir: dir}}
	e := newEntry()
	e.agent.Topic, e.agent.Name = "alone", "agent"
	given := func(key string) { e.where[key] = &token.Token{} }
	given("topic")
	given("name")
	if len(command) > 0 {
		e.command = command
		given("command")
	}
	switch {
	case callback == "" && len(command) > 0:
	case d.isFunction(e, callback):
		e.callbackFunction = callback
		given("callback_function")
	default:
		e.callback = callback
		given("callback")
	}
	d.infer(e)
	d.check(e)
	if len(d.faults.faults) > 0 {
		return nil, errors.New(d.faults.faults[0].Message)
	}
	return &e.agent, nil
}

// isFunction tells a function of the default module from a module: the one has no file of its name.
func (d *decoder) isFunction(e *entry, callback string) bool {
	return !strings.Contains(callback, ":") && (callback == "" || d.source(e, callback) == nil)
}
