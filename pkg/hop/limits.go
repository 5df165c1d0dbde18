package hop

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// defaultLimit is the client's own: what brokers take by default.
const defaultLimit = 1_000_012

// ErrOutdated says that a transaction failed because its producer knew a topic as it was before: one that takes records of
// another size now, or that was deleted and made again. Nothing was committed; the same work may be committed again at once,
// by a producer that knows better. Each of a pool's producers may have to learn it by itself.
var ErrOutdated = errors.New("a topic isn't any more what the producer knew")

// limits knows how large a batch each topic takes. A larger one would be refused whole, for what may be the fault of one
// record or of none. A topic is asked once, and again where it refuses a record for its size.
type limits struct {
	mu    sync.Mutex
	known map[string]int32
}

// of is a topic's limit.
func (l *limits) of(topic string) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := l.known[topic]; ok {
		return n
	}
	return defaultLimit
}

// learn looks up the topics that are new. Where the broker won't say, the default holds.
func (l *limits) learn(ctx context.Context, cl *kgo.Client, rs []*kgo.Record) {
	if unknown := l.unknown(rs); len(unknown) > 0 {
		l.ask(ctx, cl, unknown)
	}
}

// ask looks topics up. Where the broker won't say, what was known holds.
func (l *limits) ask(ctx context.Context, cl *kgo.Client, topics []string) {
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range configs {
		for _, kv := range c.Configs {
			if n, err := strconv.ParseInt(kv.MaybeValue(), 10, 32); err == nil && kv.Key == "max.message.bytes" && c.Err == nil {
				l.known[c.Name] = int32(n)
			}
		}
	}
}

// unknown gives the records' topics that aren't known; from then on they are, by the default.
func (l *limits) unknown(rs []*kgo.Record) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[string]int32{}
	}
	var topics []string
	last := ""
	for _, r := range rs {
		if r.Topic == last {
			continue
		}
		last = r.Topic
		if _, ok := l.known[last]; !ok {
			topics = append(topics, last)
			l.known[last] = defaultLimit
		}
	}
	return topics
}

// limit is asked by the producer's client, once for each partition that it produces to.
func (pr *producer) limit(topic string) int32 {
	n := pr.pool.limits.of(topic)
	pr.told.Store(topic, n)
	return n
}

// outdated reports whether the client works by another limit than a topic has.
func (pr *producer) outdated(topic string) bool {
	n, ok := pr.told.Load(topic)
	return ok && n != pr.pool.limits.of(topic)
}

// fit sees to it that the client knows the records' topics as they are. One whose limit has changed takes a new client, as
// does one that was made again.
func (pr *producer) fit(ctx context.Context, rs []*kgo.Record) error {
	pr.pool.limits.learn(ctx, pr.cl, rs)
	if pr.remade {
		return pr.renew(ctx)
	}
	last := ""
	for _, r := range rs {
		if r.Topic == last {
			continue
		}
		if last = r.Topic; pr.outdated(last) {
			return pr.renew(ctx)
		}
	}
	return nil
}

// forget sees to it that the producer's next transaction is a new client's, and says what that means for this one. Where
// the last was a new client's already, its brokers don't agree on the topic: that takes a while.
func (pr *producer) forget() error {
	pr.remade = true
	if pr.renewed {
		return errors.New("the brokers don't agree yet on a topic that was made again")
	}
	return ErrOutdated
}

// remade reports whether records may have been refused because their topic isn't the one that the client knows by its
// name. To make it forget the topic wouldn't do: it would number its records anew under the same epoch, and where the topic
// is the same after all, the broker would take them for repeats.
func remade(refused map[int]error) bool {
	for _, err := range refused {
		if errors.Is(err, kerr.UnknownTopicID) {
			return true
		}
	}
	return false
}

// misjudged reports whether records were refused for their size by a limit that the client had wrong.
func (pr *producer) misjudged(ctx context.Context, rs []*kgo.Record, refused map[int]error) bool {
	var topics []string
	for i, err := range refused {
		if errors.Is(err, kerr.MessageTooLarge) && !slices.Contains(topics, rs[i].Topic) {
			topics = append(topics, rs[i].Topic)
		}
	}
	if len(topics) == 0 {
		return false
	}
	pr.pool.limits.ask(ctx, pr.cl, topics)
	return slices.ContainsFunc(topics, pr.outdated)
}
