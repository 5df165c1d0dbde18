package event

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Message is an event that is to be published in Reeve's envelope. Only Topic and Content are required.
type Message struct {
	Topic string
	// Content is any value that JSON can hold; a json.RawMessage is taken as it is.
	Content any
	// Key orders the events of one subject. Defaults to none.
	Key []byte
	// ID is the event's. Defaults to a random UUID.
	ID            string
	Type          string
	CorrelationID string
	CausationID   string // the id of the event that this one follows from
	TenantID      string
	Source        string
	ReplyTo       string // a topic for the result
	Webhook       string // a URL for the result
	// CreatedAt defaults to now.
	CreatedAt time.Time
}

// Record is the message as a record for its topic.
func (m Message) Record() (*kgo.Record, error) {
	content, err := json.Marshal(m.Content)
	if err != nil {
		return nil, fmt.Errorf("encode the content of an event for %s: %w", m.Topic, err)
	}
	if m.ID == "" {
		m.ID = uuid.NewString()
	}
	if m.CreatedAt.IsZero() {
		m.CreatedAt = time.Now()
	}
	value, err := json.Marshal(envelopeJSON{
		ID: m.ID, Topic: m.Topic, Type: m.Type, Payload: payloadJSON{content, null(m.Webhook), null(m.ReplyTo)},
		TenantID: null(m.TenantID), CorrelationID: null(m.CorrelationID), CausationID: null(m.CausationID), Source: null(m.Source),
		CreatedAt: float64(m.CreatedAt.UnixMicro()) / 1e6, DeliveryAttempts: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("encode an event for %s: %w", m.Topic, err)
	}
	return &kgo.Record{Topic: m.Topic, Key: m.Key, Value: value, Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(ContentType)}}}, nil
}

// envelopeJSON is the JSON form. Fields that are absent stand there as null.
type envelopeJSON struct {
	ID               string      `json:"id"`
	Topic            string      `json:"topic"`
	Type             string      `json:"type,omitempty"`
	Payload          payloadJSON `json:"payload"`
	TenantID         *string     `json:"tenant_id"`
	CorrelationID    *string     `json:"correlation_id"`
	CausationID      *string     `json:"causation_id"`
	Source           *string     `json:"source"`
	CreatedAt        float64     `json:"created_at"`
	DeliveryAttempts int         `json:"delivery_attempts"`
}

type payloadJSON struct {
	Content json.RawMessage `json:"content"`
	Webhook *string         `json:"webhook"`
	ReplyTo *string         `json:"reply_to"`
}

func null(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
