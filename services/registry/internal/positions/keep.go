package positions

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	// often is how often all groups are looked at, and soon how often while an agent's positions aren't known to be kept
	// yet: what is in no copy by the time everything stops for weeks begins anew.
	often = 10 * time.Second
	soon  = 2 * time.Second
	// limit bounds one look.
	limit = time.Minute
)

// Keeper keeps the positions. All fields are required. Run may be called again after it has returned.
type Keeper struct {
	DB     *sqlx.DB
	Client *kgo.Client // for requests
	Opts   []kgo.Opt   // of readers
	Names  topics.Names
	Tiers  []time.Duration
	// Agents gives all agents, deleted ones too.
	Agents func(ctx context.Context) ([]*spec.Agent, error)
	// Mark notes in an agent's record of which topics its positions are kept.
	Mark   func(ctx context.Context, a *spec.Agent, kept spec.Kept) error
	Logger *slog.Logger

	former []time.Duration    // tiers that are still read
	kept   map[string]*copied // as in the database
	asOf   asOf
	told   map[string]bool // groups whose positions couldn't be put back
	denied map[string]bool // groups that Kafka doesn't let the registry look at
}

// kind is what a group consumes.
type kind int

const (
	ofEvents   kind = iota // an agent's user topic
	ofTasks                // its task topic
	ofRetries              // a retry tier's topic
	ofWebhooks             // what was sent since the last look is sent again: it is sent at least once
	ofLetters              // a dead-letter topic: which of them were redriven. Members come only for that
)

// group is a group that is looked at. agent is nil but for the first two kinds, whose positions end with a life.
type group struct {
	kind
	name, topic string
	agent       *spec.Agent
}

