package event

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/jsonlex"
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

// binary reads a CloudEvent whose attributes are headers and whose data is the value.
func (p *parsed) binary() error {
	problem := ceProblem(p.ceVersion, p.ceID, p.ceType, p.ceSource)
	if problem == "" {
		problem = p.ceAttributes()
	}
	if problem != "" {
		return &FormatError{"a CloudEvent (ce_specversion)", problem}
	}
	return nil
}

func ceProblem(version, id, typ, source []byte) string {
	switch {
	case !bytes.HasPrefix(version, []byte("1.")):
		return fmt.Sprintf("its specversion is %.20q and only 1.x is known", version)
	case len(id) == 0:
		return "it has no id"
	case len(typ) == 0:
		return "it has no type"
	case len(source) == 0:
		return "it has no source"
	}
	return tooLong("id", id) + tooLong("type", typ) + tooLong("source", source)
}

func tooLong(name string, v []byte) string {
	if len(v) <= MaxField {
		return ""
	}
	return fmt.Sprintf("its %s has %d bytes, at most %d are taken", name, len(v), MaxField)
}

// ceAttributes takes over attributes that were found to be there.
func (p *parsed) ceAttributes() (problem string) {
	p.id, p.typ, p.source = p.ceID, p.ceType, p.ceSource
	if len(p.ceTime) > 0 {
		t, err := time.Parse(time.RFC3339Nano, string(p.ceTime))
		if err != nil {
			return fmt.Sprintf("its time %.40q is no RFC 3339 time", p.ceTime)
		}
		p.createdAt = t
	}
	return ""
}

// structured reads a CloudEvent whose attributes and data are one JSON object.
func (p *parsed) structured(mediaType, value []byte) error {
	claim := fmt.Sprintf("a CloudEvent (content-type %.60s)", mediaType)
	if !bytes.EqualFold(mediaType, []byte("application/cloudevents+json")) {
		return &FormatError{claim, "only application/cloudevents+json is known"}
	}
	var data, data64 []byte
	problem := ""
	ok := object(value, func(key, v []byte) {
		var to *[]byte
		switch string(key) {
		case "specversion":
			to = &p.ceVersion
		case "id":
			to = &p.ceID
		case "type":
			to = &p.ceType
		case "source":
			to = &p.ceSource
		case "time":
			to = &p.ceTime
		case "data":
			data = v
			return
		case "data_base64":
			data64 = v
			return
		default:
			return
		}
		text, ok := optional(v)
		if !ok && problem == "" {
			problem = fmt.Sprintf("its %s is no string", key)
		}
		*to = text
	})
	switch {
	case !ok:
		problem = "its value is no JSON object"
	case problem == "":
		problem = ceProblem(p.ceVersion, p.ceID, p.ceType, p.ceSource)
	}
	if problem == "" {
		problem = p.ceAttributes()
	}
	if problem == "" {
		problem = p.data(data, data64)
	}
	if problem != "" {
		return &FormatError{claim, problem}
	}
	return nil
}

// data says where the content of a structured CloudEvent is.
func (p *parsed) data(data, data64 []byte) (problem string) {
	switch {
	case data64 == nil || string(data64) == "null":
		p.content, p.json = data, true
		if data == nil {
			p.content, p.json = nil, false
		}
		return ""
	case data != nil:
		return "it has both data and data_base64"
	}
	text, ok := unquote(data64)
	if !ok {
		return "its data_base64 is no string"
	}
	decoded, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return "its data_base64 is no base64"
	}
	p.content = nonNil(decoded)
	return ""
}

// looksLikeEnvelope is a look at the bytes before anything is parsed: nearly all raw events end here.
func looksLikeEnvelope(topic string, value []byte) bool {
	i := jsonlex.Space(value, 0)
	return i < len(value) && value[i] == '{' && bytes.Contains(value, []byte(`"payload"`)) &&
		bytes.Contains(value, []byte(`"content"`)) && bytes.Contains(value, []byte(topic))
}

