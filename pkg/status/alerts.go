package status

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An alert is about a state that lasts or about something that has happened. One about a state is the view of one process,
// which repeats it until it takes it back; what isn't repeated has lost its process, or nobody sees it any more, and lapses.
// Several processes may tell of the same; each takes back its own.
const (
	// AlertInterval is how often a process repeats the alerts that stand.
	AlertInterval = 30 * time.Second
	// AlertLapse is how long an alert about a state stands after it was told last.
	AlertLapse = 2 * time.Minute
	// EventLapse is how long one about something that has happened stands.
	EventLapse = 24 * time.Hour
)

// Kinds of alerts. Unless it says otherwise, one is about a state.
const (
	// KindOutage: the last tasks of an agent failed alike at a worker, and none succeeded. Whoever owns its partitions next sees for itself.
	KindOutage = "outage"
	// KindQueueHeld: one task of an agent holds up a partition. It goes with the partition to its next owner.
	KindQueueHeld = "queue_held"
	// KindDestinationUnwritable: what a worker or a dispatcher writes for an agent is refused, so it waits. Whoever goes on
	// with it meets the same.
	KindDestinationUnwritable = "destination_unwritable"
	// KindDenied: Kafka refuses a process a right that it needs.
	KindDenied = "kafka_denied"
	// KindUnended: a transaction that a broker forgot may not be ended by this process, and readers stand still. Whoever
	// has the right ends it.
	KindUnended = "transaction_unended"
	// KindTopicMissing: a dead-letter topic is missing that a supervisor may not make.
	KindTopicMissing = "topic_missing"
	// KindCircuitOpen: an agent's processes ended too often on a supervisor, which starts none any more. It stands beyond
	// the supervisor's life while the agent is in phase error, since that waits for a person.
	KindCircuitOpen = "circuit_open"
	// KindAgentError: an agent can't be started on a supervisor. It stands as KindCircuitOpen does.
	KindAgentError = "agent_error"
	// KindRestartNeeded: an agent's process has ended, and its policy leaves it at that.
	KindRestartNeeded = "restart_needed"
	// KindAttemptsOverdue: functions of a Go program go on that should have ended.
	KindAttemptsOverdue = "attempts_overdue"
	// KindRegistrationRefused: the registry refuses what a Go program wants to be; it runs as it was registered before.
	KindRegistrationRefused = "registration_refused"
	// KindRetentionNear: retention will remove events that wait for an agent. The registry that leads looks at all agents,
	// and takes over what the last one has told: it never lapses.
	KindRetentionNear = "retention_near"
	// KindRecordsLost: records were removed before they were consumed. It has happened, and stands for EventLapse.
	KindRecordsLost = "records_lost"
)

// Lapse is how long an alert of a kind stands after it was told last; 0: until it is taken back.
func Lapse(kind string) time.Duration {
	switch kind {
	case KindRecordsLost:
		return EventLapse
	case KindRetentionNear:
		return 0
	}
	return AlertLapse
}

// alertID is what an alert is about.
type alertID struct{ topic, agent, kind, subject string }

// standing is an alert that is to be repeated, or whose end the registry hasn't heard of yet.
type standing struct {
	Alert
	told time.Time // zero: Kafka has refused it
}

// Alert asks for a person, or with Resolved says that nobody is needed any more. With no agent it is about the node itself.
// The caller fills in what it is about, since when unless that is now, and a subject where the node has several; event, node
// and the other time are set here. It is logged, and repeated with the heartbeats until it is resolved; to tell of the same
// again changes nothing.
func (r *Reporter) Alert(a Alert) {
	if Lapse(a.Kind) != AlertLapse {
		r.Notice(a)
		return
	}
	r.complete(&a)
	id := alertID{a.Topic, a.AgentName, a.Kind, a.Subject}
	r.mu.Lock()
	old := r.alerts[id]
	if old != nil && old.Resolved == a.Resolved && old.Message == a.Message && old.Severity == a.Severity {
		r.mu.Unlock()
		return
	}
	if r.alerts == nil {
		r.alerts = map[alertID]*standing{}
	}
	r.alerts[id] = &standing{a, time.Now()}
	r.mu.Unlock()
	r.logAlert(a)
	r.tell(id, a)
}

// Notice is Alert for what has happened, and for what the caller itself repeats while it lasts, more often than it lapses:
// it is sent once, and nobody takes it back.
func (r *Reporter) Notice(a Alert) {
	r.complete(&a)
	r.logAlert(a)
	r.Send(a.Subject, a)
}

func (r *Reporter) complete(a *Alert) {
	if a.Subject == "" {
		a.Subject = a.Topic + "/" + a.AgentName
		if a.AgentName == "" {
			a.Subject = r.service + "/" + r.node
		}
	}
	a.Event, a.Service, a.Node, a.Timestamp = EventAlert, r.service, r.node, Seconds(time.Now())
	if a.Since == 0 {
		a.Since = a.Timestamp
	}
}

func (r *Reporter) logAlert(a Alert) {
	log := r.logger.Warn
	if a.Resolved {
		log = r.logger.Info
	}
	log("alert: "+a.Message, slog.String("kind", a.Kind), slog.String("subject", a.Subject), slog.Bool("resolved", a.Resolved))
}

// tell sends an alert. What Kafka refuses is sent again with the next heartbeat, and the end of one is forgotten once it is
// known there.
func (r *Reporter) tell(id alertID, a Alert) {
	r.send(a.Subject, a, func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		s := r.alerts[id]
		switch {
		case s == nil || s.Resolved != a.Resolved || s.Message != a.Message: // something newer was told
		case err != nil:
			s.told = time.Time{}
		case a.Resolved:
			delete(r.alerts, id)
		}
	})
}

// repeat tells again of what stands.
func (r *Reporter) repeat(now time.Time) {
	due := map[alertID]Alert{}
	r.mu.Lock()
	for id, s := range r.alerts {
		if now.Sub(s.told) >= AlertInterval {
			s.told, s.Timestamp = now, Seconds(now)
			due[id] = s.Alert
		}
	}
	r.mu.Unlock()
	for id, a := range due {
		r.tell(id, a)
	}
}

// send sends a record, and says what became of it.
func (r *Reporter) send(key string, record any, done func(error)) {
	value, err := json.Marshal(record)
	if err != nil {
		r.logger.Error("encode a status record", slog.Any("error", err))
		return
	}
	r.client.TryProduce(context.Background(), &kgo.Record{Topic: r.names.Status(), Key: []byte(key), Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			r.dropped.Add(1)
		}
		done(err)
	})
}
