package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

// What an attempt publishes goes where its author says, perhaps a topic that an event named. A destination that refuses it
// must hold up neither other tasks nor, by waiting, the partition: it fails the attempt, which is retried and
// dead-lettered like any other.

// withPublished adds the topics that a result publishes to.
func withPublished(route string, published []*kgo.Record) string {
	if len(published) == 0 {
		return route
	}
	topics := make([]string, 0, len(published))
	for _, r := range published {
		topics = append(topics, r.Topic)
	}
	slices.Sort(topics)
	return via(route, strings.Join(slices.Compact(topics), separator))
}

// checkPublished fails a completed attempt that publishes to a topic which isn't there, or of which a reply has shown that it
// can't be written.
func (e *Engine) checkPublished(ctx context.Context, s *slot) {
	for _, r := range s.published() {
		if t := e.lookUp(ctx, r.Topic, r.Key); t != untroubled {
			e.mu.Lock()
			reason := error(kerr.UnknownTopicOrPartition)
			switch t {
			case troubleDenied:
				reason = kerr.TopicAuthorizationFailed
			case troubleDown:
				reason = kerr.NotEnoughReplicas
			}
			s.result = unpublished(s.result, r.Topic, reason)
			e.weigh(s, s.result)
			e.decide(s)
			e.mu.Unlock()
			return
		}
	}
}

// unpublished is the result of an attempt whose publishing to a topic was refused.
func unpublished(r Result, topic string, err error) Result {
	failed := Result{Outcome: task.Failed, Instance: r.Instance}
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		failed.Class = task.ClassResultTooLarge
		failed.Message = fmt.Sprintf("a record that the agent published is larger than the topic %s takes: publish less, or raise its max.message.bytes", topic)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		failed.Class = task.ClassDependency
		failed.Message = fmt.Sprintf("the topic %s, which the agent published to, doesn't exist: create it", topic)
	case errors.Is(err, kerr.NotEnoughReplicas):
		failed.Class = task.ClassDependency
		failed.Message = fmt.Sprintf("the topic %s, which the agent published to, has no brokers that take records", topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		failed.Class = task.ClassDependency
		failed.Message = fmt.Sprintf("the topic %s, which the agent published to, may not be written: grant the right to write it", topic)
	default:
		failed.Class = task.ClassPermanent
		failed.Message = fmt.Sprintf("the topic %s refused what the agent published: %v", topic, err)
	}
	return failed
}
