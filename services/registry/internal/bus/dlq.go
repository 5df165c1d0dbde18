package bus

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

const (
	// readAtOnce is how many dead letters a filtered list looks at for one page, and readBy how many it reads at a time.
	readAtOnce = 50_000
	readBy     = 1_000
)

// DLQ is an agent's dead-letter topic.
type DLQ struct {
	Topic   string
	Records int64 // open ones
}

// Graves are an agent's dead letters as of a moment: where the topic begins and ends, and what of it is settled.
type Graves struct {
	topic   string
	TopicID string // as Kafka's tools write it
	bounds  map[int32]peek.Bounds
	ledgers map[int32]offsets.Ledger
}

// Ends are the ends of the topic's partitions; there are none where it doesn't exist.
func (g Graves) Ends() map[int32]int64 {
	out := make(map[int32]int64, len(g.bounds))
	for p, at := range g.bounds {
		out[p] = at.End
	}
	return out
}

// open reports whether a dead letter is open.
func (g Graves) open(r *kgo.Record) bool { return g.ledgers[r.Partition].Open(r.Offset) }

// Graves looks at an agent's dead letters; at webhooks that were given up where it is given what a command calls them.
func (b *Bus) Graves(ctx context.Context, topic, agent string) (Graves, error) {
	all, err := b.graves(ctx, [][2]string{{topic, agent}})
	if err != nil {
		return Graves{}, err
	}
	return all[[2]string{topic, agent}], nil
}

// graves looks at the dead letters of agents (topic and name); those that have none are left out.
func (b *Bus) graves(ctx context.Context, agents [][2]string) (map[[2]string]Graves, error) {
	out := map[[2]string]Graves{}
	if len(agents) == 0 {
		return out, nil
	}
	names, queues := make([]string, len(agents)), make([]deadletter.Queue, len(agents))
	for i, a := range agents {
		queues[i] = deadletter.QueueOf(b.names, command.Command{Topic: a[0], Agent: a[1]})
		names[i] = queues[i].Topic
	}
	bounds, err := peek.TopicBounds(ctx, b.client, names...)
	if err != nil || len(bounds) == 0 {
		return out, err
	}
	adm := kadm.NewClient(b.client)
	topics, err := kafka.ListTopics(ctx, b.client, names...)
	if err != nil {
		return nil, fmt.Errorf("look at %d dead-letter topics: %w", len(names), err)
	}
	groups := map[string][2]string{}
	for i, a := range agents {
		if at, ok := bounds[names[i]]; ok {
			id := topics[names[i]].ID
			out[a] = Graves{topic: names[i], TopicID: base64.RawURLEncoding.EncodeToString(id[:]), bounds: at, ledgers: map[int32]offsets.Ledger{}}
			groups[queues[i].Group] = a
		}
	}
	asked := make([]string, 0, len(groups))
	for group := range groups {
		asked = append(asked, group)
	}
	for group, r := range adm.FetchManyOffsets(ctx, asked...) {
		if r.Err != nil && !errors.Is(r.Err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("read what is settled of the dead letters of %s: %w", group, r.Err)
		}
		g := out[groups[group]]
		for p, o := range r.Fetched[g.topic] {
			if l, ok := ledger(o, topics[g.topic].ID); ok {
				g.ledgers[p] = l
			}
		}
	}
	return out, nil
}

// ledger reads what a commit says; nothing where it is of an earlier topic of the name.
func ledger(o kadm.OffsetResponse, topicID [16]byte) (offsets.Ledger, bool) {
	m, err := offsets.Decode(o.At, o.Metadata)
	if err != nil || o.Err != nil || o.At < 0 || m.TopicID != [16]byte{} && m.TopicID != topicID {
		return offsets.Ledger{}, false
	}
	return offsets.LedgerAt(o.At, m), true
}

// span is a part of a dead-letter topic that is counted.
type span struct {
	agent [2]string
	p     int32
	at    peek.Bounds
}

func (s span) size() int64 { return s.at.End - s.at.Start }

// countable splits spans into those that are counted one by one and the others: the short ones, as many as can be read for
// one request.
func countable(spans []span) (exact, others []span) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.size(), b.size()) })
	n, total := 0, int64(0)
	for n < len(spans) && spans[n].size() <= exactCount && total+spans[n].size() <= exactTotal {
		total += spans[n].size()
		n++
	}
	return spans[:n], spans[n:]
}

