package agents

import (
	"cmp"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

// Action is what an application of a spec does to an agent.
type Action string

// The actions.
const (
	Created   Action = "create"
	Updated   Action = "update"
	Unchanged Action = "unchanged"
	Resumed   Action = "resume"
	Deleted   Action = "delete"
)

// A Change is what becomes of one agent.
type Change struct {
	Action Action
	Before *spec.Agent // nil for Created
	After  *spec.Agent
	Fields []FieldChange // what differs, for Updated
	Held   bool          // it stays paused, because it was paused with hold
	// Warnings say what of the entry has no effect, and what to do for it to have one.
	Warnings []string
}

// FieldChange is one field that differs. Old or New is nil where the field is absent.
type FieldChange struct {
	Field    string
	Old, New json.RawMessage
}

// Wanted is an agent as somebody registers it.
type Wanted struct {
	Spec          *spec.Agent
	HasPartitions bool // the entry itself gave partitions; else an existing agent keeps its own
}

// register decides what registering does to an agent, given its record or nil.
func register(before *spec.Agent, w Wanted, newID func() string, now time.Time) (Change, error) {
	if before == nil || before.Phase == spec.Terminated {
		return create(before, w, newID, now)
	}
	after := replaceSpec(before, w)
	if after.Partitions != before.Partitions {
		return Change{}, &Conflict{Code: "partitions_fixed", Message: "partitions of " + before.Ref() + " are fixed at registration",
			Remedy: "keep the number, or delete the agent with delete_group and register it again"}
	}
	c := Change{Action: Unchanged, Before: before, After: after}
	if before.Phase != spec.Created {
		c.Warnings = keepStart(before, after)
	}
	c.Fields = diff(before, after)
	if len(c.Fields) > 0 {
		c.Action = Updated
	}
	switch {
	case w.Spec.Inactive:
	case before.Phase == spec.Paused && before.Hold:
		c.Held = true
	case before.Phase != spec.Active:
		after.Phase, after.Cause = spec.Active, nil
		if before.Phase == spec.Error {
			after.ResetNonce++
		}
		if c.Action == Unchanged {
			c.Action = Resumed
		}
	}
	if c.Action == Unchanged {
		c.After = before
		return c, nil
	}
	after.Generation++
	after.RegisteredAt, after.UpdatedAt = now, now
	return c, nil
}

// create makes a new life of an agent. Where its task topic is still there from the one before, so is its number of
// partitions; generation and nonces go on growing, because services compare them.
func create(before *spec.Agent, w Wanted, newID func() string, now time.Time) (Change, error) {
	a := *w.Spec
	a.Phase, a.Generation, a.Inactive = spec.Active, 1, false
	if w.Spec.Inactive {
		a.Phase = spec.Created
	}
	a.CreatedAt, a.RegisteredAt, a.UpdatedAt = now, now, now
	if before != nil {
		a.Generation = before.Generation + 1
		a.ResetNonce, a.RestartNonce = before.ResetNonce+1, before.RestartNonce+1
		a.Revision, a.Life, a.RetryFloor, a.CleanSince = before.Revision, before.Life, before.RetryFloor, before.CleanSince
		if before.Cleaning() {
			a.CleanUp, a.DeleteDLQ = before.CleanUp, before.DeleteDLQ // before this life begins
		}
		if !before.CleanUp {
			a.Kept = before.Kept
		}
		if !before.CleanUp && !w.HasPartitions {
			a.Partitions = before.Partitions
		}
		if !before.CleanUp && a.Partitions != before.Partitions {
			return Change{}, &Conflict{Code: "partitions_fixed", Message: "the task topic of " + a.Ref() + " is still there from before it was deleted, with another number of partitions",
				Remedy: "leave partitions out, or delete the agent again with delete_group first"}
		}
	}
	if a.ID == "" {
		a.ID = newID()
	}
	c := Change{Action: Created, After: &a}
	if before != nil && !before.CleanUp {
		c.Warnings = keepStart(before, &a)
	}
	return c, nil
}

// keepStart gives an agent whose group has begun the start that counted then. An entry that asks for another one is told.
func keepStart(before, after *spec.Agent) []string {
	asked := after.Start
	after.Start = before.Start
	if counted := cmp.Or(before.Start, spec.StartEarliest); asked != "" && asked != counted {
		return []string{"start: " + asked + " has no effect: where " + before.Ref() + " begins was decided when it was initialized (" + counted +
			"), and its group goes on where it stands; to begin anew delete the agent with delete_group, and register it again"}
	}
	return nil
}

// replaceSpec is the agent with the wanted spec and its own state.
func replaceSpec(before *spec.Agent, w Wanted) *spec.Agent {
	a := *before
	s := w.Spec
	if s.ID != "" {
		a.ID = s.ID
	}
	a.Type, a.Description, a.Version, a.Tags = s.Type, s.Description, s.Version, s.Tags
	a.Runtime, a.Dir, a.Callback, a.Command, a.Env = s.Runtime, s.Dir, s.Callback, s.Command, s.Env
	a.Config, a.Process, a.Pool = s.Config, s.Process, s.Pool
	a.Routing = s.Routing
	a.StartAt = before.StartAt
	if w.HasPartitions {
		a.Partitions = s.Partitions
	}
	return &a
}

// diff lists the fields that differ between two records, parts field by field, in alphabetical order.
func diff(before, after *spec.Agent) []FieldChange {
	x, y := flatten(before), flatten(after)
	var out []FieldChange
	for _, field := range slices.Sorted(maps.Keys(merged(x, y))) {
		if !reflect.DeepEqual(x[field], y[field]) {
			out = append(out, FieldChange{field, x[field], y[field]})
		}
	}
	return out
}

func merged(x, y map[string]json.RawMessage) map[string]json.RawMessage {
	all := maps.Clone(x)
	maps.Copy(all, y)
	return all
}

// flatten writes a record as field → JSON, with config, process, pool and env taken apart.
func flatten(a *spec.Agent) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	var walk func(prefix string, raw []byte, depth int)
	walk = func(prefix string, raw []byte, depth int) {
		var part map[string]json.RawMessage
		if depth == 0 || json.Unmarshal(raw, &part) != nil || part == nil {
			out[prefix] = raw
			return
		}
		for k, v := range part {
			walk(strings.TrimPrefix(prefix+"."+k, "."), v, depth-1)
		}
	}
	raw, err := json.Marshal(a)
	if err != nil {
		return out // a record always marshals: it holds nothing but plain values
	}
	walk("", raw, 2)
	return out
}

