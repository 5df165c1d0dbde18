package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/client"
)

// A batch is published by one request. Batches go one after the other, so that a file's order is its topic's.
const (
	batchEvents = 500
	batchBytes  = 4 << 20
)

// batchWithin is how long a batch that is under way may take to its answer after an interrupt. The registry takes at
// most 20 s.
const batchWithin = 25 * time.Second

// delivery is what became of a file's events so far.
type delivery struct {
	Topic     string  `json:"topic"`
	Published int     `json:"published"` // that the registry has confirmed
	Total     int     `json:"total"`
	Seconds   float64 `json:"seconds"`
	// NextLine is where to go on; 0 where all is published.
	NextLine int `json:"next_line,omitempty"`
	// InDoubt are the first and the last line of a batch whose answer was lost: they may be published.
	InDoubt *span `json:"in_doubt,omitempty"`
	// NotTaken are lines before NextLine that the registry answered with an error.
	NotTaken []int `json:"not_taken,omitempty"`
	// Unconfirmed says that Kafka didn't answer for lines of NotTaken, so they may be published all the same.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
}

// span is some lines of a file, both ends counted.
type span struct {
	First  int `json:"first"`
	Last   int `json:"last"`
	Events int `json:"events"`
}

func (c *command) publishFile(ctx context.Context, cl *client.ClientWithResponses, topic string, e eventFlags) error {
	open, err := c.opener(e.ndjson)
	if errors.Is(err, context.Canceled) {
		return failure(Failed, "interrupted: nothing was published")
	}
	if err != nil {
		return failure(Failed, "read --ndjson: %w", err)
	}
	total, err := c.checkFile(ctx, open, topic, e)
	if errors.Is(err, context.Canceled) {
		return failure(Failed, "interrupted: nothing was published")
	}
	if err != nil {
		return err
	}
	started := time.Now()
	bar := c.progress(total)
	d := &delivery{Topic: topic, Total: total}
	err = c.publishLines(ctx, cl, open, e, bar, d)
	bar.end()
	d.Seconds = time.Since(started).Seconds()
	if err == nil {
		d.NextLine = 0
		return c.write(d, func() {
			_, _ = fmt.Fprintf(c.Out, "published %d events to %s in %.1f s\n", d.Published, topic, d.Seconds)
		})
	}
	if !c.forPeople() {
		if err := c.write(d, nil); err != nil {
			return err
		}
	}
	if errors.Is(err, context.Canceled) {
		return failure(Failed, "interrupted: %s", d.account(e.ndjson))
	}
	return fmt.Errorf("%w\n%s", err, d.account(e.ndjson))
}

// account says exactly what was published, and how to go on.
func (d *delivery) account(file string) string {
	said := fmt.Sprintf("published %d of %d events to %s", d.Published, d.Total, d.Topic)
	switch {
	case d.InDoubt != nil:
		return fmt.Sprintf("%s for certain; the answer for lines %d to %d (%d events) was lost, so they may be published: "+
			"look at the topic (`reeve bus inspect %s`), then go on with --from-line %d to publish them (again), or with --from-line %d to leave them out",
			said, d.InDoubt.First, d.InDoubt.Last, d.InDoubt.Events, d.Topic, d.InDoubt.First, d.InDoubt.Last+1)
	case len(d.NotTaken) > 0:
		again := fmt.Sprintf("sed -n '%s' %s | reeve publish %s --ndjson -", ranges(d.NotTaken), file, d.Topic)
		if file == "-" {
			again = "a file of these lines"
		}
		became := "were not taken"
		if d.Unconfirmed {
			became = "were not confirmed by Kafka and may be published or not"
		}
		return fmt.Sprintf("%s; of those before line %d, %d %s: publish them by `%s`, and go on with --from-line %d",
			said, d.NextLine, len(d.NotTaken), became, again, d.NextLine)
	}
	return fmt.Sprintf("%s, none of line %d or later: go on with --from-line %d", said, d.NextLine, d.NextLine)
}

