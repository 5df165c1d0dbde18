package agents

import (
	"context"
	"fmt"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

const (
	// startLimit bounds the look at Kafka for where an agent starts: its row is held meanwhile.
	startLimit = 5 * time.Second
	// maxAhead is how far ahead of this clock a start's time may lie.
	maxAhead = time.Minute
)

// A StartError says that it couldn't be found out on Kafka where an agent is to start.
type StartError struct {
	Ref, Start string
	Err        error
}

func (e *StartError) Error() string {
	return fmt.Sprintf("find out where %s is to start (start: %s): %v", e.Ref, e.Start, e.Err)
}

func (e *StartError) Unwrap() error { return e.Err }

// begin notes where the group of an agent that is initialised for the first time begins. It is decided here, once, in the
// transaction that makes the agent known: whatever dispatchers do then, and however often, an event that is published
// after it isn't skipped.
func (t *tx) begin(ctx context.Context, before, a *spec.Agent) error {
	switch {
	case before != nil && before.Phase == spec.Terminated && !before.CleanUp:
		a.StartAt = before.StartAt // its group is still there
		return nil
	case before != nil && before.Phase != spec.Created && before.Phase != spec.Terminated:
		return nil
	case a.Start == "" || a.Start == spec.StartEarliest || t.rules.Start == nil:
		return nil
	}
	if at, err := a.StartTime(); err != nil || at.After(t.now.Add(maxAhead)) {
		return &Invalid{[]spec.Fault{{Field: "start", Message: fmt.Sprintf("%s hasn't come yet: give latest, or a time that has passed", a.Start)}}}
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	at, err := t.rules.Start(ctx, a)
	if err != nil {
		return &StartError{Ref: a.Ref(), Start: a.Start, Err: err}
	}
	a.StartAt = at
	return nil
}
