package event

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

// Format is how an event stands in its record.
type Format uint8

// The formats.
const (
	Raw Format = iota
	Envelope
	CloudEventBinary
	CloudEventStructured
)

// ContentType of a record that says it is an envelope.
const ContentType = "application/vnd.reeve.event+json"

// MaxField is how many bytes an event's id, type, source and so on may have: they ride in headers.
const MaxField = 4096

// Event is what a record says about itself. Fields that it doesn't give are empty.
type Event struct {
	Format        Format
	ID            string // the envelope's or CloudEvent's, else <topic>:<partition>:<offset>
	Type          string
	CorrelationID string
	CausationID   string
	TenantID      string
	Source        string
	ReplyTo       string
	Webhook       string
	CreatedAt     time.Time // the envelope's or CloudEvent's, else the record's timestamp
	// DeliveryAttempts is the envelope's own count, 1 elsewhere.
	DeliveryAttempts int
}

// FormatError says that a record claims a format by its headers and isn't in it.
type FormatError struct {
	Format  string // what it claims to be
	Problem string
}

func (e *FormatError) Error() string {
	return "the record says it is " + e.Format + ", but " + e.Problem
}

// Recognise tells what a record of a user's topic is. The error is a *FormatError; the Event then has what the headers
// alone say.
func Recognise(topic string, r *kgo.Record) (Event, error) {
	var p parsed
	err := p.parse(topic, r)
	e := p.says()
	if e.ID == "" {
		e.ID = DefaultID(topic, r.Partition, r.Offset)
	}
	if e.CreatedAt.IsZero() {
		e.CreatedAt = r.Timestamp
	}
	return e, err
}

// OfTask is Recognise for a record of a task topic: id and time of the event are those that the dispatcher noted.
func OfTask(topic string, r *kgo.Record) (Event, error) {
	var p parsed
	err := p.parse(topic, r)
	e := p.says()
	ms, id := p.published(r)
	if e.ID = string(id); e.ID == "" {
		e.ID = DefaultID(topic, r.Partition, r.Offset)
	}
	if e.CreatedAt.IsZero() {
		e.CreatedAt = time.UnixMilli(ms)
	}
	return e, err
}

// says is what the record says of itself.
func (p *parsed) says() Event {
	return Event{
		Format:           p.format,
		ID:               string(p.id),
		Type:             string(p.typ),
		CorrelationID:    string(p.correlation),
		CausationID:      string(p.causation),
		TenantID:         string(p.tenant),
		Source:           string(p.source),
		ReplyTo:          string(p.replyTo),
		Webhook:          string(p.webhook),
		CreatedAt:        p.createdAt,
		DeliveryAttempts: p.attempts,
	}
}

// DefaultID is the id of an event that has none of its own.
func DefaultID(topic string, partition int32, offset int64) string {
	b := make([]byte, 0, len(topic)+24)
	b = append(append(b, topic...), ':')
	b = append(strconv.AppendInt(b, int64(partition), 10), ':')
	return string(strconv.AppendInt(b, offset, 10))
}

// parsed is an Event whose fields are still bytes of the record, and where its content is.
type parsed struct {
	format                                                            Format
	id, typ, correlation, causation, tenant, source, replyTo, webhook []byte
	createdAt                                                         time.Time
	created                                                           []byte // the envelope's own number, as it was written
	attempts                                                          int
	event                                                             []byte // the header of a task record
	content                                                           []byte
	json                                                              bool // content is known to be JSON
	contentType, ceVersion, ceID, ceType, ceSource, ceTime            []byte
}

func (p *parsed) parse(topic string, r *kgo.Record) error {
	p.headers(r.Headers)
	p.content, p.attempts = r.Value, 1
	mediaType, _, _ := bytes.Cut(p.contentType, []byte(";"))
	mediaType = bytes.TrimSpace(mediaType)
	switch {
	case hasPrefixFold(mediaType, "application/cloudevents"):
		p.format = CloudEventStructured
		return p.aside(func(q *parsed) error { return q.structured(mediaType, r.Value) })
	case p.ceVersion != nil:
		p.format = CloudEventBinary
		return p.binary()
	case bytes.EqualFold(mediaType, []byte(ContentType)):
		p.format = Envelope
		return p.aside(func(q *parsed) error { return q.envelope("", r.Value) })
	case looksLikeEnvelope(topic, r.Value):
		if p.aside(func(q *parsed) error { q.format = Envelope; return q.envelope(topic, r.Value) }) == nil {
			return nil
		}
	}
	if len(p.ceID) <= MaxField {
		p.id = p.ceID
	}
	return nil
}

// aside reads JSON into a copy, and takes the copy over if that went well. The copy is on the heap, since the scanner calls
// back; p itself needn't be then, which is worth something for raw events.
func (p *parsed) aside(read func(q *parsed) error) error {
	q := new(parsed)
	*q = *p
	if err := read(q); err != nil {
		return err
	}
	*p = *q
	return nil
}

// headers takes the values that matter out of a record's headers. Of several with one key the last counts.
func (p *parsed) headers(hs []kgo.RecordHeader) {
	for i := range hs {
		key, v := hs[i].Key, hs[i].Value
		switch {
		case strings.HasPrefix(key, "reeve-"):
			p.ours(key, v)
		case strings.HasPrefix(key, "ce_"):
			switch key[3:] {
			case "specversion":
				p.ceVersion = nonNil(v)
			case "id":
				p.ceID = v
			case "type":
				p.ceType = v
			case "source":
				p.ceSource = v
			case "time":
				p.ceTime = v
			}
		case len(key) == len("content-type") && strings.EqualFold(key, "content-type"):
			p.contentType = v
		}
	}
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (p *parsed) ours(key string, v []byte) {
	switch key {
	case task.HeaderCorrelationID:
		p.correlation = v
	case task.HeaderCausationID:
		p.causation = v
	case task.HeaderTenantID:
		p.tenant = v
	case task.HeaderSource:
		p.source = v
	case task.HeaderReplyTo:
		p.replyTo = v
	case task.HeaderWebhook:
		p.webhook = v
	case task.HeaderType:
		p.typ = v
	case task.HeaderEvent:
		p.event = v
	}
}

func hasPrefixFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && bytes.EqualFold(b[:len(prefix)], []byte(prefix))
}
