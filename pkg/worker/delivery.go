package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/task"
)

// delivery is the engine's knowledge of its destinations: one that can't be written holds up only what goes there.
type delivery struct {
	apart    bool            // destinations get transactions of their own: a mixed one has failed
	waits    map[string]wait // destinations that failed, or were part of what failed, until they succeed
	dlqReady bool
	topics   userTopics
}

type wait struct {
	until time.Time
	pause time.Duration
	told  bool
}

const (
	pauseMin   = 100 * time.Millisecond
	pauseMax   = 10 * time.Second
	alertAfter = 2 * time.Second
)

// offsetsOnly is the destination of a transaction without outcomes.
const offsetsOnly = "\x00"

// admits reports whether a destination may be tried now. The outcomes topic, "", is on the way to every other.
func (d *delivery) admits(route string, now time.Time) bool {
	for r, w := range d.waits {
		if now.Before(w.until) && passes(route, r) {
			return false
		}
	}
	return true
}

// separator stands between the destinations of a route.
const separator = "\x00"

// passes reports whether a route has a destination on it, or is it. The outcomes topic is on all that lead anywhere.
func passes(route, destination string) bool {
	switch {
	case route == destination:
		return true
	case route == offsetsOnly:
		return false
	case destination == "":
		return true
	}
	for rest := route; rest != ""; {
		var part string
		if part, rest, _ = strings.Cut(rest, separator); part == destination {
			return true
		}
	}
	return false
}

// leads reports whether any of the routes has a destination on it.
func leads(routes map[string]bool, destination string) bool {
	for route := range routes {
		if passes(route, destination) {
			return true
		}
	}
	return false
}

// doubt keeps a destination apart until it has succeeded by itself.
func (d *delivery) doubt(route string) {
	if d.waits == nil {
		d.waits = map[string]wait{}
	}
	if _, known := d.waits[route]; !known {
		d.waits[route] = wait{}
	}
}

// postpone lets a destination wait, longer each time.
func (d *delivery) postpone(route string, now time.Time) {
	d.doubt(route)
	w := d.waits[route]
	w.pause = min(max(2*w.pause, pauseMin), pauseMax)
	w.until = now.Add(w.pause)
	d.waits[route] = w
}

// succeeded ends a destination's wait, and reports whether an alert is to be taken back.
func (d *delivery) succeeded(route string) (resolved bool) {
	return d.endWaits(func(r string) bool { return passes(route, r) })
}

// endWaits reports whether nothing waits any more that a person was told of. When nothing waits at all, destinations
// share transactions again.
func (d *delivery) endWaits(of func(route string) bool) (resolved bool) {
	for r, w := range d.waits {
		if of(r) {
			resolved = resolved || w.told
			delete(d.waits, r)
		}
	}
	if len(d.waits) == 0 {
		d.apart = false
	}
	for _, w := range d.waits {
		resolved = resolved && !w.told
	}
	return resolved
}

// routeOf names where a result goes besides the outcomes topic, all destinations together; "" is nowhere.
func (e *Engine) routeOf(s *slot) string {
	route := ""
	switch s.verdict.Settled {
	case task.SettledRetry:
		if s.keeps != nil {
			return ""
		}
		return e.cfg.Names.Retry(s.verdict.Delay)
	case task.SettledDLQ:
		route = e.dlq()
	}
	if len(s.header.webhook) > 0 {
		route = via(route, e.cfg.Names.Webhooks())
	}
	if s.replies() {
		route = via(route, string(s.header.replyTo))
	}
	return withPublished(route, s.published())
}

func via(route, destination string) string {
	if route == "" {
		return destination
	}
	return route + separator + destination
}

func (e *Engine) dlq() string { return e.cfg.Names.DLQ(e.cfg.Spec.Topic, e.cfg.Spec.Name) }

// address makes the records of a transaction, and the topics that they need. It reports false where a task turns out to
// keep its key that the transaction settles for good.
func (e *Engine) address(ctx context.Context, t *transaction) bool {
	asked := false // once a transaction: it may be for thousands of tasks
	for _, s := range t.batch {
		e.checkPublished(ctx, s)
		if s.keeps != nil && s.state != booked {
			return false
		}
		if s.verdict.Settled == task.SettledDLQ && !e.delivery.dlqReady && !asked {
			asked = true
			e.makeDLQ(ctx)
		}
		if s.replies() && s.verdict.Settled != task.SettledRetry {
			e.checkReply(ctx, s)
		}
	}
	t.writer, _ = e.writers.Get().(*writer)
	if t.writer == nil {
		t.writer = &writer{names: e.cfg.Names, node: e.cfg.Node, outcomes: e.cfg.Names.Outcomes(), dlq: e.dlq()}
	}
	e.mu.Lock()
	t.writer.agent = e.spec
	e.mu.Unlock()
	t.tx.Records, t.owners = t.writer.records(t.batch)
	return true
}

// written gives a transaction's memory back, once it is committed: of one that failed the client may still send something.
func (e *Engine) written(t *transaction) {
	t.writer.clear()
	e.writers.Put(t.writer)
	t.writer, t.tx.Records, t.owners = nil, nil, nil
}