// initialize decides an initialization: an agent that was only stored, or that is in error, becomes ready to be started.
func initialize(a *spec.Agent, now time.Time) (after *spec.Agent, changed bool, err error) {
	to, err := next(a.Ref(), a.Phase, Initialize)
	if err != nil {
		return nil, false, err
	}
	return moved(a, to, now, func(b *spec.Agent) {
		if a.Phase == spec.Error {
			b.ResetNonce++
		}
		b.Cause = nil
	}), true, nil
}

// start decides a start.
func start(a *spec.Agent, now time.Time) (after *spec.Agent, changed bool, err error) {
	to, err := next(a.Ref(), a.Phase, Start)
	if err != nil || to == a.Phase {
		return a, false, err
	}
	return moved(a, to, now, func(*spec.Agent) {}), true, nil
}

// stop decides a stop: the processes end and nothing is consumed. It changes nothing where nothing runs.
func stop(a *spec.Agent, now time.Time) (after *spec.Agent, changed bool, err error) {
	to, err := next(a.Ref(), a.Phase, Stop)
	if err != nil || to == a.Phase {
		return a, false, err
	}
	return moved(a, to, now, func(*spec.Agent) {}), true, nil
}

// pause decides an unsubscribe.
func pause(a *spec.Agent, hold bool, now time.Time) (after *spec.Agent, changed bool, err error) {
	if _, err := next(a.Ref(), a.Phase, Unsubscribe); err != nil {
		return nil, false, err
	}
	if a.Phase == spec.Paused && (a.Hold || !hold) {
		return a, false, nil
	}
	return moved(a, spec.Paused, now, func(b *spec.Agent) { b.Hold = hold }), true, nil
}

