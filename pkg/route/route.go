package route

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// maxMessage is how many bytes of an error message ride along.
const maxMessage = 4 << 10

// Router makes an agent's tasks. It is for one goroutine.
type Router struct {
	topic, topicID string
	life           int64
	agent          []byte
	target         string
}

// New is a router for an agent. topicID is the UUID of its user topic, or "" where it isn't known.
func New(names topics.Names, a *spec.Agent, topicID string) *Router {
	return &Router{topic: a.Topic, topicID: topicID, life: a.Life, agent: []byte(a.Ref()), target: names.Tasks(a.Topic, a.Name)}
}

// Tasks makes the task records of a batch, in its order, each for its task partition (see Partition and Spread). Keys,
// values and the user's headers are shared with the batch. now becomes the records' timestamp: when they were
// dispatched.
func (r *Router) Tasks(batch []*kgo.Record, partitions []int32, now time.Time) []*kgo.Record {
	out := make([]*kgo.Record, len(batch))
	slab := make([]kgo.Record, len(batch))
	headers := newHeaderSlab(batch)
	for i, rec := range batch {
		headers.begin()
		r.headers(&headers, rec)
		slab[i] = kgo.Record{
			Topic:     r.target,
			Partition: partitions[i],
			Key:       rec.Key,
			Value:     rec.Value,
			Headers:   headers.end(),
			Timestamp: now,
		}
		out[i] = &slab[i]
	}
	return out
}

func (r *Router) headers(h *headerSlab, rec *kgo.Record) {
	for _, header := range rec.Headers {
		if !reserved(header.Key) {
			h.add(header.Key, header.Value)
		}
	}
	e, err := event.Recognise(r.topic, rec)
	h.add(task.HeaderAgent, r.agent)
	origin := task.Origin{Topic: r.topic, Partition: rec.Partition, Offset: rec.Offset, TopicID: r.topicID, Life: r.life}
	h.addBytes(task.HeaderOrigin, origin.AppendHeader)
	h.add(task.HeaderAttempt, firstAttempt())
	h.addBytes(task.HeaderEvent, func(b []byte) []byte {
		return append(append(strconv.AppendInt(b, rec.Timestamp.UnixMilli(), 10), ' '), e.ID...)
	})
	h.addText(task.HeaderCorrelationID, e.CorrelationID)
	h.addText(task.HeaderCausationID, e.CausationID)
	h.addText(task.HeaderTenantID, e.TenantID)
	h.addText(task.HeaderSource, e.Source)
	h.addText(task.HeaderReplyTo, e.ReplyTo)
	h.addText(task.HeaderWebhook, e.Webhook)
	h.addText(task.HeaderType, e.Type)
	if err != nil {
		h.addText(task.HeaderErrorClass, string(task.ClassInvalidInput))
		h.addText(task.HeaderErrorMessage, clip(err.Error()))
	}
}

// clip bounds a message.
func clip(message string) string {
	return strings.ToValidUTF8(message[:min(len(message), maxMessage)], "")
}

func firstAttempt() []byte { return []byte{'1'} }

// reserved reports whether a header's key is Reeve's.
func reserved(key string) bool {
	const prefix = "reeve-"
	return len(key) >= len(prefix) && strings.EqualFold(key[:len(prefix)], prefix)
}

// Retry moves a due retry to its agent's task topic: everything as it stands, the partition by the rule of first
// deliveries.
func Retry(names topics.Names, a *spec.Agent, spread *Spread, rec *kgo.Record, now time.Time) *kgo.Record {
	return &kgo.Record{
		Topic:     names.Tasks(a.Topic, a.Name),
		Partition: spread.Partition(rec.Key, a.Partitions),
		Key:       rec.Key,
		Value:     rec.Value,
		Headers:   rec.Headers,
		Timestamp: now,
	}
}

// Header is the value of a record's header, "" where there is none. Of several the last counts.
func Header(rec *kgo.Record, key string) string {
	for i := len(rec.Headers) - 1; i >= 0; i-- {
		if rec.Headers[i].Key == key {
			return string(rec.Headers[i].Value)
		}
	}
	return ""
}

// Spread chooses partitions. Records without a key go round all of them. The zero value is ready; it is for one
// goroutine.
type Spread struct{ next uint32 }

// Partition is the partition of a record with this key; nil means that it has none.
func (s *Spread) Partition(key []byte, partitions int32) int32 {
	if key != nil {
		return Partition(key, partitions)
	}
	s.next++
	return int32(s.next % uint32(partitions))
}

// An Ending is how a task ends that no worker runs.
type Ending struct {
	Outcome task.Outcome
	Settled task.Settled
	Class   task.Class
	Message string
	Node    string // who settles it
	// Begun is the number of the last attempt that began, where it is higher than the record tells.
	Begun int
}

// Outcome is the final record of a task that a dispatcher settles itself. rec is a task or retry record.
func Outcome(names topics.Names, rec *kgo.Record, end Ending, now time.Time) (*kgo.Record, error) {
	origin, err := task.ParseOrigin(Header(rec, task.HeaderOrigin))
	if err != nil {
		return nil, fmt.Errorf("settle a task: %w", err)
	}
	begun, _ := strconv.Atoi(Header(rec, task.HeaderAttempt)) // the record carries the number of the attempt to come
	published, _, _ := strings.Cut(Header(rec, task.HeaderEvent), " ")
	if published == "" {
		published = "0"
	}
	out := &kgo.Record{
		Topic:     names.Outcomes(),
		Partition: hop.PartitionOf([]byte(Header(rec, task.HeaderAgent))),
		Key:       []byte(origin.ID()),
		Value:     errorValue(end),
		Timestamp: now,
	}
	add := func(key, value string) {
		if value != "" {
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
		}
	}
	redrives := Header(rec, task.HeaderRedrives)
	if redrives == "" {
		redrives = "0"
	}
	add(task.HeaderAgent, Header(rec, task.HeaderAgent))
	add(task.HeaderOrigin, Header(rec, task.HeaderOrigin))
	add(task.HeaderAttempt, strconv.Itoa(max(begun-1, end.Begun, 0)))
	add(task.HeaderOutcome, string(end.Outcome))
	add(task.HeaderSettled, string(end.Settled))
	add(task.HeaderRedrives, redrives)
	add(task.HeaderOrder, Header(rec, task.HeaderOrder))
	add(task.HeaderFinal, "true")
	add(task.HeaderEvent, Header(rec, task.HeaderEvent))
	add(task.HeaderTimes, published+" "+strconv.FormatInt(now.UnixMilli(), 10)+" 0 0")
	add(task.HeaderRunner, end.Node+" ")
	add(task.HeaderCorrelationID, Header(rec, task.HeaderCorrelationID))
	add(task.HeaderErrorClass, string(end.Class))
	add(task.HeaderErrorMessage, end.Message)
	return out, nil
}
