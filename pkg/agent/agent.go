package agent

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Infinite as a RequestTimeout leaves an attempt without a limit but ReclaimIdle.
const Infinite = time.Duration(math.MaxInt64)

// Orderings of an agent's tasks.
const (
	OrderingKey  = spec.OrderingKey  // tasks of one key start in order and never overlap
	OrderingNone = spec.OrderingNone // tasks start as they come
	// OrderingStrict is OrderingKey, and a key waits until its task is settled for good, its retries included.
	OrderingStrict = spec.OrderingStrict
)

// Agent is a consumer of a topic with the function that runs its tasks. Topic and Handler are required. The zero value of
// a field stands for its default.
type Agent struct {
	Topic   string
	Handler Handler

	// Name tells the agents of a topic apart; each of them gets every event. Defaults to one made of the topic:
	// file_uploaded_agent for file.uploaded.
	Name string
	// ID is the agent's beside its name. Defaults to a random one, which stays.
	ID          string
	Type        string
	Description string
	// Version is that of the program: each attempt is recorded with it. Defaults to 1.0.0.
	Version string
	Tags    []string

	// Concurrency is how many tasks run at a time in each program that runs the agent. Defaults to 16.
	Concurrency int
	// Ordering is OrderingKey, OrderingStrict or OrderingNone. Defaults to OrderingKey.
	Ordering string
	// RequestTimeout bounds an attempt: its context ends then. Defaults to 120 s; Infinite leaves ReclaimIdle.
	RequestTimeout time.Duration
	// DrainTimeout is how long a stop waits for tasks that run. Defaults to 30 s.
	DrainTimeout time.Duration
	// ReclaimIdle bounds an attempt whose RequestTimeout is Infinite. Defaults to 5 minutes.
	ReclaimIdle time.Duration

	// MaxRetries is how many attempts may follow the first: new(0) for none. Defaults to 3.
	MaxRetries *int
	// RetryDelays are the waits before them, the last repeats; they must be retry tiers of the installation. Defaults to
	// 1s 5s 30s.
	RetryDelays []time.Duration
	// Backoff makes the delays instead: give one of the two.
	Backoff *Backoff
	// DLQEnabled keeps what can't succeed in the agent's dead-letter topic: new(false) for no. Defaults to true.
	DLQEnabled *bool
	// Filter is a CEL expression over data, headers, key, topic, type and envelope, as in agents.yaml: an event of which it
	// isn't true is not the agent's. Defaults to none.
	Filter string
	// Accepts are the types of tasks that the agent takes; one that ends in * stands for all that begin so. Defaults to
	// Capabilities.
	Accepts []string
	// Capabilities are what the agent can do: without Accepts the types of tasks that it takes, beside tasks without a type.
	Capabilities []string
	// OnIncompatible is what becomes of tasks of another type: dlq, reject or skip. Defaults to dlq.
	OnIncompatible string
	// Rate is how many events a second are dispatched to the agent at most, all programs together. Defaults to no limit.
	Rate float64
	// Start is where the agent's group begins when it is registered for the first time: earliest, latest or an RFC 3339 time.
	// Defaults to earliest.
	Start string

	// Partitions of the task topic, fixed at the first registration: no more programs than that share the work. Defaults
	// to 8.
	Partitions int32
	// Inactive registers the agent without starting it: a new one is in phase created until somebody initializes and starts
	// it, one that is there stays in its phase. Defaults to false.
	Inactive bool
}

// Backoff are delays that grow: each is Factor times the one before. Base and Max must be retry tiers of the
// installation; what lies between is rounded up to one.
type Backoff struct {
	Base   time.Duration // before the first retry
	Factor float64       // Defaults to 2
	Max    time.Duration // which repeats. Defaults to the longest tier
}

// entry is the agent as people write it in agents.yaml, which is what a registry takes.
func (a Agent) entry() json.RawMessage {
	config, process, entry := map[string]any{}, map[string]any{}, map[string]any{"topic": a.Topic, "runtime": spec.SDK}
	give := func(to map[string]any, key string, value any, given bool) {
		if given {
			to[key] = value
		}
	}
	give(entry, "name", a.Name, a.Name != "")
	give(entry, "id", a.ID, a.ID != "")
	give(entry, "type", a.Type, a.Type != "")
	give(entry, "description", a.Description, a.Description != "")
	give(entry, "version", a.Version, a.Version != "")
	give(entry, "tags", a.Tags, len(a.Tags) > 0)
	give(entry, "partitions", a.Partitions, a.Partitions != 0)
	give(entry, "activate", false, a.Inactive)
	give(entry, "filter", a.Filter, a.Filter != "")
	give(entry, "accepts", a.Accepts, len(a.Accepts) > 0)
	give(entry, "capabilities", a.Capabilities, len(a.Capabilities) > 0)
	give(entry, "on_incompatible", a.OnIncompatible, a.OnIncompatible != "")
	give(entry, "rate", a.Rate, a.Rate != 0)
	give(entry, "start", a.Start, a.Start != "")
	give(config, "concurrency", a.Concurrency, a.Concurrency != 0)
	give(config, "ordering", a.Ordering, a.Ordering != "")
	give(config, "reclaim_idle_ms", a.ReclaimIdle.Milliseconds(), a.ReclaimIdle != 0)
	give(config, "max_retries", a.MaxRetries, a.MaxRetries != nil)
	give(config, "dlq_enabled", a.DLQEnabled, a.DLQEnabled != nil)
	if len(a.RetryDelays) > 0 {
		delays := make([]string, len(a.RetryDelays))
		for i, d := range a.RetryDelays {
			delays[i] = topics.Tier(d)
		}
		config["retry_delays"] = delays
	}
	if b := a.Backoff; b != nil {
		backoff := map[string]any{"base": b.Base.String()}
		give(backoff, "factor", b.Factor, b.Factor != 0)
		give(backoff, "max", b.Max.String(), b.Max != 0)
		config["backoff"] = backoff
	}
	give(process, "request_timeout", seconds(a.RequestTimeout), a.RequestTimeout != 0)
	give(process, "drain_timeout", seconds(a.DrainTimeout), a.DrainTimeout != 0)
	give(entry, "config", config, len(config) > 0)
	give(entry, "process", process, len(process) > 0)
	raw, err := json.Marshal(entry)
	if err != nil {
		panic(err) // texts, numbers and lists of them always marshal
	}
	return raw
}

func seconds(d time.Duration) spec.Seconds {
	if d == Infinite {
		return spec.Seconds(math.Inf(1))
	}
	return spec.Seconds(d.Seconds())
}

// Spec is the agent's spec as a registry makes it, or an error with everything that is wrong with it.
func (a Agent) Spec(names topics.Names, tiers []time.Duration) (*spec.Agent, error) {
	s, faults := spec.ParseEntry(a.entry())
	if len(faults) == 0 {
		faults = s.Check(tiers)
	}
	if names.Reserved(a.Topic) {
		faults = append(faults, spec.Fault{Field: "topic", Message: a.Topic + " is one of Reeve's own topics: name a topic of yours"})
	}
	if err := names.Check(s.Topic, s.Name); err != nil {
		faults = append(faults, spec.Fault{Field: "name", Message: err.Error()})
	}
	if len(faults) == 0 {
		return s, nil
	}
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = f.Field + " " + f.Message
	}
	return nil, fmt.Errorf("register the agent %s: %s", s.Ref(), strings.Join(lines, "; "))
}
