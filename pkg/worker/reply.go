package worker

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/task"
)

// A reply goes where an event says. A topic that can't take it must neither fail the attempt, which has run, nor hold the
// partition up: the outcome says that the reply is undeliverable, and settles.
//
// A reply asks for no reply and no webhook itself, so replies alone never go in circles: from one there is no way on but an
// agent that publishes.

// trouble is why a topic can't take a reply.
type trouble uint8

const (
	untroubled trouble = iota
	troubleReserved
	troubleLoop
	troubleMissing
	troubleDenied
	troubleTooLarge
	troubleDown
	troubleRefused
)

func (t trouble) String() string {
	switch t {
	case troubleReserved:
		return "the topic is one of Reeve's own"
	case troubleLoop:
		return "the topic is the agent's own: the reply would be its next event"
	case troubleMissing:
		return "the topic doesn't exist"
	case troubleDenied:
		return "the topic may not be written: grant the right to write it"
	case troubleTooLarge:
		return "the reply is larger than the topic takes: raise its max.message.bytes"
	case troubleDown:
		return "the topic has no brokers that take records"
	case troubleRefused:
		return "the topic refused the reply"
	}
	return ""
}

// general reports whether a trouble is every reply's to the topic. One that is too large, or without the key that a
// compacted topic wants, says nothing of the next.
func (t trouble) general() bool { return t == troubleMissing || t == troubleDenied }

// troubleOf reads a broker's refusal.
func troubleOf(err error) trouble {
	switch {
	case err == nil:
		return untroubled
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return troubleTooLarge
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return troubleDenied
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InvalidTopicException):
		return troubleMissing
	}
	return troubleRefused
}

// replies reports whether the task's end is told to a topic.
func (s *slot) replies() bool { return len(s.header.replyTo) > 0 && s.noReply == untroubled }

// checkReply finds out whether the reply's topic can take it.
func (e *Engine) checkReply(ctx context.Context, s *slot) {
	topic := string(s.header.replyTo)
	if s.noReply = ownTrouble(e.cfg.Names.Reserved(topic), e.cfg.Spec.Topic, topic); s.noReply != untroubled {
		return
	}
	key := s.attempt.Record.Key
	if s.noReply = e.lookUp(ctx, topic, key); s.noReply != untroubled || e.waited(s) < replyPatience || !e.delivery.topics.look(topic) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	if l, lame := lameTopics(ctx, kadm.NewClient(e.member.Client()), topic)[topic]; lame {
		e.delivery.topics.learnLame(topic, l)
		s.noReply, _ = e.delivery.topics.recall(topic, key)
	}
}

// waited is the last pause of what goes where the task goes.
func (e *Engine) waited(s *slot) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.delivery.waits[e.routeOf(s)].pause
}

// replyPatience is the pause after a try to write to a reply topic from which on it is asked whether one can succeed at all:
// the first try that failed was for others as well, the second for those that go there.
const replyPatience = pauseMin

// message is the result's, or says how the task ended that has none.
func (s *slot) message() string {
	if s.result.Message == "" && s.verdict.Class == "" {
		return "the task was " + string(s.verdict.Outcome)
	}
	return s.result.Message
}

// content is a task's end as its reply tells it: the result, or an object that says what went wrong.
func (s *slot) content() json.RawMessage {
	switch {
	case s.verdict.Outcome != task.Completed:
		return errorJSON(s)
	case len(s.result.Value) == 0:
		return json.RawMessage("null")
	case !json.Valid(s.result.Value): // it goes as a string
		text, _ := json.Marshal(string(s.result.Value)) // strings always marshal
		return text
	}
	return s.result.Value
}

// reply makes the envelope that reply_to asked for. Its id is made of the task's and its round's, so that it is the same
// however often it is made.
func (w *writer) reply(s *slot) *kgo.Record {
	topic := string(s.header.replyTo)
	id := string(taskID(s.origin())) + "/" + w.agent.Name
	if n := s.header.round(); n > 0 {
		id += "/" + strconv.Itoa(n)
	}
	_, cause, _ := strings.Cut(string(s.header.event), " ")
	envelope := map[string]any{
		"id": id, "topic": topic,
		"payload":        map[string]any{"content": s.content(), "webhook": nil, "reply_to": nil},
		"tenant_id":      headerValue(s.attempt.Record, task.HeaderTenantID),
		"correlation_id": headerValue(s.attempt.Record, task.HeaderCorrelationID),
		"causation_id":   cause, "source": w.agent.Ref(), "created_at": float64(time.Now().UnixMilli()) / 1000, "delivery_attempts": 1,
	}
	value, _ := json.Marshal(envelope) // content is JSON, all else are texts and numbers
	return &kgo.Record{Topic: topic, Partition: hop.AnyPartition, Key: s.attempt.Record.Key, Value: value,
		Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(event.ContentType)}, {Key: task.HeaderOutcome, Value: outcomes[s.verdict.Outcome]}}}
}

// headerValue is a header as JSON has it: null when absent.
func headerValue(r *kgo.Record, key string) any {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return nil
}