// makeDLQ makes the dead-letter topic on first use. One that somebody else made needs no right to.
func (e *Engine) makeDLQ(ctx context.Context) {
	adm := kadm.NewClient(e.member.Client())
	if found, err := adm.ListTopics(ctx, e.dlq()); err == nil && found[e.dlq()].Err == nil && len(found[e.dlq()].Partitions) > 0 {
		e.delivery.dlqReady = true
		return
	}
	configs := map[string]*string{
		"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": kadm.StringPtr("-1"), "retention.bytes": kadm.StringPtr("-1"),
		"compression.type": kadm.StringPtr("producer"), "message.timestamp.type": kadm.StringPtr("CreateTime"),
	}
	if limit := e.recordLimit(ctx, adm); limit > 0 {
		configs["max.message.bytes"] = kadm.StringPtr(strconv.Itoa(limit + 64<<10))
	}
	if err := makeTopic(ctx, adm, e.cfg.Replication, e.dlq(), configs); err != nil {
		e.log.Warn("the dead-letter topic can't be made", slog.String("topic", e.dlq()), slog.Any("error", err))
		return
	}
	e.delivery.dlqReady = true
}

// recordLimit is the task topic's max.message.bytes, 0 if it can't be learnt.
func (e *Engine) recordLimit(ctx context.Context, adm *kadm.Client) int {
	rs, err := adm.DescribeTopicConfigs(ctx, e.cfg.Names.Tasks(e.cfg.Spec.Topic, e.cfg.Spec.Name))
	if err != nil {
		return 0
	}
	for _, r := range rs {
		for _, c := range r.Configs {
			if c.Key == "max.message.bytes" && c.Value != nil {
				return number([]byte(*c.Value))
			}
		}
	}
	return 0
}

// lookUp finds out whether a user's topic is there for what has a key, nil for none; where that is allowed, it makes it. It
// asks the broker once in a while.
func (e *Engine) lookUp(ctx context.Context, topic string, key []byte) trouble {
	if t, ok := e.delivery.topics.recall(topic, key); ok {
		return t
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	adm := kadm.NewClient(e.member.Client())
	ts, err := adm.ListTopics(ctx, topic)
	if err != nil {
		e.delivery.topics.unknown(topic)
		return untroubled // the transaction will tell
	}
	var create func() error
	if e.cfg.CreateReplyTopics {
		create = func() error { return makeTopic(ctx, adm, e.cfg.Replication, topic, nil) }
	}
	t := inspected(ts[topic], create)
	e.delivery.topics.learn(topic, t)
	return t
}

// resolved takes the alert of a destination back.
func (e *Engine) resolved(message string) {
	e.cfg.Alert(Alert{Kind: "destination_unwritable", Severity: "warning", Resolved: true, Message: message})
}

// resolve decides what becomes of tasks whose records were refused. It reports whether the rest may go at once.
func (e *Engine) resolve(t *transaction, refused *hop.RecordsError) bool {
	now := time.Now()
	held := map[string]error{}
	decided := map[*slot]bool{} // by another record of theirs
	for i, err := range refused.Refused {
		s, r := t.owners[i], t.tx.Records[i]
		if decided[s] {
			continue
		}
		decided[s] = true
		switch {
		case s.replies() && r.Topic == string(s.header.replyTo):
			if s.noReply = troubleOf(err); s.noReply.general() {
				e.delivery.topics.learn(r.Topic, s.noReply)
			}
		case r.Topic == e.cfg.Names.Webhooks():
			if errors.Is(err, kerr.MessageTooLarge) && !s.bare {
				s.bare = true
				continue
			}
			decided[s] = false
			held[r.Topic] = err
		case r.Topic == e.cfg.Names.Outcomes() && errors.Is(err, kerr.MessageTooLarge) && s.result.Outcome == task.Completed:
			s.result = Result{Outcome: task.Failed, Class: task.ClassResultTooLarge, Instance: s.result.Instance,
				Message: fmt.Sprintf("the result has %d bytes, the topic %s takes no record of that size: return less, or a reference", len(s.result.Value), r.Topic)}
			e.decide(s)
		case s.verdict.Settled == task.SettledDone && r.Topic != e.cfg.Names.Outcomes():
			s.result = unpublished(s.result, r.Topic, err)
			e.weigh(s, s.result)
			e.decide(s)
		case s.verdict.Settled == task.SettledRetry && r.Topic == e.routeOf(s) && errors.Is(err, kerr.MessageTooLarge):
			s.verdict = s.verdict.dead(e.policy) // its tier won't ever take it
		default:
			decided[s] = false
			held[r.Topic] = err
		}
	}
	for topic, err := range held {
		if topic == e.dlq() {
			e.delivery.dlqReady = false
		}
		e.hold(topic, err, now)
	}
	return true
}

// hold makes what goes to a topic wait. The outcomes topic is on everybody's way.
func (e *Engine) hold(topic string, err error, now time.Time) {
	e.delivery.apart = true
	route := topic
	if topic == e.cfg.Names.Outcomes() {
		route = ""
	}
	e.delivery.postpone(route, now)
	w := e.delivery.waits[route]
	if w.pause >= alertAfter && !w.told {
		w.told = true
		e.delivery.waits[route] = w
		e.cfg.Alert(Alert{Kind: "destination_unwritable", Severity: "critical",
			Message: fmt.Sprintf("%s can't be written (%v): the tasks that go there wait, nothing is lost; %s", topic, err, remedyFor(err))})
	}
}

// remedyFor says what to do about a topic that refuses records.
func remedyFor(err error) string {
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return "raise its max.message.bytes"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return "grant the right to write it, and to make it where it is missing"
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return "create the topic, or grant the right to"
	}
	return "create the topic or grant the right to write it"
}
