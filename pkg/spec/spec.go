// Package spec is the agent's spec with its desired state, as it stands in the control topic:
// one JSON object a record, keyed agent/<topic>/<name>. The registry writes it, dispatchers and workers
// converge to it.
package spec

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Phase is where an agent stands in its life, as decided by the registry.
type Phase string

// The phases. Only an active agent is dispatched to and run.
const (
	Created     Phase = "created"
	Initialized Phase = "initialized"
	Active      Phase = "active"
	Paused      Phase = "paused"
	Terminated  Phase = "terminated"
	Error       Phase = "error"
)

// Runtimes of an agent.
const (
	Python  = "python"
	Node    = "node"
	Command = "command"
	SDK     = "sdk" // functions in a Go program; supervisors leave such agents alone
)

// Orderings of an agent's tasks.
const (
	OrderingNone   = "none"   // tasks start as they come
	OrderingKey    = "key"    // tasks of one key start in order and never overlap; one that failed lets the next go on
	OrderingStrict = "strict" // as key, and a key waits until its task is settled for good, retries included
)

// Agent is an agent's spec. Times are UTC; durations in Config and Process are seconds where the field says so.
type Agent struct {
	Topic       string            `json:"topic"`
	Name        string            `json:"name"`
	ID          string            `json:"id"`
	Type        string            `json:"type,omitempty"`
	Description *string           `json:"description"`
	Version     string            `json:"version"`
	Tags        []string          `json:"tags"`
	Runtime     string            `json:"runtime"`
	Dir         string            `json:"dir,omitempty"`      // below the supervisor's agents directory; "" is that directory
	Callback    string            `json:"callback,omitempty"` // module:function
	Command     []string          `json:"command,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Config      Config            `json:"config"`
	Process     Process           `json:"process"`
	Pool        Pool              `json:"pool"`
	Partitions  int32             `json:"partitions"` // of the task topic

	Routing

	// Inactive says of a registration that it moves no phase: a new agent stays created (activate: false). It isn't part
	// of the record.
	Inactive bool `json:"-"`

	Phase        Phase  `json:"phase"`
	Hold         bool   `json:"hold,omitempty"`       // paused until somebody says resume
	Generation   int64  `json:"generation"`           // grows with every change of this record
	ResetNonce   int64  `json:"reset_nonce"`          // a change closes the circuits
	RestartNonce int64  `json:"restart_nonce"`        // a change replaces the instances
	CleanUp      bool   `json:"clean_up,omitempty"`   // the groups, the task topic and pending retries of a life that ended go, before anything else
	DeleteDLQ    bool   `json:"delete_dlq,omitempty"` // and so does the DLQ
	Cause        *Cause `json:"cause,omitempty"`      // with phase error: what happened

	// CleanSince is the generation of the deletion that asked for CleanUp or DeleteDLQ last, and Cleaned says of a
	// terminated agent that it is done; in any other phase the two are taken back then.
	CleanSince int64 `json:"clean_since,omitempty"`
	Cleaned    bool  `json:"cleaned,omitempty"`
	// Life is the generation of the last deletion that took the groups along, 0 before the first: what is from before it
	// isn't this agent's.
	Life int64 `json:"life,omitempty"`
	// RetryFloor gives by tier and partition the offset below which the retries on the tier's topic are from a life that
	// ended: they are discarded when they fall due.
	RetryFloor map[string][]int64 `json:"retry_floor,omitempty"`
	Kept       Kept               `json:"kept,omitzero"`
	// Revision grows with every change of this record that is none of the agent: Generation stays.
	Revision int64 `json:"revision,omitempty"`

	CreatedAt    time.Time  `json:"created_at"`
	RegisteredAt time.Time  `json:"registered_at"`
	UpdatedAt    time.Time  `json:"updated_at"`
	TerminatedAt *time.Time `json:"terminated_at,omitempty"`
}

// Kept says of which topics, by their UUIDs, the registry keeps the positions of the agent's groups. Where such a group has
// no position on Kafka, Kafka has forgotten it, and nobody joins before the registry has put it back.
type Kept struct {
	Topic string `json:"topic,omitempty"` // the user topic
	Tasks string `json:"tasks,omitempty"` // the task topic
}

// Cleaning reports whether remains of a life that ended are still to be deleted: meanwhile nothing is routed or run.
func (a *Agent) Cleaning() bool { return (a.CleanUp || a.DeleteDLQ) && !a.Cleaned }

// Floor is the offset on a tier's topic below which retries are from a life of the agent that ended.
func (a *Agent) Floor(tier string, partition int32) int64 {
	if floors := a.RetryFloor[tier]; partition >= 0 && int(partition) < len(floors) {
		return floors[partition]
	}
	return 0
}

// Cause is a typed error with its remedy.
type Cause struct {
	Type        string `json:"error_type"` // AgentStartupError, AgentCallbackNotFoundError, …
	Message     string `json:"message"`
	Remediation string `json:"remediation,omitempty"`
}

// Config is how an agent's tasks are delivered and retried.
type Config struct {
	MaxRetries    int      `json:"max_retries"`       // after the first attempt. Defaults to 3
	ReclaimIdleMS int64    `json:"reclaim_idle_ms"`   // the limit of an attempt whose request_timeout is infinite. Defaults to 300000
	DLQEnabled    bool     `json:"dlq_enabled"`       // Defaults to true
	Ordering      string   `json:"ordering"`          // none, key or strict. Defaults to key
	Concurrency   int      `json:"concurrency"`       // attempts in flight per instance. Defaults to 16, 1 for runtime command
	RetryDelays   []string `json:"retry_delays"`      // tiers, one an attempt, the last repeats. Defaults to 1s 5s 30s
	Backoff       *Backoff `json:"backoff,omitempty"` // what RetryDelays were made of; nil where they were given
}

// Delays parses RetryDelays, which has been validated at registration; what doesn't parse is left out.
func (c Config) Delays() []time.Duration {
	ds := make([]time.Duration, 0, len(c.RetryDelays))
	for _, s := range c.RetryDelays {
		if d, err := time.ParseDuration(s); err == nil {
			ds = append(ds, d)
		}
	}
	return ds
}

// Restart policies.
const (
	RestartImmediate = "immediate" // after 1 s
	RestartDelayed   = "delayed"   // exponential back-off
	RestartManual    = "manual"    // an alert, and a person decides
	RestartNever     = "never"
)

// Process is how an agent's processes are started, watched and stopped. All times are seconds.
type Process struct {
	RequestTimeout           Seconds `json:"request_timeout"`             // of an attempt. Defaults to 120; "infinity" is allowed
	DrainTimeout             Seconds `json:"drain_timeout"`               // how long a stop waits for running tasks. Defaults to 30
	GracefulTimeoutSec       Seconds `json:"graceful_timeout_sec"`        // from the shutdown message to SIGTERM; also for an attempt that was asked to end. Defaults to 5
	SigtermTimeoutSec        Seconds `json:"sigterm_timeout_sec"`         // from SIGTERM to SIGKILL. Defaults to 5
	RestartPolicy            string  `json:"restart_policy"`              // Defaults to delayed
	MaxRestartAttempts       int     `json:"max_restart_attempts"`        // in a row, then the circuit opens. Defaults to 3
	RestartBackoffSeconds    Seconds `json:"restart_backoff_seconds"`     // base. Defaults to 5
	RestartBackoffMaxSeconds Seconds `json:"restart_backoff_max_seconds"` // cap. Defaults to 60
	HeartbeatIntervalSeconds Seconds `json:"heartbeat_interval_seconds"`  // Defaults to 30
	Cwd                      string  `json:"cwd,omitempty"`               // below Dir. Defaults to Dir
}

// Pool is how many instances an agent has over the whole fleet.
type Pool struct {
	Min int `json:"min"` // Defaults to 1
	Max int `json:"max"` // Defaults to Min; equal to it in this version
}

// Seconds is a number of seconds; +Inf is written "infinity".
type Seconds float64

// Duration converts; infinity becomes the longest duration.
func (s Seconds) Duration() time.Duration {
	if f := float64(s) * float64(time.Second); f < math.MaxInt64 {
		return time.Duration(f)
	}
	return math.MaxInt64
}

// String writes a number, or infinity.
func (s Seconds) String() string {
	if s.Infinite() {
		return "infinity"
	}
	if s >= 1e15 {
		return strconv.FormatFloat(float64(s), 'g', -1, 64)
	}
	return strconv.FormatFloat(float64(s), 'f', -1, 64)
}

// Infinite reports whether there is no limit.
func (s Seconds) Infinite() bool { return math.IsInf(float64(s), 1) }

// MarshalJSON writes a number, or "infinity".
func (s Seconds) MarshalJSON() ([]byte, error) {
	if s.Infinite() {
		return []byte(`"infinity"`), nil
	}
	return strconv.AppendFloat(nil, float64(s), 'f', -1, 64), nil
}

// UnmarshalJSON takes a number or "infinity".
func (s *Seconds) UnmarshalJSON(b []byte) error {
	if string(b) == `"infinity"` {
		*s = Seconds(math.Inf(1))
		return nil
	}
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%s is neither a number of seconds nor \"infinity\"", b)
	}
	*s = Seconds(f)
	return nil
}

// Ref is the agent's identity, topic/name.
func (a *Agent) Ref() string { return a.Topic + "/" + a.Name }

// Key is the key of the agent's record in the control topic.
func (a *Agent) Key() string { return "agent/" + a.Ref() }

// ParseKey takes a control record's key apart; ok is false where it is no agent's.
func ParseKey(key string) (topic, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, "agent/")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "/")
}
