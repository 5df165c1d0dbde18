package hop

import (
	"context"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// defaultLimit is the client's own: what brokers take by default.
const defaultLimit = 1_000_012

// limits knows how large a batch each topic takes. A larger one would be refused whole, for what may be the fault of one
// record or of none.
type limits struct {
	mu    sync.Mutex
	known map[string]int32
}

// of is asked by the client once for each topic that it produces to.
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
	unknown := l.unknown(rs)
	if len(unknown) == 0 {
		return
	}
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, unknown...)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, topic := range unknown {
		l.known[topic] = defaultLimit
	}
	if err != nil {
		return
	}
	for _, c := range configs {
		for _, kv := range c.Configs {
			if n, err := strconv.ParseInt(kv.MaybeValue(), 10, 32); err == nil && kv.Key == "max.message.bytes" && c.Err == nil {
				l.known[c.Name] = int32(n)
			}
		}
	}
}

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
