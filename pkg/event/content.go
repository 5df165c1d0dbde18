package event

import (
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Content is the content of a record of a user's topic or of a task topic; known says that it is JSON without a look at
// it. The bytes are the record's own wherever it holds them as they are. nil is no content at all. The error is a
// *FormatError.
func Content(topic string, r *kgo.Record) (content []byte, known bool, err error) {
	var p parsed
	if err := p.parse(topic, r); err != nil {
		return nil, false, err
	}
	return p.content, p.json, nil
}

// JSON is the content of a record of a user's topic or of a task topic where it is JSON, nil where it isn't or where there
// is none. The bytes are the record's own. The error is a *FormatError.
func JSON(topic string, r *kgo.Record) ([]byte, error) {
	content, known, err := Content(topic, r)
	if err != nil || !known && !valid(content) || !utf8.Valid(content) {
		return nil, err
	}
	return content, nil
}

// Type is the type of the task that a record of a user's topic becomes: the CloudEvent's, else that of the header
// reeve-type, else that of the envelope, else the text that is the content's member type; "" where none of them says one.
// The error is a *FormatError.
func Type(topic string, r *kgo.Record) (string, error) {
	var p parsed
	if err := p.parse(topic, r); err != nil {
		return "", err
	}
	if len(p.typ) > 0 || p.content == nil {
		return string(p.typ), nil
	}
	var member []byte
	if !Members(p.content, func(key, value []byte) {
		if string(key) == "type" {
			member = value
		}
	}) {
		return "", nil
	}
	text, ok := unquote(member)
	if !ok || len(text) > MaxField || !utf8.Valid(text) {
		return "", nil
	}
	return string(text), nil
}

// Members calls member for each key (without quotes, escapes as they stand) and value of a JSON object, in its order. It
// reports whether b is one object with nothing but space around it.
func Members(b []byte, member func(key, value []byte)) bool { return object(b, member) }
