package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

// What an attempt may publish, in records and in bytes: its transaction lives seconds at most.
const (
	maxPublished      = 10_000
	maxPublishedBytes = 32 << 20
)

// Task is one attempt to run an event for an agent. Its methods are safe for concurrent use.
type Task struct {
	agent   *spec.Agent
	names   topics.Names
	record  *kgo.Record
	attempt int
	run     *worker.Attempt // nil where it isn't one
	encoded bool            // the result is known to be JSON

	mu        sync.Mutex
	event     *event.Event
	stamps    []kgo.RecordHeader // on all that is published
	published []*kgo.Record
	size      int // of published, in bytes
	ended     bool
}

// Record is the task's record: the event's key and value byte by byte, the headers that came with it, and Reeve's. It must
// not be changed.
func (t *Task) Record() *kgo.Record { return t.record }

// Key is the event's; nil where it has none. It must not be changed.
func (t *Task) Key() []byte { return t.record.Key }

// Header is the value of a header of the record, "" where there is none; of several the last counts. The user's headers are
// there as they came, traceparent among them.
func (t *Task) Header(key string) string { return route.Header(t.record, key) }

// Agent is the topic and the name of the agent that the task is for.
func (t *Task) Agent() (topic, name string) { return t.agent.Topic, t.agent.Name }

// Topic is the event's.
func (t *Task) Topic() string { return t.agent.Topic }

// DeliveryAttempts is the number of this attempt, from 1.
func (t *Task) DeliveryAttempts() int { return t.attempt }

// TaskID is where the event stands, topic/partition/offset: the same in every attempt, and for every agent.
func (t *Task) TaskID() string { return t.Origin().ID() }

// Origin is where the event stands.
func (t *Task) Origin() task.Origin {
	if o, err := task.ParseOrigin(t.Header(task.HeaderOrigin)); err == nil {
		return o
	}
	return task.Origin{Topic: t.record.Topic, Partition: t.record.Partition, Offset: t.record.Offset}
}

// ID is the event's: its envelope's or CloudEvent's, else <topic>:<partition>:<offset>.
func (t *Task) ID() string { return t.says().ID }

// Type is the event's type, "" where it has none; so are the others.
func (t *Task) Type() string { return t.says().Type }

// CorrelationID tells what belongs together.
func (t *Task) CorrelationID() string { return t.says().CorrelationID }

// CausationID is the id of the event that this one follows from.
func (t *Task) CausationID() string { return t.says().CausationID }

// TenantID is whose event it is.
func (t *Task) TenantID() string { return t.says().TenantID }

// Source is where the event came from.
func (t *Task) Source() string { return t.says().Source }

// ReplyTo is the topic that the result goes to.
func (t *Task) ReplyTo() string { return t.says().ReplyTo }

// Webhook is the URL that the result goes to.
func (t *Task) Webhook() string { return t.says().Webhook }

// CreatedAt is when the event was made, as it says itself, else when it was published.
func (t *Task) CreatedAt() time.Time { return t.says().CreatedAt }

// says reads the event's metadata when it is first asked for.
func (t *Task) says() event.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.event == nil {
		e, _ := event.OfTask(t.agent.Topic, t.record) // one with a flawed format says what its headers say
		t.event = &e
	}
	return *t.event
}

// Decode decodes the event's content as JSON into v, a pointer. For a *[]byte it is the content as it came. The error is
// an Error of class invalid_input.
func (t *Task) Decode(v any) error {
	content, known, err := event.Content(t.agent.Topic, t.record)
	if err != nil {
		return InvalidInput(err)
	}
	if raw, ok := v.(*[]byte); ok {
		*raw = content
		return nil
	}
	if content == nil {
		content = []byte("null")
	}
	if err := json.Unmarshal(content, v); err != nil {
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) && !known {
			return InvalidInput(fmt.Errorf("the event's content is no JSON: %w", err))
		}
		return InvalidInput(fmt.Errorf("the event's content doesn't fit: %w", err))
	}
	return nil
}

// Progress says how far the attempt has come: fraction is the share that is done, from 0 to 1, and a negative one says
// nothing of it; message is for people. It is shown with the task, once a second at most. Where the agent's RequestTimeout
// is infinite, its ReclaimIdle counts from the last call of this.
func (t *Task) Progress(fraction float64, message string) {
	var f *float64
	if fraction >= 0 {
		fraction = min(fraction, 1)
		f = &fraction
	}
	if t.run != nil {
		t.run.Progress(f, message, "")
	}
}

// Publish publishes records together with the end of this attempt: they become visible with its outcome, in one
// transaction, or not at all if the attempt fails. The record's key chooses its partition. A topic that refuses them (it
// doesn't exist, say) makes the attempt a failed one. A Message gives such a record. The records must not be changed
// afterwards.
//
// The error is of class permanent: a record names no topic or one of Reeve's own, there are more than 10,000 or more than
// 32 MiB of them, or the attempt has ended. Then none of these is published.
func (t *Task) Publish(rs ...*kgo.Record) error {
	for _, r := range rs {
		if err := spec.CheckTopic(r.Topic); err != nil {
			return Permanent(fmt.Errorf("publish: %w", err))
		}
		if t.names.Reserved(r.Topic) {
			return Permanent(fmt.Errorf("publish: %s is one of Reeve's own topics, which nobody else may write: name a topic of yours", r.Topic))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	rs = stamped(rs, t.stamps)
	size := 0
	for _, r := range rs {
		size += sizeOf(r)
	}
	switch {
	case t.ended:
		return Permanent(errors.New("publish: the attempt has ended"))
	case len(t.published)+len(rs) > maxPublished:
		return Permanent(fmt.Errorf("publish: an attempt publishes at most %d records", maxPublished))
	case t.size+size > maxPublishedBytes:
		return Permanent(fmt.Errorf("publish: an attempt publishes at most %d bytes", maxPublishedBytes))
	}
	t.published = append(t.published, rs...)
	t.size += size
	return nil
}

// Stamp gives headers to every record that the attempt publishes from now on, but to those that have one of that key
// themselves: for a Middleware, whose trace is to go on there.
func (t *Task) Stamp(hs ...kgo.RecordHeader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stamps = append(t.stamps, hs...)
}

// stamped gives headers to copies of the records, which may be shared.
func stamped(rs []*kgo.Record, hs []kgo.RecordHeader) []*kgo.Record {
	if len(hs) == 0 {
		return rs
	}
	out := make([]*kgo.Record, len(rs))
	for i, r := range rs {
		own := slices.Clip(r.Headers)
		for _, h := range hs {
			if !slices.ContainsFunc(r.Headers, func(of kgo.RecordHeader) bool { return of.Key == h.Key }) {
				own = append(own, h)
			}
		}
		out[i] = &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: own, Timestamp: r.Timestamp}
	}
	return out
}

func sizeOf(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// end closes the task and gives what it publishes.
func (t *Task) end() []*kgo.Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	return t.published
}