// DLQs counts the open dead letters of agents (topic and name); agents without a dead-letter topic are left out of the map.
// Of a partition that has more than 1,000 offsets in it, markers count as well, and so they do of the longest where all
// together are more than 20,000.
func (b *Bus) DLQs(ctx context.Context, agents [][2]string) (map[[2]string]DLQ, error) {
	all, err := b.graves(ctx, agents)
	if err != nil {
		return nil, err
	}
	out := map[[2]string]DLQ{}
	var spans []span
	for a, g := range all {
		out[a] = DLQ{Topic: g.topic}
		for p, at := range g.bounds {
			at.Start = max(at.Start, g.ledgers[p].Low)
			spans = append(spans, span{a, p, at})
		}
	}
	exact, others := countable(spans)
	for _, s := range others {
		d := out[s.agent]
		d.Records += all[s.agent].ledgers[s.p].Within(s.at.Start, s.at.End)
		out[s.agent] = d
	}
	of, short := map[string][2]string{}, peek.Ranges{}
	for _, s := range exact {
		topic := all[s.agent].topic
		if short[topic] == nil {
			of[topic], short[topic] = s.agent, map[int32]peek.Bounds{}
		}
		short[topic][s.p] = s.at
	}
	err = peek.Scan(ctx, b.opts, short, func(r *kgo.Record) {
		if a := of[r.Topic]; all[a].open(r) {
			d := out[a]
			d.Records++
			out[a] = d
		}
	})
	return out, err
}

// EachDead hands on an agent's open dead letters, at most limit of them, those of a partition in their order. complete says
// that these are all.
func (b *Bus) EachDead(ctx context.Context, g Graves, limit int, each func(*kgo.Record)) (complete bool, err error) {
	ranges := peek.Ranges{g.topic: map[int32]peek.Bounds{}}
	for p, at := range g.bounds {
		ranges[g.topic][p] = peek.Bounds{Start: max(at.Start, g.ledgers[p].Low), End: at.End}
	}
	n := 0
	stopped, stop := context.WithCancel(ctx)
	defer stop()
	err = peek.Scan(stopped, b.opts, ranges, func(r *kgo.Record) {
		if !g.open(r) {
			return
		}
		if n++; n > limit {
			stop()
			return
		}
		each(r)
	})
	if n > limit && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

// DeadLetters gives an agent's open dead letters, or webhooks, that match, from a place on, the oldest of each partition first. The place
// that it returns is nil at the end. A page may be short of the limit where it has looked at many that don't match.
func (b *Bus) DeadLetters(ctx context.Context, topic, agent string, from Place, limit int, match func(*kgo.Record) bool) ([]*kgo.Record, *Place, error) {
	g, err := b.Graves(ctx, topic, agent)
	if err != nil {
		return nil, nil, err
	}
	var partitions []int32
	for p := range g.bounds {
		if p >= from.Partition {
			partitions = append(partitions, p)
		}
	}
	slices.Sort(partitions)
	var out []*kgo.Record
	looked := 0
	for _, p := range partitions {
		at, end := max(g.bounds[p].Start, g.ledgers[p].Low), g.bounds[p].End
		if p == from.Partition {
			at = max(at, from.Offset)
		}
		for at < end {
			records, next, err := peek.Read(ctx, b.opts, g.topic, p, at, end, readBy)
			if err != nil {
				return nil, nil, err
			}
			for _, r := range records {
				if !g.open(r) || !match(r) {
					continue
				}
				if out = append(out, r); len(out) == limit {
					return out, &Place{p, r.Offset + 1}, nil
				}
			}
			at = next
			if looked += len(records); looked >= readAtOnce && at < end {
				return out, &Place{p, at}, nil
			}
		}
	}
	return out, nil, nil
}

// LatestDead gives the newest open dead letters of agents of a topic over all of them, the newest first, and whose they are,
// by the name of their topic.
func (b *Bus) LatestDead(ctx context.Context, topic string, agents []string, limit int) ([]*kgo.Record, map[string]string, error) {
	of := make(map[string]string, len(agents))
	names := make([]string, len(agents))
	refs := make([][2]string, len(agents))
	for i, agent := range agents {
		names[i], refs[i] = b.names.DLQ(topic, agent), [2]string{topic, agent}
		of[names[i]] = agent
	}
	all, err := b.graves(ctx, refs)
	if err != nil {
		return nil, nil, err
	}
	open := func(r *kgo.Record) bool { return all[[2]string{topic, of[r.Topic]}].open(r) }
	records, err := peek.Tail(ctx, b.client, b.opts, limit, open, names...)
	return records, of, err
}
