// Package status has the records of the status topic: what dispatchers and workers tell the registry.
// Each is one JSON object with "event" and "topic"; the key is the subject (an agent's or node's name), so that one
// subject's records stay in order.
package status

import (
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// Values of "event".
const (
	EventStateChange = "agent_state_change"
	EventHealthCheck = "supervisor_health_check"
	EventAlert       = "alert"
	EventNode        = "node_heartbeat"
	EventAgent       = "agent_report"
	EventLog         = "agent_log"
	EventLost        = "events_lost"
	EventCommand     = "command_result"
	EventProgress    = "task_progress"
	EventDLQOrder    = "dlq_order"
	EventWebhook     = "webhook_delivery"
	EventRounds      = "rounds_opened"
)

// StateChange says that an instance changed its state. Timestamp is float Unix seconds, in all records.
type StateChange struct {
	Event     string  `json:"event"` // agent_state_change
	Topic     string  `json:"topic"`
	AgentName string  `json:"agent_name"`
	Instance  string  `json:"instance"` // <node>-<number>
	Node      string  `json:"node"`
	OldState  string  `json:"old_state"` // IDLE STARTING RUNNING STOPPING STOPPED CRASHED RESTARTING
	NewState  string  `json:"new_state"`
	Reason    string  `json:"reason,omitempty"`
	PID       int     `json:"pid,omitempty"`
	Timestamp float64 `json:"timestamp"`
}

// HealthCheck is the result of one ping of one instance.
type HealthCheck struct {
	Event        string  `json:"event"` // supervisor_health_check
	Topic        string  `json:"topic"`
	AgentName    string  `json:"agent_name"`
	Instance     string  `json:"instance"`
	Node         string  `json:"node"`
	State        string  `json:"state"`
	Health       string  `json:"health"` // healthy unresponsive stalled dead not_running
	CPUPercent   float64 `json:"cpu_percent"`
	MemoryMB     float64 `json:"memory_mb"`
	LatencyMS    float64 `json:"latency_ms"`
	RestartCount int     `json:"restart_count"`
	Timestamp    float64 `json:"timestamp"`
}

// Alert asks for a person.
type Alert struct {
	Event     string  `json:"event"` // alert
	Topic     string  `json:"topic"`
	AgentName string  `json:"agent_name"`
	Kind      string  `json:"kind"`
	Severity  string  `json:"severity"` // warning, critical
	Subject   string  `json:"subject"`
	Service   string  `json:"service,omitempty"` // who tells, with Node; "" from before there were these
	Node      string  `json:"node,omitempty"`
	Message   string  `json:"message"`
	Since     float64 `json:"since"`
	Resolved  bool    `json:"resolved,omitempty"`
	Timestamp float64 `json:"timestamp"`
}

// Node is a service process's heartbeat, every NodeInterval and once at its clean end (with Leaving).
type Node struct {
	Event     string        `json:"event"` // node_heartbeat
	Topic     string        `json:"topic"` // always ""
	Service   string        `json:"service"`
	Node      string        `json:"node"`
	Host      string        `json:"host"`
	PID       int           `json:"pid"`
	StartedAt float64       `json:"started_at"`
	Leaving   bool          `json:"leaving,omitempty"`
	Agents    []AgentReport `json:"agents,omitempty"`
	Timestamp float64       `json:"timestamp"`
}

// AgentReport is what a node says of an agent: in every heartbeat, and alone as an agent_report as soon as State or
// Error change. Dispatchers fill Lag, Unsettled, TopicMissing, Dispatched; workers the rest.
type AgentReport struct {
	Event      string `json:"event,omitempty"` // agent_report where it stands alone
	Topic      string `json:"topic"`
	AgentName  string `json:"agent_name"`
	Service    string `json:"service,omitempty"`
	Node       string `json:"node,omitempty"`
	Generation int64  `json:"generation"` // of the spec it has converged to
	// State is serving (member of the group), leaving, idle (nothing to do: phase isn't active), starting,
	// circuit_open or error.
	State      string      `json:"state"`
	Error      *spec.Cause `json:"error,omitempty"`
	Partitions int         `json:"partitions"`
	Instances  int         `json:"instances"` // RUNNING
	Running    int         `json:"running"`   // attempts in flight
	// Lag counts the events of the user topic that aren't routed yet, on this node's partitions; nil where this node
	// doesn't know. Transaction markers don't count.
	Lag *int64 `json:"lag,omitempty"`
	// Unsettled bounds the tasks on the task topic that aren't settled: none are more, and markers of transactions that
	// are still ahead count as well. nil where unknown.
	Unsettled    *int64 `json:"unsettled,omitempty"`
	TopicMissing bool   `json:"topic_missing,omitempty"`
	// Outage says that the worker has paused the agent, because its last tasks failed alike and none succeeded.
	Outage *Outage `json:"outage,omitempty"`
	// Dispatched counts the agent's tasks, exactly, in heartbeats only: the partitions whose count has changed since the
	// heartbeat before, and once a minute all that the node routes.
	Dispatched []Dispatched `json:"dispatched,omitempty"`
	// Cleaned says of what is deleted of an agent's earlier life that it is gone; nil where there is nothing to say.
	Cleaned   *Cleaned `json:"cleaned,omitempty"`
	Timestamp float64  `json:"timestamp,omitempty"`
}

// Cleaned is a dispatcher's word that the remains are gone which a deletion asked for.
type Cleaned struct {
	Since int64 `json:"since"` // spec.Agent's CleanSince
	// RetryFloor is spec.Agent's: retries below are from before.
	RetryFloor map[string][]int64 `json:"retry_floor,omitempty"`
}

// Outage is one that lasts: the worker starts nothing of the agent but one task at a time, to see whether it goes on.
type Outage struct {
	Since   float64    `json:"since"`
	Class   task.Class `json:"error_class"`
	Message string     `json:"message"` // of the failures that show it
}

// Dispatched is how many tasks have been made of a partition of the user topic since a time, by all dispatchers together.
// It only grows; an agent's tasks are the sum of the greatest N of each Partition and Since. Together with Filtered it is
// every event that the agent's group has passed.
type Dispatched struct {
	Partition int32 `json:"partition"`
	Since     int64 `json:"since"` // Unix milliseconds: when the count began
	N         int64 `json:"n"`
	// Filtered counts the events that no task was made of: the agent's filter isn't true of them, or it skips their type.
	Filtered int64 `json:"filtered,omitempty"`
}

// Lost says that the retention of an agent's topic removed events before they were consumed.
type Lost struct {
	Event     string  `json:"event"` // events_lost
	Topic     string  `json:"topic"`
	AgentName string  `json:"agent_name"`
	TopicID   string  `json:"topic_id"` // the topic's UUID
	Partition int32   `json:"partition"`
	From      int64   `json:"from"` // the first offset; -1 where it isn't known
	To        int64   `json:"to"`   // the first offset that is still there
	Timestamp float64 `json:"timestamp"`
}

// LogLine is a line of an agent's stderr, rate-limited.
type LogLine struct {
	Event     string  `json:"event"` // agent_log
	Topic     string  `json:"topic"`
	AgentName string  `json:"agent_name"`
	Instance  string  `json:"instance"`
	Line      string  `json:"line"`
	Timestamp float64 `json:"timestamp"`
}

// CommandResult says what became of a command. Whoever has nothing to do with its task says nothing.
type CommandResult struct {
	Event     string `json:"event"` // command_result
	Topic     string `json:"topic"`
	AgentName string `json:"agent_name"`
	ID        string `json:"id"` // the command's
	Verb      string `json:"verb"`
	Task      string `json:"task,omitempty"` // topic/partition/offset
	// State is accepted (it is being carried out, and takes its time), done or refused (it can't be carried out).
	State     string  `json:"state"`
	Message   string  `json:"message,omitempty"` // what was done, or why not and what to do
	Service   string  `json:"service"`
	Node      string  `json:"node"`
	Timestamp float64 `json:"timestamp"`
}

// Progress says how far a running task has come; of each there is one record a second at most.
type Progress struct {
	Event     string   `json:"event"` // task_progress
	Topic     string   `json:"topic"`
	AgentName string   `json:"agent_name"`
	Task      string   `json:"task"` // topic/partition/offset
	Attempt   int      `json:"attempt"`
	Round     int      `json:"round,omitempty"`
	Instance  string   `json:"instance,omitempty"`
	Node      string   `json:"node"`
	Fraction  *float64 `json:"fraction,omitempty"` // that is done, from 0 to 1
	Message   string   `json:"message,omitempty"`
	Timestamp float64  `json:"timestamp"`
}

// States of CommandResult.
const (
	CommandAccepted = "accepted"
	CommandDone     = "done"
	CommandRefused  = "refused"
)

// DLQOrder says how far a redrive or a purge of dead letters has come: at its beginning, a few times a second while it goes
// on, and at its end. Topic and AgentName are those of the command.
type DLQOrder struct {
	Event     string `json:"event"` // dlq_order
	Topic     string `json:"topic"`
	AgentName string `json:"agent_name"`
	ID        string `json:"id"`   // the command's
	Verb      string `json:"verb"` // redrive, purge
	// State is waiting (it can't go on now; Reason says why), running, or for good: done, stopped (by itself, where tasks
	// came back dead; Reason says which), refused (nothing was done), cancelled (somebody took it back).
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	Moved  int64  `json:"moved"` // dead letters that were redriven or purged
	// Completed counts redriven tasks, of webhooks those that were delivered; CameBack those that are dead once more, of
	// webhooks those that failed in their first try. Both lack what ended while this dispatcher didn't look: the outcomes,
	// and what is told of webhooks, name their order (task.HeaderOrder, Webhook.Order), and count all.
	Completed int64   `json:"completed"`
	CameBack  int64   `json:"came_back"`
	Kept      int64   `json:"kept"`    // left where they are, because others of their failure came back, or nobody takes them
	Guarded   int64   `json:"guarded"` // left, because they came back too often before
	Unfit     int64   `json:"unfit"`   // left, because the agent as it is now doesn't take them
	Timestamp float64 `json:"timestamp"`
}

// States of DLQOrder.
const (
	OrderWaiting   = "waiting"
	OrderRunning   = "running"
	OrderDone      = "done"
	OrderStopped   = "stopped"
	OrderRefused   = "refused"
	OrderCancelled = "cancelled"
)

// Rounds says that further rounds of tasks are opened: their events or their dead letters are dispatched once more. It is
// written once that is committed, so who reads it may have read outcomes of these rounds before.
type Rounds struct {
	Event     string  `json:"event"` // rounds_opened
	Topic     string  `json:"topic"`
	AgentName string  `json:"agent_name"`
	Tasks     []Round `json:"tasks"`
	Service   string  `json:"service"`
	Node      string  `json:"node"`
	Timestamp float64 `json:"timestamp"`
}

// Round is a round of a task.
type Round struct {
	Task  string `json:"task"`  // as in task.HeaderOrigin
	Round int    `json:"round"` // how often it was redriven
}

// Webhook says what became of a try to send a task's webhook. Its key is the task's id.
type Webhook struct {
	Event      string  `json:"event"` // webhook_delivery
	Topic      string  `json:"topic"`
	AgentName  string  `json:"agent_name"`
	Origin     string  `json:"origin"` // of the task, as in task.HeaderOrigin
	Redrives   int     `json:"redrives"`
	ID         string  `json:"webhook_id"`
	Endpoint   string  `json:"endpoint"` // scheme://host:port: a path or a query may hold secrets
	State      string  `json:"state"`    // delivered, retrying, failed
	Attempts   int     `json:"attempts"`
	StatusCode int     `json:"status_code,omitempty"` // of the last answer; 0: there was none
	ErrorClass string  `json:"error_class,omitempty"`
	Error      string  `json:"error,omitempty"`
	NextAt     float64 `json:"next_at,omitempty"` // with retrying
	// Order is the id of the order that sent it off once more, in what is told of its first try since.
	Order     string  `json:"order,omitempty"`
	Timestamp float64 `json:"timestamp"`
}

// WebhookDelivered is the State of a Webhook that was; the others say that its try failed.
const WebhookDelivered = "delivered"

// States of AgentReport.
const (
	ReportServing     = "serving"
	ReportLeaving     = "leaving"
	ReportIdle        = "idle"
	ReportStarting    = "starting"
	ReportCircuitOpen = "circuit_open"
	ReportError       = "error"
)
