package worker

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Unrun tells of tasks that end without being run once more, such as one that is cancelled while it waits for a retry: for
// whoever settles them in a worker's place it makes what a worker would have made, webhooks and replies. What it makes
// belongs into the transaction of the outcome. A nil Unrun makes nothing. It is safe for concurrent use.
type Unrun struct {
	cfg UnrunConfig

	mu     sync.Mutex
	topics userTopics
	own    recent[uint64, trouble] // replies that their topics have refused for what they are, by their hash
	seed   maphash.Seed            // of these
	doubts map[string]time.Time    // since when transactions with replies to a topic have failed
}

// UnrunConfig configures an Unrun. All fields are required, but CreateReplyTopics and Replication.
type UnrunConfig struct {
	Names  topics.Names
	Client *kgo.Client // to look for topics with
	// CreateReplyTopics makes reply topics that don't exist; otherwise such replies are recorded as undeliverable.
	CreateReplyTopics bool
	// Replication of the topics that it makes. Defaults to the broker's default.
	Replication int16
}

// NewUnrun asks no broker yet.
func NewUnrun(cfg UnrunConfig) *Unrun {
	return &Unrun{cfg: cfg, seed: maphash.MakeSeed(), doubts: map[string]time.Time{}}
}

const (
	// lookLimit bounds a look for a topic, which the transaction waits for.
	lookLimit = 5 * time.Second
	// doubtAfter is how long transactions with a reply fail before brokers are asked whether its topic is to blame, and
	// doubtFor how long a failure is remembered: one alone may have been another's.
	doubtAfter = 3 * time.Second
	doubtFor   = time.Minute
)

