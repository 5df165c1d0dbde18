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
	blind  time.Time               // until when brokers are not asked for topics, as they have just failed to answer
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
	// doubtAfter is how long transactions with a reply fail before brokers are asked whether its topic is to blame, and
	// doubtFor how long a failure is remembered: one alone may have been another's.
	doubtAfter = 3 * time.Second
	doubtFor   = time.Minute
)

// Ending is how a task ends unrun: its record, a task's or a retry's, and its final outcome.
type Ending struct{ Task, Outcome *kgo.Record }

// Ended gives the webhook and the reply of each of the tasks that end in one transaction. Their outcomes say then that the
// webhook is to come, or why there is no reply. There may be none of both. It may ask brokers for the replies' topics, for all
// of them at once and for seconds at most.
func (u *Unrun) Ended(ctx context.Context, endings ...Ending) (told [][]*kgo.Record) {
	if u == nil {
		return nil
	}
	told = make([][]*kgo.Record, len(endings))
	slots := make([]*slot, len(endings))
	agents := make([]writer, len(endings))
	for i, e := range endings {
		s, w := &slot{}, &agents[i]
		s.attempt.Record = e.Task
		if s.header.read(e.Task); len(s.header.webhook)+len(s.header.replyTo) == 0 {
			continue
		}
		*w = writer{names: u.cfg.Names, agent: &spec.Agent{}}
		s.endedAs(w, e.Outcome)
		slots[i] = s
	}
	u.look(ctx, slots, agents)
	for i, s := range slots {
		if s != nil {
			told[i] = u.tell(s, &agents[i], endings[i].Outcome)
		}
	}
	return told
}

// tell makes what tells of one task.
func (u *Unrun) tell(s *slot, w *writer, outcome *kgo.Record) (told []*kgo.Record) {
	add := func(key, value string) {
		outcome.Headers = append(outcome.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	if len(s.header.replyTo) > 0 {
		reply := w.reply(s)
		if s.noReply = u.trouble(w.agent.Topic, reply); s.noReply == untroubled {
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

// trouble is why an agent's reply can't be written, as far as that is known.
func (u *Unrun) trouble(agentTopic string, reply *kgo.Record) trouble {
	if t := ownTrouble(u.cfg.Names.Reserved(reply.Topic), agentTopic, reply.Topic); t != untroubled {
		return t
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if t, refused := u.refusedBefore(reply); refused {
		return t
	}
	t, _ := u.topics.recall(reply.Topic, reply.Key)
	return t
}

// look finds out whether the topics of replies are there that nothing is known of; where that is allowed, it makes them.
func (u *Unrun) look(ctx context.Context, slots []*slot, agents []writer) {
	topics := u.strange(slots, agents)
	if len(topics) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	adm := kadm.NewClient(u.cfg.Client)
	found, err := adm.ListTopics(ctx, topics...)
	var made map[string]bool
	if err == nil && u.cfg.CreateReplyTopics {
		made = makeTopics(ctx, adm, u.cfg.Replication, topics, found)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		u.blind = time.Now().Add(failedTTL)
		return // the transaction will tell
	}
	for _, topic := range topics {
		t := inspected(found[topic], nil)
		if made[topic] {
			t = untroubled
		}
		u.topics.learn(topic, t)
	}
}

// strange gives the topics of replies that brokers have to be asked for, each once; none where they have just not answered.
func (u *Unrun) strange(slots []*slot, agents []writer) (topics []string) {
	seen := map[string]bool{}
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Now().Before(u.blind) {
		return nil
	}
	for i, s := range slots {
		if s == nil || len(s.header.replyTo) == 0 {
			continue
		}
		topic := string(s.header.replyTo)
		if seen[topic] || ownTrouble(u.cfg.Names.Reserved(topic), agents[i].agent.Topic, topic) != untroubled {
			continue
		}
		seen[topic] = true
		if _, known := u.topics.recall(topic, nil); !known {
			topics = append(topics, topic)
		}
	}
	return topics
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
	topics := u.doubted(told)
	if len(topics) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	lame := lameTopics(ctx, kadm.NewClient(u.cfg.Client), topics...)
	u.mu.Lock()
	defer u.mu.Unlock()
	for topic, l := range lame {
		u.topics.learnLame(topic, l)
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