// Run looks again and again, until ctx ends or the database doesn't answer.
func (k *Keeper) Run(ctx context.Context) error {
	s := store{k.DB}
	var err error
	if k.kept, err = s.load(ctx); err != nil {
		return err
	}
	if k.asOf, err = s.loadAsOf(ctx); err != nil {
		return err
	}
	if k.former, err = kafka.FormerTiers(ctx, k.Client, k.Names, k.Tiers); err != nil {
		return err
	}
	k.told, k.denied = map[string]bool{}, map[string]bool{}
	tick := time.NewTicker(soon)
	defer tick.Stop()
	var last time.Time
	for {
		agents, err := k.Agents(ctx)
		if err != nil {
			return err
		}
		fresh := unmarked(agents)
		if whole := time.Since(last) >= often; whole || len(fresh) > 0 {
			if whole {
				fresh, last = agents, time.Now()
			}
			if err := k.look(ctx, fresh, whole); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// unmarked are the agents of which positions come to be and no record says so yet.
func unmarked(agents []*spec.Agent) []*spec.Agent {
	var out []*spec.Agent
	for _, a := range agents {
		if (a.Phase == spec.Active || a.Phase == spec.Initialized) && (a.Kept.Topic == "" || a.Kept.Tasks == "") && !a.Cleaning() {
			out = append(out, a)
		}
	}
	return out
}

// groups lists what is to be looked at: not the groups of an agent that are about to be deleted, nor those of one whose
// groups were.
func (k *Keeper) groups(agents []*spec.Agent, whole bool) []group {
	var out []group
	for _, a := range agents {
		if !a.Cleaning() && !(a.Phase == spec.Terminated && a.CleanUp) {
			out = append(out, group{ofEvents, k.Names.Group(a.Topic, a.Name), a.Topic, a},
				group{ofTasks, k.Names.WorkGroup(a.Topic, a.Name), k.Names.Tasks(a.Topic, a.Name), a})
		}
		if whole {
			out = append(out, group{ofLetters, k.Names.DLQGroup(a.Topic, a.Name), k.Names.DLQ(a.Topic, a.Name), nil})
		}
	}
	if !whole {
		return out
	}
	for _, tier := range slices.Concat(k.Tiers, k.former) {
		out = append(out, group{ofRetries, k.Names.RetryGroup(tier), k.Names.Retry(tier), nil},
			group{ofWebhooks, k.Names.WebhookRetryGroup(tier), k.Names.WebhookRetry(tier), nil})
	}
	return append(out, group{ofWebhooks, k.Names.WebhookGroup(), k.Names.Webhooks(), nil}, group{ofLetters, k.Names.WebhookDLQGroup(), k.Names.WebhookDLQ(), nil})
}

// seen is what a look finds of a group. known is false where Kafka doesn't say.
type seen struct {
	group
	known   bool
	topicID string // "" where the topic isn't there
	at      map[int32]position
}

func (s seen) life() int64 {
	if s.agent == nil {
		return 0
	}
	return s.agent.Life
}

// look copies what has changed and puts back what Kafka has forgotten. A whole look is one of all groups. What Kafka
// doesn't answer is left for the next look; an error is the database's.
func (k *Keeper) look(ctx context.Context, agents []*spec.Agent, whole bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	groups := k.groups(agents, whole)
	until, err := k.outcomesEnd(ctx) // before the groups are looked at: what is behind it may not be in their positions
	if err != nil {
		k.Logger.Debug("look at the positions of groups", slog.Any("error", err))
		return nil
	}
	found, complete := k.see(ctx, groups)
	changed := map[string]*copied{}
	var forgotten []seen
	for _, s := range found {
		old := k.kept[s.name]
		switch now := s.copied(); {
		case s.forgotten(old):
			forgotten = append(forgotten, s)
		case s.known && len(s.at) > 0 && !same(old, now):
			changed[s.name] = now
		}
	}
	if len(forgotten) > 0 && !k.putBack(ctx, forgotten) {
		complete = false // what they need is still to be read from where the last look ended
	}
	var to *asOf
	if whole && complete && (k.asOf.topicID != until.topicID || !maps.Equal(k.asOf.ends, until.ends)) {
		to = &until
	}
	gone := k.gone(agents, whole)
	if len(changed)+len(gone) > 0 || to != nil {
		if err := (store{k.DB}).save(ctx, k.asOf, changed, gone, to); err != nil {
			return err
		}
	}
	maps.Copy(k.kept, changed)
	for _, g := range gone {
		delete(k.kept, g)
	}
	if to != nil {
		k.asOf = until
	}
	return k.mark(ctx, found)
}

// gone are the copies that are nobody's any more.
func (k *Keeper) gone(agents []*spec.Agent, whole bool) []string {
	if !whole {
		return nil
	}
	known := map[string]bool{}
	for _, g := range k.groups(agents, true) {
		known[g.name] = true
	}
	var out []string
	for name := range k.kept {
		if !known[name] {
			out = append(out, name)
		}
	}
	return out
}

// outcomesEnd is the end of the outcomes topic.
func (k *Keeper) outcomesEnd(ctx context.Context) (asOf, error) {
	topic := k.Names.Outcomes()
	ids, err := kafka.ListTopics(ctx, k.Client, topic)
	if err != nil {
		return asOf{}, err
	}
	ends, err := kadm.NewClient(k.Client).ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return asOf{}, fmt.Errorf("list the end of %s: %w", topic, err)
	}
	out := asOf{topicID: text(ids[topic].ID), ends: map[int32]int64{}}
	for p, end := range ends[topic] {
		out.ends[p] = end.Offset
	}
	return out, nil
}

// see reads where groups stand. complete is false where Kafka didn't say it of all; what it refuses to say counts as said,
// since that lasts until somebody grants a right, and meanwhile nothing behind the last look could be trimmed.
func (k *Keeper) see(ctx context.Context, groups []group) (out []seen, complete bool) {
	names, of := make([]string, 0, len(groups)), make([]string, 0, len(groups))
	for _, g := range groups {
		names, of = append(names, g.name), append(of, g.topic)
	}
	fetched := kadm.NewClient(k.Client).FetchManyOffsets(ctx, names...)
	listed, err := kafka.ListTopics(ctx, k.Client, of...)
	if err != nil {
		return nil, false
	}
	complete = true
	for _, g := range groups {
		r, asked := fetched[g.name]
		if !asked {
			r.Err = errNotAsked
		}
		s, err := g.stands(r, listed[g.topic])
		if security.Denied(err) {
			k.refused(g, err)
		} else {
			complete = complete && err == nil
			delete(k.denied, g.name)
		}
		out = append(out, s)
	}
	return out, complete
}

// errNotAsked says that Kafka's answer leaves a group out.
var errNotAsked = errors.New("the answer leaves the group out")

// stands reads from Kafka's answers where a group stands, or why it isn't known.
func (g group) stands(r kadm.FetchOffsetsResponse, t kadm.TopicDetail) (seen, error) {
	s := seen{group: g, at: map[int32]position{}}
	there := t.Err == nil && len(t.Partitions) > 0
	if there {
		s.topicID = text(t.ID)
	}
	var why error
	switch {
	case r.Err != nil && !errors.Is(r.Err, kerr.GroupIDNotFound):
		why = r.Err
	case !there && !errors.Is(t.Err, kerr.UnknownTopicOrPartition):
		why = cmp.Or(t.Err, error(kerr.UnknownServerError))
	}
	for p, o := range r.Fetched[g.topic] {
		if o.Err != nil {
			why = o.Err
		} else if o.At >= 0 {
			s.at[p] = position{o.At, o.Metadata}
		}
	}
	s.known = why == nil
	return s, why
}

// refused tells once that a group may not be looked at.
func (k *Keeper) refused(g group, err error) {
	if k.denied[g.name] {
		return
	}
	k.denied[g.name] = true
	k.Logger.Warn("the positions of a group may not be looked at: if Kafka forgets them, they can't be put back", slog.String("group", g.name),
		slog.String("topic", g.topic), slog.Any("error", err), slog.String("remedy", kafka.Remedy(err)))
}

// copied is what is to be kept of a group as it was seen. The UUID in the metadata is that of the topic that the positions
// belong to; the topic may have been made again since.
func (s seen) copied() *copied {
	c := &copied{topic: s.topic, topicID: s.topicID, life: s.life(), at: s.at}
	for _, at := range s.at {
		if m, err := offsets.Decode(at.Next, at.Metadata); err == nil && m.TopicID != [16]byte{} {
			c.topicID = text(m.TopicID)
		}
	}
	return c
}

// forgotten reports whether Kafka has no position of a group that had one on this very topic.
func (s seen) forgotten(old *copied) bool {
	if !s.known || s.topicID == "" || len(s.at) > 0 {
		return false
	}
	if old != nil && old.topicID == s.topicID && old.life == s.life() {
		return true
	}
	switch s.kind {
	case ofEvents:
		return s.agent.Kept.Topic == s.topicID // the database was made anew, and members wait
	case ofTasks:
		return s.agent.Kept.Tasks == s.topicID
	case ofLetters:
		return false
	}
	return true // dispatchers wait for it where the topic has ever held something, and no harm is done elsewhere
}

func same(x, y *copied) bool {
	return x != nil && x.topic == y.topic && x.topicID == y.topicID && x.life == y.life && maps.Equal(x.at, y.at)
}

// mark notes in the agents' records that their positions are kept.
func (k *Keeper) mark(ctx context.Context, found []seen) error {
	want := map[*spec.Agent]spec.Kept{}
	for _, s := range found {
		if s.agent == nil || len(s.at) == 0 || s.topicID == "" || s.copied().topicID != s.topicID {
			continue
		}
		kept, ok := want[s.agent]
		if !ok {
			kept = s.agent.Kept
		}
		if s.kind == ofTasks {
			kept.Tasks = s.topicID
		} else {
			kept.Topic = s.topicID
		}
		want[s.agent] = kept
	}
	for a, kept := range want {
		if kept != a.Kept {
			if err := k.Mark(ctx, a, kept); err != nil {
				return err
			}
		}
	}
	return nil
}

// text writes a topic's UUID as Kafka's own tools do.
func text(id [16]byte) string {
	if id == [16]byte{} {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(id[:])
}