// resume decides a resume.
func resume(a *spec.Agent, now time.Time) (after *spec.Agent, changed bool, err error) {
	if _, err := next(a.Ref(), a.Phase, Resume); err != nil {
		return nil, false, err
	}
	if a.Phase == spec.Active {
		return a, false, nil
	}
	return moved(a, spec.Active, now, func(b *spec.Agent) { b.Hold = false }), true, nil
}

// reset decides a reset: the circuits close by the new nonce; an agent in error becomes active again.
func reset(a *spec.Agent, now time.Time) (after *spec.Agent, changed bool, err error) {
	to, err := next(a.Ref(), a.Phase, Reset)
	if err != nil {
		return nil, false, err
	}
	return moved(a, to, now, func(b *spec.Agent) { b.ResetNonce++; b.Cause = nil }), true, nil
}

// restart decides a restart: by the new nonce the processes are replaced; an agent in error becomes active again.
func restart(a *spec.Agent, now time.Time) (after *spec.Agent, changed bool, err error) {
	to, err := next(a.Ref(), a.Phase, Restart)
	if err != nil {
		return nil, false, err
	}
	if a.Runtime == spec.SDK {
		return nil, false, &Conflict{Code: "not_supervised", Message: a.Ref() + " is run by a program of its own, which no supervisor can restart",
			Remedy: "restart that program"}
	}
	return moved(a, to, now, func(b *spec.Agent) { b.RestartNonce++; b.ResetNonce++; b.Cause = nil }), true, nil
}

// terminate decides a deletion; one of an agent that is gone changes nothing. What an earlier deletion asked for and isn't
// done yet is still to be done.
func terminate(a *spec.Agent, o DeleteOptions, now time.Time) *spec.Agent {
	return moved(a, spec.Terminated, now, func(b *spec.Agent) {
		b.Hold, b.Cause, b.TerminatedAt, b.Cleaned = false, nil, &now, false
		b.CleanUp, b.DeleteDLQ = o.Group || a.Cleaning() && a.CleanUp, o.DLQ || a.Cleaning() && a.DeleteDLQ
		if o.Group {
			b.Life, b.Kept = b.Generation, spec.Kept{}
		}
		if o.Group || o.DLQ {
			b.CleanSince = b.Generation
		}
	})
}

// cleaned decides what a dispatcher's word does that the remains are gone which the deletion of a generation asked for.
func cleaned(a *spec.Agent, since int64, floor map[string][]int64) bool {
	if !a.Cleaning() || a.CleanSince != since {
		return false
	}
	if a.CleanUp {
		a.RetryFloor = floor
	}
	if a.Phase == spec.Terminated {
		a.Cleaned = true
	} else {
		a.CleanUp, a.DeleteDLQ = false, false
	}
	return true
}

// fail decides what the fleet's report does: it moves the agent to error only if it is about the record as it is now.
func fail(a *spec.Agent, generation int64, cause spec.Cause, now time.Time) (*spec.Agent, bool) {
	if a.Generation != generation {
		return a, false
	}
	if _, err := next(a.Ref(), a.Phase, Fail); err != nil {
		return a, false
	}
	return moved(a, spec.Error, now, func(b *spec.Agent) { b.Cause = &cause }), true
}

func moved(a *spec.Agent, to spec.Phase, now time.Time, set func(b *spec.Agent)) *spec.Agent {
	b := *a
	b.Phase, b.UpdatedAt = to, now
	b.Generation++
	set(&b)
	return &b
}
