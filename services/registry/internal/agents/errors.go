package agents

import (
	"errors"
	"fmt"
	"strings"

	"github.com/reeve-run/reeve/pkg/spec"
)

// ErrNotFound says that there is no such agent, or that it was deleted.
var ErrNotFound = errors.New("there is no such agent")

// ErrPrecondition says that the agent has changed since the caller looked.
var ErrPrecondition = errors.New("the agent has changed since you looked")

// A Conflict is a registration that can't stand beside what is there.
type Conflict struct {
	Code, Message, Remedy string
}

func (e *Conflict) Error() string { return e.Message + ": " + e.Remedy }

// Invalid is a registration whose text is wrong. Faults name the fields, with agents[i] before those of a list.
type Invalid struct {
	Faults []spec.Fault
}

func (e *Invalid) Error() string {
	first := strings.TrimPrefix(e.Faults[0].Field+": "+e.Faults[0].Message, ": ") // a fault of the whole has no field
	if len(e.Faults) == 1 {
		return first
	}
	return fmt.Sprintf("%d faults, the first is %s", len(e.Faults), first)
}