// Ended gives the webhook and the reply of a task that ends so: its record, a task's or a retry's, and its final outcome are
// given. The outcome says then that the webhook is to come, or why there is no reply. There may be none of both.
func (u *Unrun) Ended(ctx context.Context, record, outcome *kgo.Record) (told []*kgo.Record) {
	if u == nil {
		return nil
	}
	s := &slot{}
	s.attempt.Record = record
	if s.header.read(record); len(s.header.webhook)+len(s.header.replyTo) == 0 {
		return nil
	}
	w := writer{names: u.cfg.Names, agent: &spec.Agent{}}
	s.endedAs(&w, outcome)
	add := func(key, value string) {
		outcome.Headers = append(outcome.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	if len(s.header.replyTo) > 0 {
		reply := w.reply(s)
		if s.noReply = u.trouble(ctx, w.agent.Topic, reply); s.noReply == untroubled {
			told = append(told, reply)
		} else {
			add(task.HeaderReply, task.ReplyUndeliverable)
			add(task.HeaderReplyReason, s.noReply.String())
		}
	}
	if len(s.header.webhook) > 0 {
		told = append(told, w.webhook(s))
		add(task.HeaderWebhookState, task.WebhookPending)
	}
	return told
}

// endedAs takes over what an outcome says of the task's end.
func (s *slot) endedAs(w *writer, outcome *kgo.Record) {
	for _, h := range outcome.Headers {
		value := string(h.Value)
		switch h.Key {
		case task.HeaderAgent:
			w.agent.Topic, w.agent.Name, _ = strings.Cut(value, "/")
		case task.HeaderRunner:
			w.node, _, _ = strings.Cut(value, " ")
		case task.HeaderAttempt:
			s.attempt.Number = number(h.Value)
		case task.HeaderOutcome:
			s.verdict.Outcome = task.Outcome(value)
		case task.HeaderSettled:
			s.verdict.Settled = task.Settled(value)
		case task.HeaderErrorClass:
			s.verdict.Class = task.Class(value)
		case task.HeaderErrorMessage:
			s.result.Message = value
		}
	}
	s.ended = outcome.Timestamp
}

// trouble is why an agent's reply can't be written.
func (u *Unrun) trouble(ctx context.Context, agentTopic string, reply *kgo.Record) trouble {
	if t := ownTrouble(u.cfg.Names.Reserved(reply.Topic), agentTopic, reply.Topic); t != untroubled {
		return t
	}
	u.mu.Lock()
	t, known := u.topics.recall(reply.Topic)
	if its, refused := u.refusedBefore(reply); refused {
		t, known = its, true
	}
	u.mu.Unlock()
	if known {
		return t
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	adm := kadm.NewClient(u.cfg.Client)
	found, err := adm.ListTopics(ctx, reply.Topic)
	if err != nil {
		return untroubled // the transaction will tell
	}
	var create func() error
	if u.cfg.CreateReplyTopics {
		create = func() error { return makeTopic(ctx, adm, u.cfg.Replication, reply.Topic, nil) }
	}
	t = inspected(found[reply.Topic], create)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.topics.learn(reply.Topic, t)
	return t
}

// refusedBefore is why a reply's topic has refused it, if it has. That is remembered for as long as the reply is tried.
func (u *Unrun) refusedBefore(reply *kgo.Record) (t trouble, refused bool) {
	if len(u.own.known) == 0 {
		return untroubled, false
	}
	id, now := u.idOf(reply), time.Now()
	if t, refused = u.own.get(id, now); refused {
		u.own.put(id, t, now, replyTTL)
	}
	return t, refused
}

// idOf tells replies apart. They may be many, and their ids are long.
func (u *Unrun) idOf(reply *kgo.Record) uint64 {
	var envelope struct{ ID string }
	_ = json.Unmarshal(reply.Value, &envelope) // it is the writer's own
	return maphash.String(u.seed, reply.Topic+" "+envelope.ID)
}

// NotCommitted is told why a transaction wasn't committed whose records from an index on are what Ended gave, and learns from
// it which replies the next try goes without: those that are refused, and those whose topics' brokers take no records, for
// which all else that the transactions move would wait. It gives the refusals that are left to resolve, by the records'
// indexes.
func (u *Unrun) NotCommitted(ctx context.Context, records []*kgo.Record, from int, err error) map[int]error {
	var refused *hop.RecordsError
	isRefused := errors.As(err, &refused)
	switch {
	case u != nil && !isRefused && from < len(records) && !errors.Is(err, hop.ErrOutdated):
		u.failed(ctx, records[from:])
		return nil
	case !isRefused:
		return nil
	case u == nil:
		return refused.Refused
	}
	left := map[int]error{}
	for i, reason := range refused.Refused {
		if i < from || !u.refused(records[i], reason) {
			left[i] = reason
		}
	}
	return left
}

// refused takes a broker's refusal of a record that Ended gave, and reports whether it is a reply's.
func (u *Unrun) refused(r *kgo.Record, err error) bool {
	if r.Topic == u.cfg.Names.Webhooks() {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	t := troubleOf(err)
	if t.general() {
		u.topics.learn(r.Topic, t)
		return true
	}
	u.own.put(u.idOf(r), t, time.Now(), replyTTL)
	return true
}

// failed looks whether the topics of replies are to blame for a transaction that has failed, nobody knows of what.
func (u *Unrun) failed(ctx context.Context, told []*kgo.Record) {
	for _, topic := range u.doubted(told) {
		limited, cancel := context.WithTimeout(ctx, lookLimit)
		if down(limited, kadm.NewClient(u.cfg.Client), topic) {
			u.mu.Lock()
			u.topics.learn(topic, troubleDown)
			u.mu.Unlock()
		}
		cancel()
	}
}

// doubted gives the topics of replies whose transactions have failed for a while, and notes the others.
func (u *Unrun) doubted(told []*kgo.Record) (topics []string) {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	for topic, since := range u.doubts {
		if now.Sub(since) > doubtFor {
			delete(u.doubts, topic)
		}
	}
	seen := map[string]bool{u.cfg.Names.Webhooks(): true}
	for _, r := range told {
		if seen[r.Topic] {
			continue
		}
		seen[r.Topic] = true
		if since, ok := u.doubts[r.Topic]; !ok {
			u.doubts[r.Topic] = now
		} else if now.Sub(since) >= doubtAfter {
			topics = append(topics, r.Topic)
		}
	}
	return topics
}
