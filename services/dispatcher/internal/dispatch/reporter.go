package dispatch

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
)

// alertInterval is how often one alert is repeated at most.
const alertInterval = time.Minute

// Reporter writes what people and the registry should know to the status topic. It never waits for Kafka; the client's own
// limits drop what can't be written.
type Reporter struct {
	client        *kgo.Client
	topic         string
	service, node string
	host          string
	startedAt     time.Time
	logger        *slog.Logger

	mu     sync.Mutex
	alerts map[string]time.Time // when each was last sent
}

// NewReporter writes with a client that somebody else closes.
func NewReporter(cl *kgo.Client, names topics.Names, service, node string, logger *slog.Logger) *Reporter {
	host, _ := os.Hostname() // "" where the machine has none
	return &Reporter{client: cl, topic: names.Status(), service: service, node: node, host: host, startedAt: time.Now(), logger: logger, alerts: make(map[string]time.Time)}
}

// Node sends the heartbeat.
func (r *Reporter) Node(agents []status.AgentReport, leaving bool) {
	r.send(r.service+"/"+r.node, status.Node{
		Event: status.EventNode, Service: r.service, Node: r.node, Host: r.host, PID: os.Getpid(), StartedAt: seconds(r.startedAt),
		Leaving: leaving, Agents: agents, Timestamp: seconds(time.Now()),
	})
}

// Agent sends one agent's report.
func (r *Reporter) Agent(a status.AgentReport) {
	a.Event, a.Service, a.Node, a.Timestamp = status.EventAgent, r.service, r.node, seconds(time.Now())
	r.send(a.Topic+"/"+a.AgentName, a)
}

// Alert asks for a person. The same alert is sent once a minute at most.
func (r *Reporter) Alert(topic, agent, kind, message string) {
	now := time.Now()
	subject := topic + "/" + agent
	if agent == "" {
		subject = r.service + "/" + r.node
	}
	id := subject + "\x00" + kind + "\x00" + message
	r.mu.Lock()
	recent := now.Sub(r.alerts[id]) < alertInterval
	if !recent {
		r.alerts[id] = now
	}
	for other, at := range r.alerts {
		if now.Sub(at) >= alertInterval {
			delete(r.alerts, other)
		}
	}
	r.mu.Unlock()
	if recent {
		return
	}
	r.logger.Warn("alert: "+message, slog.String("kind", kind), slog.String("subject", subject))
	r.send(subject, status.Alert{
		Event: status.EventAlert, Topic: topic, AgentName: agent, Kind: kind, Severity: "critical", Subject: subject, Message: message,
		Since: seconds(now), Timestamp: seconds(now),
	})
}

func (r *Reporter) send(key string, record any) {
	value, err := json.Marshal(record)
	if err != nil {
		r.logger.Error("encode a status record", slog.Any("error", err))
		return
	}
	r.client.TryProduce(context.Background(), &kgo.Record{Topic: r.topic, Key: []byte(key), Value: value}, nil)
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