var errNoEnvelope = errors.New("no envelope")

// envelope reads Reeve's own format. With a topic, the envelope has to name it.
func (p *parsed) envelope(topic string, value []byte) error {
	f := envelopeFields{parsed: p}
	switch ok := object(value, f.member); {
	case !ok:
		f.problem = "its value is no JSON object"
	case f.problem != "":
	case f.content == nil:
		f.problem = "it has no payload.content"
	}
	if topic != "" && (f.problem != "" || string(f.topic) != topic) {
		return errNoEnvelope
	}
	if f.problem != "" {
		return &FormatError{"an envelope (content-type " + ContentType + ")", f.problem}
	}
	p.content, p.json = f.content, true
	if len(p.typ) == 0 { // a header says it first
		p.typ = f.bodyType
	}
	return nil
}

// envelopeFields collects an envelope's members.
type envelopeFields struct {
	*parsed
	topic, content, bodyType []byte
	problem                  string
}

func (f *envelopeFields) member(key, v []byte) {
	switch string(key) {
	case "id":
		f.text(key, v, &f.id)
	case "topic":
		f.text(key, v, &f.topic)
	case "type":
		f.text(key, v, &f.bodyType)
	case "tenant_id":
		f.text(key, v, &f.tenant)
	case "correlation_id":
		f.text(key, v, &f.correlation)
	case "causation_id":
		f.text(key, v, &f.causation)
	case "source":
		f.text(key, v, &f.source)
	case "created_at":
		f.time(v)
	case "delivery_attempts":
		n, err := strconv.Atoi(string(v))
		if err != nil || n < 1 {
			f.fail("its delivery_attempts is no number from 1")
		} else {
			f.attempts = n
		}
	case "payload":
		if !object(v, f.payload) {
			f.fail("its payload is no object")
		}
	}
}

func (f *envelopeFields) payload(key, v []byte) {
	switch string(key) {
	case "content":
		f.content = v
	case "webhook":
		f.text(key, v, &f.webhook)
	case "reply_to":
		f.text(key, v, &f.replyTo)
	}
}

// text takes a string over; null leaves what a header said.
func (f *envelopeFields) text(key, v []byte, to *[]byte) {
	s, ok := optional(v)
	switch {
	case !ok:
		f.fail(fmt.Sprintf("its %s is no string", key))
	case len(s) > MaxField:
		f.fail(tooLong(string(key), s))
	case s != nil:
		*to = s
	}
}

// time takes created_at: Unix seconds, or an RFC 3339 string.
func (f *envelopeFields) time(v []byte) {
	if string(v) == "null" {
		return
	}
	if s, ok := unquote(v); ok {
		t, err := time.Parse(time.RFC3339Nano, string(s))
		if err != nil {
			f.fail("its created_at is no RFC 3339 time")
		}
		f.createdAt = t
		return
	}
	sec, err := strconv.ParseFloat(string(v), 64)
	if err != nil || sec < -1e11 || sec > 1e11 {
		f.fail("its created_at is no time in Unix seconds")
		return
	}
	f.createdAt, f.created = time.UnixMicro(int64(sec*1e6)).UTC(), v
}

func (f *envelopeFields) fail(problem string) {
	if f.problem == "" {
		f.problem = problem
	}
}

// object scans a JSON object with nothing around it but space.
func object(b []byte, member func(key, value []byte)) bool {
	i := jsonlex.Space(b, 0)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	i = skipObject(b, i+1, maxDepth-1, member)
	return i >= 0 && jsonlex.Space(b, i) == len(b)
}

// optional is the text of a string, or nil for null.
func optional(v []byte) (text []byte, ok bool) {
	if string(v) == "null" {
		return nil, true
	}
	return unquote(v)
}

func hasPrefixFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && bytes.EqualFold(b[:len(prefix)], []byte(prefix))
}
