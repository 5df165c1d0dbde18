package agents

import (
	"fmt"
	"slices"
	"strings"

	"github.com/reeve-run/reeve/pkg/spec"
)

// Verb is something that is done to an agent.
type Verb string

// The verbs. Fail is the fleet's report that it can't run the agent; all others are people's.
const (
	Register    Verb = "register"
	Initialize  Verb = "initialize"
	Start       Verb = "start"
	Stop        Verb = "stop"
	Unsubscribe Verb = "unsubscribe"
	Resume      Verb = "resume"
	Reset       Verb = "reset"
	Restart     Verb = "restart"
	Delete      Verb = "delete"
	Fail        Verb = "fail"
)

// moves says for each phase which verbs are legal, and the phase they lead to. The way from error to active, and from
// nothing to active, passes through initialized within the one step. A verb that leads to the phase where the agent is
// changes no phase; what isn't running may be stopped from every phase.
var moves = map[spec.Phase]map[Verb]spec.Phase{
	spec.Created:     {Register: spec.Active, Initialize: spec.Initialized, Stop: spec.Created, Delete: spec.Terminated},
	spec.Initialized: {Register: spec.Active, Start: spec.Active, Stop: spec.Initialized, Reset: spec.Initialized, Delete: spec.Terminated, Fail: spec.Error},
	spec.Active: {Register: spec.Active, Start: spec.Active, Stop: spec.Initialized, Unsubscribe: spec.Paused, Resume: spec.Active, Reset: spec.Active,
		Restart: spec.Active, Delete: spec.Terminated, Fail: spec.Error},
	spec.Paused:     {Register: spec.Active, Stop: spec.Paused, Unsubscribe: spec.Paused, Resume: spec.Active, Reset: spec.Paused, Delete: spec.Terminated},
	spec.Error:      {Register: spec.Active, Initialize: spec.Initialized, Stop: spec.Error, Reset: spec.Active, Restart: spec.Active, Delete: spec.Terminated},
	spec.Terminated: {Register: spec.Active},
}

// An IllegalMove says that a verb can't be done to an agent in its phase, and which can.
type IllegalMove struct {
	Ref   string
	Phase spec.Phase
	Verb  Verb
	Legal []Verb
}

func (e *IllegalMove) Error() string {
	legal := make([]string, len(e.Legal))
	for i, v := range e.Legal {
		legal[i] = string(v)
	}
	return fmt.Sprintf("%s %s: the agent is %s, where only %s can be done", e.Verb, e.Ref, e.Phase, strings.Join(legal, ", "))
}

// next is the phase that a verb leads to, or an *IllegalMove.
func next(ref string, phase spec.Phase, verb Verb) (spec.Phase, error) {
	if to, ok := moves[phase][verb]; ok {
		return to, nil
	}
	illegal := &IllegalMove{Ref: ref, Phase: phase, Verb: verb}
	for v := range moves[phase] {
		if v != Fail {
			illegal.Legal = append(illegal.Legal, v)
		}
	}
	slices.Sort(illegal.Legal)
	return "", illegal
}
