package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// NodeInterval is how often a node says that it lives.
const NodeInterval = 2 * time.Second

// Reporter writes a service process's records to the status topic. It never waits for Kafka: what doesn't fit into the
// client's bounded buffer is dropped and counted. It is safe for concurrent use.
type Reporter struct {
	client        *kgo.Client
	names         topics.Names
	service, node string
	host          string
	started       time.Time
	logger        *slog.Logger
	dropped       atomic.Int64

	mu     sync.Mutex
	alerts map[alertID]*standing
}

// NewReporter makes a reporter that writes with a client which somebody else closes.
func NewReporter(cl *kgo.Client, names topics.Names, service, node string, logger *slog.Logger) *Reporter {
	host, _ := os.Hostname() // "" where the machine has none
	return &Reporter{client: cl, names: names, service: service, node: node, host: host, started: time.Now(), logger: logger}
}

// Dropped counts the records that were dropped since the start.
func (r *Reporter) Dropped() int64 { return r.dropped.Load() }

// Node sends the heartbeat, and with it again the alerts that stand.
func (r *Reporter) Node(agents []AgentReport, leaving bool) {
	r.Send(r.service+"/"+r.node, Node{
		Event: EventNode, Service: r.service, Node: r.node, Host: r.host, PID: os.Getpid(), StartedAt: Seconds(r.started),
		Leaving: leaving, Agents: agents, Timestamp: Seconds(time.Now()),
	})
	if !leaving {
		r.repeat(time.Now())
	}
}

// Agent sends one agent's report.
func (r *Reporter) Agent(a AgentReport) {
	a.Event, a.Service, a.Node, a.Timestamp = EventAgent, r.service, r.node, Seconds(time.Now())
	r.Send(a.Topic+"/"+a.AgentName, a)
}

// Unended tells that a transaction isn't ended which a broker forgot, or takes it back: readers stand still meanwhile. See
// hop.PoolConfig.
func (r *Reporter) Unended(message string, resolved bool) {
	r.Alert(Alert{Kind: KindUnended, Severity: "critical", Message: message, Resolved: resolved})
}

// Command says what became of a command, in one of the states of CommandResult.
func (r *Reporter) Command(c command.Command, state, message string) {
	id := c.Task
	if o, err := task.ParseOrigin(c.Task); err == nil {
		id = o.ID() // without the topic's UUID
	}
	r.Send(c.Ref(), CommandResult{Event: EventCommand, Topic: c.Topic, AgentName: c.Agent, ID: c.ID, Verb: string(c.Verb), Task: id,
		State: state, Message: message, Service: r.service, Node: r.node, Timestamp: Seconds(time.Now())})
}

// roundsAtOnce is how many rounds one record tells of.
const roundsAtOnce = 500

// Rounds says that further rounds of an agent's tasks are opened, and returns once Kafka has it.
func (r *Reporter) Rounds(ctx context.Context, topic, agent string, rounds []Round) error {
	for some := range slices.Chunk(rounds, roundsAtOnce) {
		err := r.Write(ctx, topic+"/"+agent, Rounds{Event: EventRounds, Topic: topic, AgentName: agent, Tasks: some, Service: r.service, Node: r.node, Timestamp: Seconds(time.Now())})
		if err != nil {
			return err
		}
	}
	return nil
}

// Progress says how far a task has come. The caller fills in what the task is about.
func (r *Reporter) Progress(o task.Origin, p Progress) {
	p.Event, p.Task, p.Node = EventProgress, o.ID(), r.node
	r.Send(p.Topic+"/"+p.AgentName, p)
}

// Send sends any record of this package.
func (r *Reporter) Send(key string, record any) {
	r.send(key, record, func(error) {})
}

// Write writes any record of this package, and returns once Kafka has it.
func (r *Reporter) Write(ctx context.Context, key string, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode a status record: %w", err)
	}
	if err := r.client.ProduceSync(ctx, &kgo.Record{Topic: r.names.Status(), Key: []byte(key), Value: value}).FirstErr(); err != nil {
		return fmt.Errorf("write a status record: %w", err)
	}
	return nil
}

// Replaced is the error of this process when a newer one of its name has taken its place: it names both. opts reach the
// brokers.
func (r *Reporter) Replaced(ctx context.Context, opts []kgo.Opt, cause error) error {
	newer := successor(ctx, opts, r.names, r.service, r.node, r.started)
	return fmt.Errorf("the node name %s was taken over by %s; this process, %d on host %s, ends: give each %s a REEVE_NODE of its own: %w",
		r.node, newer, os.Getpid(), r.host, r.service, cause)
}

// Seconds is a time as records have it.
func Seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// ClientID is the client id of a service's process on Kafka. It says who it is to people who look at a group's members.
func ClientID(service string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return fmt.Sprintf("reeve-%s@%s#%d", service, host, os.Getpid())
}
