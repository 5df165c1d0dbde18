package stdio

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
)

// Protocol is the version of what goes beyond the base, as a program's first pong announces it.
const Protocol = 1

// Capabilities of a program, as its first pong announces them.
const (
	CapabilityCancel   = "cancel"   // it takes cancel messages
	CapabilityProgress = "progress" // it sends progress messages
	CapabilityPublish  = "publish"  // it sends publish messages
)

// Abilities are what a program can do beyond the base. The zero value is that of one that speaks only the base.
type Abilities struct{ Cancel, Progress, Publish bool }

// ParseAbilities reads a pong's result. What it doesn't know, and a pong of another protocol, gives none.
func ParseAbilities(pong []byte) Abilities {
	var p struct {
		Protocol     int      `json:"protocol"`
		Capabilities []string `json:"capabilities"`
	}
	if json.Unmarshal(pong, &p) != nil || p.Protocol < Protocol {
		return Abilities{}
	}
	var a Abilities
	for _, c := range p.Capabilities {
		switch c {
		case CapabilityCancel:
			a.Cancel = true
		case CapabilityProgress:
			a.Progress = true
		case CapabilityPublish:
			a.Publish = true
		}
	}
	return a
}

// Kinds of messages about a task that runs. Programs may send them which have announced the capability of that name.
const (
	KindProgress = "progress"
	KindPublish  = "publish"
)

// Progress is how far a task has come.
type Progress struct {
	// Fraction is the share that is done, from 0 to 1; nil where the agent doesn't say.
	Fraction *float64 `json:"fraction"`
	Message  string   `json:"message"`
}

// maxProgress is how many bytes of a progress message's text are kept.
const maxProgress = 1 << 10

// ParseProgress reads a message of KindProgress. A fraction that is none is left out.
func ParseProgress(message []byte) (Progress, error) {
	var p Progress
	if err := json.Unmarshal(message, &p); err != nil {
		return Progress{}, fmt.Errorf("read progress: %w", err)
	}
	if p.Fraction != nil && (math.IsNaN(*p.Fraction) || *p.Fraction < 0 || *p.Fraction > 1) {
		p.Fraction = nil
	}
	p.Message = p.Message[:min(len(p.Message), maxProgress)]
	return p, nil
}

// ParsePublication reads a message of KindPublish: an event that its task publishes. cause is the id of the event that the
// task is for; what the message doesn't say follows from it.
func ParsePublication(message []byte, cause event.Event, source string) (*kgo.Record, error) {
	var m struct {
		Topic         string          `json:"topic"`
		Content       json.RawMessage `json:"content"`
		Key           *string         `json:"key"`
		EventID       string          `json:"event_id"`
		Type          string          `json:"event_type"`
		CorrelationID string          `json:"correlation_id"`
		TenantID      string          `json:"tenant_id"`
		ReplyTo       string          `json:"reply_to"`
		Webhook       string          `json:"webhook"`
	}
	if err := json.Unmarshal(message, &m); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	if m.Topic == "" || len(m.Content) == 0 || string(m.Content) == "null" {
		return nil, errors.New("publish: name a topic, and give content that isn't null")
	}
	out := event.Message{Topic: m.Topic, Content: m.Content, ID: m.EventID, Type: m.Type, CorrelationID: m.CorrelationID, CausationID: cause.ID,
		TenantID: m.TenantID, Source: source, ReplyTo: m.ReplyTo, Webhook: m.Webhook}
	if m.Key != nil {
		out.Key = []byte(*m.Key)
	}
	if out.CorrelationID == "" {
		out.CorrelationID = cause.CorrelationID
	}
	if out.TenantID == "" {
		out.TenantID = cause.TenantID
	}
	return out.Record()
}
