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
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/reeve-run/reeve/pkg/client"
)

// A batch is published by one request. Batches go one after the other, so that a file's order is its topic's.
const (
	batchEvents = 500
	batchBytes  = 4 << 20
)

// maxLine bounds a line of a file; no broker takes a record of this size.
const maxLine = 64 << 20

// maxComplaints is how many bad lines are told before the rest is only counted.
const maxComplaints = 10

func (c *command) publishFile(ctx context.Context, cl *client.ClientWithResponses, topic string, e eventFlags) error {
	open, err := c.opener(e.ndjson)
	if err != nil {
		return failure(Failed, "read --ndjson: %w", err)
	}
	total, err := c.checkFile(open, topic, e)
	if err != nil {
		return err
	}
	started := time.Now()
	bar := c.progress(total)
	published, err := c.publishLines(ctx, cl, open, topic, e, bar)
	bar.end()
	took := time.Since(started)
	if err != nil {
		return fmt.Errorf("published %d of %d events to %s, then: %w", published, total, topic, err)
	}
	summary := map[string]any{"topic": topic, "published": published, "seconds": took.Seconds()}
	return c.write(summary, func() {
		_, _ = fmt.Fprintf(c.Out, "published %d events to %s in %.1f s\n", published, topic, took.Seconds())
	})
}

// opener gives a way to read a file twice; standard input is kept in memory for that.
func (c *command) opener(path string) (func() (io.ReadCloser, error), error) {
	if path != "-" {
		return func() (io.ReadCloser, error) { return os.Open(path) }, nil
	}
	b, err := io.ReadAll(c.In)
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }, err
}

// eachLine calls do for every line that isn't blank, with its number.
func eachLine(open func() (io.ReadCloser, error), do func(number int, line []byte) error) error {
	r, err := open()
	if err != nil {
		return failure(Failed, "read --ndjson: %w", err)
	}
	defer func() { _ = r.Close() }()
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	number := 0
	for s.Scan() {
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

// checkFile counts the events of a file, and refuses one with a line that is none.
func (c *command) checkFile(open func() (io.ReadCloser, error), topic string, e eventFlags) (int, error) {
	total, bad := 0, 0
	err := eachLine(open, func(number int, line []byte) error {
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

// publishLines publishes a file's events batch by batch.
func (c *command) publishLines(ctx context.Context, cl *client.ClientWithResponses, open func() (io.ReadCloser, error), topic string, e eventFlags, bar *progress) (int, error) {
	published, size := 0, 0
	var batch []client.Event
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		n, err := publishBatch(ctx, cl, batch)
		published += n
		bar.add(n)
		batch, size = batch[:0], 0
		return err
	}
	err := eachLine(open, func(_ int, line []byte) error {
		ev, err := e.line(topic, line)
		if err != nil {
			return fmt.Errorf("the file changed while it was read: %w", err)
		}
		if len(batch) == batchEvents || len(batch) > 0 && size+len(line) > batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, size = append(batch, ev), size+len(line)
		return nil
	})
	if err == nil {
		err = flush()
	}
	return published, err
}

func publishBatch(ctx context.Context, cl *client.ClientWithResponses, batch []client.Event) (int, error) {
	answer, err := cl.PublishEventsWithResponse(ctx, client.PublishEventsJSONRequestBody{Events: batch})
	if err != nil {
		return 0, err
	}
	for _, item := range answer.JSON202.Items {
		if item.Error != nil {
			return answer.JSON202.Published, &client.ProblemError{Problem: *item.Error}
		}
	}
	return answer.JSON202.Published, nil
}

// progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	container *mpb.Progress
	bar       *mpb.Bar
}

func (c *command) progress(total int) *progress {
	if !c.Terminal {
		return &progress{}
	}
	p := mpb.New(mpb.WithOutput(c.Err), mpb.WithWidth(40))
	bar := p.AddBar(int64(total),
		mpb.PrependDecorators(decor.CountersNoUnit("%d / %d events")),
		mpb.AppendDecorators(decor.Percentage(), decor.AverageSpeed(0, " %.0f/s")))
	return &progress{p, bar}
}

func (p *progress) add(n int) {
	if p.bar != nil {
		p.bar.IncrBy(n)
	}
}

func (p *progress) end() {
	if p.bar != nil {
		p.bar.Abort(false) // a finished bar stays as it is
		p.container.Wait()
	}
}
