package instance

import (
	"fmt"
	"time"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/stdio"
	"github.com/reeve-run/reeve/pkg/topics"
)

// What an attempt may publish, in records and in bytes: its transaction lives seconds at most.
const (
	maxPublished      = 10_000
	maxPublishedBytes = 32 << 20
)

// message takes what a program sends of a task that runs. Of one that hasn't announced that it sends such messages it is
// output like any other.
func (s *session) message(a stdio.Answer) {
	s.mu.Lock()
	c, able := s.calls[a.ID], s.abilities
	s.mu.Unlock()
	switch {
	case !a.HasID, a.Kind == stdio.KindProgress && !able.Progress, a.Kind == stdio.KindPublish && !able.Publish:
		s.instance.output(a.Result, false)
	case c == nil: // its attempt has ended
	case a.Kind == stdio.KindProgress:
		s.progress(c, a.Result)
	default:
		s.publish(c, a.Result)
	}
}

// progress notes how far an attempt has come. One without another limit begins its time anew.
func (s *session) progress(c *call, message []byte) {
	p, err := stdio.ParseProgress(message)
	if err != nil {
		s.instance.output(message, false)
		return
	}
	s.mu.Lock()
	if c.attempt.Idle && !c.interrupted && !c.timedOut && !c.deadline.IsZero() {
		c.deadline = time.Now().Add(c.attempt.Timeout)
	}
	s.mu.Unlock()
	c.attempt.Progress(p.Fraction, p.Message, s.instance.id)
}

// publish keeps a record until its attempt completes. What can't be published fails the attempt, however it ends.
func (s *session) publish(c *call, message []byte) {
	if c.event == nil {
		e, _ := event.OfTask(s.instance.cfg.Agent.Topic, c.attempt.Record) // one with a flawed format says what its headers say
		c.event = &e
	}
	r, err := stdio.ParsePublication(message, *c.event, s.instance.cfg.Agent.Ref())
	if err == nil {
		err = c.mayPublish(r.Topic, len(r.Key)+len(r.Value), s.instance.cfg.Names)
	}
	if err != nil {
		c.refused = err
		return
	}
	c.published = append(c.published, r)
	c.size += len(r.Key) + len(r.Value)
}

// mayPublish says what keeps a record from being published with the attempt.
func (c *call) mayPublish(topic string, size int, names topics.Names) error {
	if err := spec.CheckTopic(topic); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	switch {
	case names.Reserved(topic):
		return fmt.Errorf("publish: %s is one of Reeve's own topics, which nobody else may write: name a topic of yours", topic)
	case len(c.published) >= maxPublished:
		return fmt.Errorf("publish: an attempt publishes at most %d records", maxPublished)
	case c.size+size > maxPublishedBytes:
		return fmt.Errorf("publish: an attempt publishes at most %d bytes", maxPublishedBytes)
	}
	return nil
}
