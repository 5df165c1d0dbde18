package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/reeve-run/reeve/pkg/client"
)

// maxLine bounds a line of a file; no broker takes a record of this size.
const maxLine = 64 << 20

// maxComplaints is how many bad lines are told before the rest is only counted.
const maxComplaints = 10

// opener gives a way to read a file twice; standard input is kept in memory for that.
func (c *command) opener(path string) (func() (io.ReadCloser, error), error) {
	if path != "-" {
		return func() (io.ReadCloser, error) { return os.Open(path) }, nil
	}
	b, err := io.ReadAll(c.In)
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }, err
}

// eachLine calls do for every line that isn't blank, with its number, until the context ends.
func eachLine(ctx context.Context, open func() (io.ReadCloser, error), do func(number int, line []byte) error) error {
	r, err := open()
	if err != nil {
		return failure(Failed, "read --ndjson: %w", err)
	}
	defer func() { _ = r.Close() }()
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	number := 0
	for s.Scan() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		number++
		if line := bytes.TrimSpace(s.Bytes()); len(line) > 0 {
			if err := do(number, line); err != nil {
				return err
			}
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return failure(Failed, "read --ndjson: line %d is longer than %d bytes", number+1, maxLine)
	}
	if s.Err() != nil {
		return failure(Failed, "read --ndjson: %w", s.Err())
	}
	return nil
}

// checkFile counts the events of a file from a line on, and refuses one with a line that is none.
func (c *command) checkFile(ctx context.Context, open func() (io.ReadCloser, error), topic string, e eventFlags) (int, error) {
	total, bad, last := 0, 0, 0
	err := eachLine(ctx, open, func(number int, line []byte) error {
		if last = number; number < e.fromLine {
			return nil
		}
		total++
		if _, err := e.line(topic, line); err != nil {
			if bad++; bad <= maxComplaints {
				c.say("%s:%d: %s", e.ndjson, number, err)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if e.fromLine > 1 && total == 0 {
		return 0, usage("%s has no event from line %d on: its last is in line %d", e.ndjson, e.fromLine, last)
	}
	if bad > 0 {
		return 0, failure(Failed, "%d of %d lines of %s are no events, nothing was published: write one JSON value a line", bad, total, e.ndjson)
	}
	return total, nil
}

// line makes an event of a line: of an envelope of this topic, or of a content.
func (e eventFlags) line(topic string, line []byte) (client.Event, error) {
	if err := checkJSON(line); err != nil {
		return client.Event{}, fmt.Errorf("is no JSON: %w", err)
	}
	var claim struct {
		Topic   *string `json:"topic"`
		Payload struct {
			Content json.RawMessage `json:"content"`
		} `json:"payload"`
	}
	if json.Unmarshal(line, &claim) != nil || claim.Topic == nil || *claim.Topic != topic || claim.Payload.Content == nil {
		return e.event(topic, bytes.Clone(line)), nil
	}
	strict := json.NewDecoder(bytes.NewReader(line))
	strict.DisallowUnknownFields()
	var ev client.Event
	if err := strict.Decode(&ev); err != nil {
		return client.Event{}, fmt.Errorf("claims to be an envelope: %w", err)
	}
	return e.fill(ev), nil
}

// fill adds what the command line says and the envelope doesn't.
func (e eventFlags) fill(ev client.Event) client.Event {
	for _, f := range []struct {
		field **string
		value string
	}{{&ev.Key, e.key}, {&ev.Type, e.kind}, {&ev.CorrelationId, e.correlation}, {&ev.CausationId, e.causation}, {&ev.TenantId, e.tenant},
		{&ev.Source, e.src}, {&ev.Payload.ReplyTo, e.replyTo}, {&ev.Payload.Webhook, e.webhook}} {
		if *f.field == nil {
			*f.field = given(f.value)
		}
	}
	return ev
}