// ranges writes line numbers as sed takes them: 3p;7,9p.
func ranges(lines []int) string {
	var parts []string
	for i := 0; i < len(lines); {
		j := i
		for j+1 < len(lines) && lines[j+1] == lines[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprintf("%dp", lines[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d,%dp", lines[i], lines[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ";")
}

// batch is events with the numbers of their lines.
type batch struct {
	events []client.Event
	lines  []int
	size   int
}

func (b *batch) add(number, size int, ev client.Event) {
	b.events, b.lines, b.size = append(b.events, ev), append(b.lines, number), b.size+size
}

func (b *batch) full(next int) bool {
	return len(b.events) == batchEvents || len(b.events) > 0 && b.size+next > batchBytes
}

// publishLines publishes a file's events batch by batch, and keeps account.
func (c *command) publishLines(ctx context.Context, cl *client.ClientWithResponses, open func() (io.ReadCloser, error), e eventFlags, bar *progress, d *delivery) error {
	var b batch
	d.NextLine = e.fromLine
	flush := func() error {
		if len(b.events) == 0 {
			return nil
		}
		if ctx.Err() != nil { // between batches, where nothing is half done
			return ctx.Err()
		}
		before := d.Published
		err := c.publishBatch(ctx, cl, b, d)
		bar.add(d.Published - before)
		b = batch{}
		return err
	}
	err := eachLine(ctx, open, func(number int, line []byte) error {
		if number < e.fromLine {
			return nil
		}
		ev, err := e.line(d.Topic, line)
		if err != nil {
			return failure(Failed, "the file changed while it was read: line %d %w", number, err)
		}
		if b.full(len(line)) {
			if err := flush(); err != nil {
				return err
			}
		}
		b.add(number, len(line), ev)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// publishBatch publishes a batch to its end, also where an interrupt comes meanwhile: cut off it would be in doubt.
func (c *command) publishBatch(ctx context.Context, cl *client.ClientWithResponses, b batch, d *delivery) error {
	whole, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		c.say("interrupted: waiting for the answer to the %d events that are under way", len(b.events))
		patience := time.NewTimer(batchWithin)
		defer patience.Stop()
		select {
		case <-patience.C:
			cancel()
		case <-whole.Done():
		}
	})
	defer func() {
		cancel()
		if !stop() {
			<-ended
		}
	}()
	answer, err := cl.PublishEventsWithResponse(whole, client.PublishEventsJSONRequestBody{Events: b.events})
	if err != nil {
		return d.lost(b, err)
	}
	return d.settle(b, answer.JSON202.Items)
}

// lost accounts for a batch without an answer for its events.
func (d *delivery) lost(b batch, err error) error {
	d.NextLine = b.lines[0]
	if !nothingTaken(err) {
		d.InDoubt = &span{b.lines[0], b.lines[len(b.lines)-1], len(b.lines)}
	}
	if errors.Is(err, context.Canceled) { // the patience after an interrupt is over
		return failure(Failed, "the registry didn't answer within %s of the interrupt", batchWithin)
	}
	return err
}

// nothingTaken reports whether an error says for certain that nothing was published: the registry refused the request, or
// never got it.
func nothingTaken(err error) bool {
	var problem *client.ProblemError
	if errors.As(err, &problem) {
		return problem.Status < http.StatusInternalServerError
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// settle accounts for a batch by what the registry answered for each event.
func (d *delivery) settle(b batch, items []client.PublishResult) error {
	var first error
	var refused []int
	doubt := false
	for i, item := range items {
		if item.Error == nil {
			d.Published++
			continue
		}
		if first == nil {
			first = fmt.Errorf("line %d: %w", b.lines[i], &client.ProblemError{Problem: *item.Error})
		}
		refused = append(refused, b.lines[i])
		doubt = doubt || item.Error.Status >= http.StatusInternalServerError
	}
	d.NextLine = b.lines[len(b.lines)-1] + 1
	switch {
	case first == nil:
		return nil
	case !doubt && slices.Equal(refused, b.lines[len(b.lines)-len(refused):]): // nothing behind the first was taken
		d.NextLine = refused[0]
	default:
		d.NotTaken, d.Unconfirmed = refused, doubt
	}
	return first
}
