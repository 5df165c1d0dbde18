package spec

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Routing is which events of its topic an agent gets, from where on and how fast. The zero value is all of them, from the
// topic's beginning, as fast as they are taken.
type Routing struct {
	// Filter is a CEL expression over an event: one for which it isn't true isn't this agent's, and leaves no trace but a
	// count. Defaults to none.
	Filter string `json:"filter,omitempty"`
	// Accepts are the types of tasks that the agent takes; one that ends in * stands for all that begin so, and * alone
	// also for tasks without a type, which are taken nowhere else. Defaults to Capabilities.
	Accepts []string `json:"accepts,omitempty"`
	// Capabilities are what the agent can do. Without Accepts they are the types of tasks that it takes, beside tasks
	// without a type. Defaults to none, which is anything.
	Capabilities []string `json:"capabilities,omitempty"`
	// OnIncompatible is what becomes of an event of another type: dlq, reject or skip. Defaults to dlq.
	OnIncompatible string `json:"on_incompatible,omitempty"`
	// Rate is how many events a second are dispatched to the agent at most, by all dispatchers together; fractions are
	// allowed. Retries and dead letters that are sent back aren't held to it. 0 is no limit, which is the default.
	Rate float64 `json:"rate,omitempty"`
	// Start is from where on the agent gets events: earliest, latest, or an RFC 3339 time. It counts when the agent's group
	// begins, and never again. Defaults to earliest.
	Start string `json:"start,omitempty"`
	// StartAt is what Start meant when the agent was initialised; nil for the topic's beginning. The registry sets it.
	StartAt *StartAt `json:"start_at,omitempty"`
}

// StartAt is where a group begins. A partition that isn't in it, as one that was added later, begins at its start.
type StartAt struct {
	TopicID string          `json:"topic_id,omitempty"` // the topic's UUID in unpadded base64url; one of another id begins at its start
	Offsets map[int32]int64 `json:"offsets"`            // by partition
}

// Values of Routing.Start; the third is an RFC 3339 time.
const (
	StartEarliest = "earliest"
	StartLatest   = "latest"
)

// Values of Routing.OnIncompatible.
const (
	OnIncompatibleDLQ    = "dlq"    // a task that is dead-lettered unrun; rejected where the agent has no dead letters
	OnIncompatibleReject = "reject" // a task that ends rejected, and no dead letter
	OnIncompatibleSkip   = "skip"   // no task: it is passed over as by a filter
)

// MaxRate is the highest Rate.
const MaxRate = 1_000_000

// ZeroRate is what is wrong with a rate of 0.
const ZeroRate = "0 would dispatch nothing: pause the agent, or leave rate out for no limit"

// maxTypes is how many types of tasks an agent may name.
const maxTypes = 100

func (r Routing) check(add adder) {
	if !(r.Rate >= 0 && r.Rate <= MaxRate) || r.Rate > 0 && r.Rate < 1e-6 {
		add("rate", "%v is out of range: give a number of events a second above 0, up to %d", r.Rate, MaxRate)
	}
	checkTypes("accepts", r.Accepts, true, add)
	checkTypes("capabilities", r.Capabilities, false, add)
	if !slices.Contains([]string{"", OnIncompatibleDLQ, OnIncompatibleReject, OnIncompatibleSkip}, r.OnIncompatible) {
		add("on_incompatible", "%q is unknown: use dlq, reject or skip", r.OnIncompatible)
	}
	if r.OnIncompatible != "" && len(r.Accepts) == 0 && len(r.Capabilities) == 0 {
		add("on_incompatible", "says what becomes of tasks that the agent doesn't accept, and it accepts all: give accepts or capabilities too, or leave it out")
	}
	if _, err := r.StartTime(); err != nil {
		add("start", "%v", err)
	}
}

func checkTypes(field string, types []string, patterns bool, add adder) {
	if types != nil && len(types) == 0 {
		add(field, "is an empty list, and would take no task: leave it out for all of them")
		return
	}
	if len(types) > maxTypes {
		add(field, "has %d entries, at most %d are taken: an entry may end in * to stand for many", len(types), maxTypes)
		return
	}
	for i, t := range types {
		switch star := strings.IndexByte(t, '*'); {
		case t == "" || strings.TrimSpace(t) != t || len(t) > 4096:
			add(field, "%q is no type of tasks: give a text without space around it", t)
		case patterns && star >= 0 && star < len(t)-1:
			add(field, "%q has a * before its end: only the last character may be one", t)
		case slices.Contains(types[:i], t):
			add(field, "%q is listed twice: keep one", t)
		}
	}
}

// StartTime is the time that Start gives; zero where it is earliest or latest.
func (r Routing) StartTime() (time.Time, error) {
	switch r.Start {
	case "", StartEarliest, StartLatest:
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, r.Start)
	if err != nil || at.Before(time.Unix(0, 0)) {
		return time.Time{}, fmt.Errorf("%q is no place to start at: give earliest, latest, or a time as 2026-01-31T08:00:00Z", r.Start)
	}
	return at, nil
}

// Takes reports whether the agent takes tasks of a type, "" being those without one; if not, why not.
func (r Routing) Takes(taskType string) (ok bool, reason string) {
	switch {
	case len(r.Accepts) > 0:
		for _, t := range r.Accepts {
			if prefix, all := strings.CutSuffix(t, "*"); t == taskType || all && strings.HasPrefix(taskType, prefix) {
				return true, ""
			}
		}
		if taskType == "" {
			return false, "the task has no type, and the agent accepts only " + strings.Join(r.Accepts, ", ")
		}
		return false, fmt.Sprintf("the task's type is %s, and the agent accepts only %s", taskType, strings.Join(r.Accepts, ", "))
	case taskType == "" || len(r.Capabilities) == 0 || slices.Contains(r.Capabilities, taskType):
		return true, ""
	}
	return false, fmt.Sprintf("the task's type is %s, and the agent's capabilities are only %s", taskType, strings.Join(r.Capabilities, ", "))
}
