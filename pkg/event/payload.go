package event

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Params is what a payload says beside the event.
type Params struct {
	Topic string // the agent's
	Agent string // its name
	// Consumer names who runs the task.
	Consumer string
	// Attempt is the attempt's number, from 1. What the envelope says of deliveries before is added to it.
	Attempt int
	// Variables is a JSON object on one line; nil means {}.
	Variables []byte
}

// AppendPayload appends the payload of a task for its agent: one flat JSON object on one line, in UTF-8. r is the task's
// record. Content that isn't JSON is base64, and content_encoding says so. The error is a *FormatError; dst is returned
// unchanged then.
func AppendPayload(dst []byte, r *kgo.Record, params Params) ([]byte, error) {
	var p parsed
	if err := p.parse(params.Topic, r); err != nil {
		return dst, err
	}
	ms, id := p.published(r)
	dst = append(dst, `{"content":`...)
	dst, encoded := p.appendContent(dst)
	if encoded {
		dst = append(dst, `,"content_encoding":"base64"`...)
	}
	dst = appendString(append(dst, `,"topic":`...), params.Topic)
	dst = append(dst, `,"task_id":`...)
	if len(id) > 0 {
		dst = appendString(dst, id)
	} else {
		dst = appendString(dst, DefaultID(params.Topic, r.Partition, r.Offset))
	}
	dst = appendOptional(append(dst, `,"correlation_id":`...), p.correlation)
	dst = appendOptional(append(dst, `,"causation_id":`...), p.causation)
	dst = appendOptional(append(dst, `,"tenant_id":`...), p.tenant)
	dst = appendOptional(append(dst, `,"source":`...), p.source)
	dst = appendOptional(append(dst, `,"reply_to":`...), p.replyTo)
	dst = appendOptional(append(dst, `,"webhook":`...), p.webhook)
	dst = strconv.AppendInt(append(dst, `,"delivery_attempts":`...), int64(params.Attempt)+int64(p.attempts)-1, 10)
	dst = append(dst, `,"created_at":`...)
	dst = p.appendCreated(dst, ms)
	dst = appendString(append(dst, `,"agent":`...), params.Agent)
	dst = appendString(append(dst, `,"processing_consumer":`...), params.Consumer)
	dst = append(dst, `,"variables":`...)
	if params.Variables == nil {
		dst = append(dst, "{}"...)
	}
	return append(append(dst, params.Variables...), '}'), nil
}

// published gives when an event was published, in Unix milliseconds, and its id: as the dispatcher noted them, else as the
// record itself says.
func (p *parsed) published(r *kgo.Record) (ms int64, id []byte) {
	if before, after, ok := bytes.Cut(p.event, []byte(" ")); ok {
		if ms, err := strconv.ParseInt(string(before), 10, 64); err == nil {
			return ms, after
		}
	}
	return r.Timestamp.UnixMilli(), p.id
}

// appendContent appends the content as one JSON value on one line, and reports whether that is base64 of bytes.
func (p *parsed) appendContent(dst []byte) (_ []byte, encoded bool) {
	b := p.content
	switch {
	case b == nil:
		return append(dst, "null"...), false
	case (p.json || valid(b)) && utf8.Valid(b):
		start := len(dst)
		dst = append(dst, b...)
		oneLine(dst[start:])
		return dst, false
	}
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"'), true
}

// oneLine puts JSON on one line. Line ends in it can only stand between its tokens, where a space means the same.
func oneLine(b []byte) {
	for _, end := range []byte{'\n', '\r'} {
		for i := bytes.IndexByte(b, end); i >= 0; {
			b[i] = ' '
			next := bytes.IndexByte(b[i:], end)
			if next < 0 {
				break
			}
			i += next
		}
	}
}

// appendCreated appends Unix seconds.
func (p *parsed) appendCreated(dst []byte, ms int64) []byte {
	if p.created != nil {
		return append(dst, p.created...)
	}
	if !p.createdAt.IsZero() {
		ms = p.createdAt.UnixMilli()
	}
	return strconv.AppendFloat(dst, float64(ms)/1000, 'f', -1, 64)
}

func appendOptional(dst, s []byte) []byte {
	if len(s) == 0 {
		return append(dst, "null"...)
	}
	return appendString(dst, s)
}

// appendString appends a JSON string. What isn't UTF-8 becomes U+FFFD.
func appendString[S []byte | string](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r != utf8.RuneError || size != 1 {
				i += size
				continue
			}
			dst = append(append(dst, s[start:i]...), `\ufffd`...)
		} else {
			dst = appendEscaped(append(dst, s[start:i]...), c)
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

func appendEscaped(dst []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}
