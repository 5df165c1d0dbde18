package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// userTopics is what is known of topics that aren't Reeve's, those of replies and of published records: a broker is asked
// once in a while. It is for one goroutine at a time.
type userTopics struct{ known recent[string, trouble] }

const (
	replyTTL = 30 * time.Second
	// downTTL is for how long a topic isn't tried that can't be written.
	downTTL = 5 * time.Minute
)

// recall gives what is known of a topic.
func (u *userTopics) recall(topic string) (t trouble, ok bool) {
	return u.known.get(topic, time.Now())
}

// learn keeps what became known of a topic for a while.
func (u *userTopics) learn(topic string, t trouble) {
	ttl := replyTTL
	if t == troubleDown { // each try costs others some time
		ttl = downTTL
	}
	u.known.put(topic, t, time.Now(), ttl)
}

// inspected is what a look at a topic found; a missing one is made where create is given.
func inspected(t kadm.TopicDetail, create func() error) trouble {
	switch found := troubleOf(t.Err); {
	case found == troubleMissing && create != nil && create() == nil:
		return untroubled
	case found == troubleRefused: // a leader is being elected, or the like
		return untroubled
	default:
		return found
	}
}

// ownTrouble is why an agent's reply never goes to a topic, whatever its brokers say.
func ownTrouble(reserved bool, agentTopic, topic string) trouble {
	switch {
	case reserved:
		return troubleReserved
	case topic == agentTopic:
		return troubleLoop
	}
	return untroubled
}

// down reports whether brokers say that a topic's partitions can't be written. Where they say nothing at all the topic
// isn't to blame.
func down(ctx context.Context, adm *kadm.Client, topic string) bool {
	found, err := adm.ListTopics(ctx, topic)
	if err != nil {
		return false
	}
	return lame(found[topic], minInSync(ctx, adm, topic))
}

// minInSync is how many replicas have to be in sync for a topic to be written; 0 where that can't be learnt.
func minInSync(ctx context.Context, adm *kadm.Client, topic string) int {
	described, err := adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return 0
	}
	for _, r := range described {
		for _, c := range r.Configs {
			if c.Key == "min.insync.replicas" && c.Value != nil {
				return number([]byte(*c.Value))
			}
		}
	}
	return 0
}

// lame reports whether a topic has a partition without a leader, or with fewer replicas in sync than it needs; where that
// isn't known, than it should have.
func lame(t kadm.TopicDetail, needed int) bool {
	for _, p := range t.Partitions {
		least := len(p.Replicas) // brokers ask for no more
		if needed > 0 {
			least = min(least, needed)
		}
		if p.Err != nil || p.Leader < 0 || len(p.ISR) < least {
			return true
		}
	}
	return t.Err != nil
}

// makeTopic makes a topic of one partition; one that is there is fine. A replication of 0 is the broker's own.
func makeTopic(ctx context.Context, adm *kadm.Client, replication int16, topic string, configs map[string]*string) error {
	if replication == 0 {
		replication = -1
	}
	r, err := adm.CreateTopic(ctx, 1, replication, configs, topic)
	if err == nil {
		err = r.Err
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return nil
}
