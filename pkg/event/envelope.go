package event

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/reeve-run/reeve/pkg/jsonlex"
)

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
