package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/pkg/route"
)

// userTopics is what is known of topics that aren't Reeve's, those of replies and of published records: a broker is asked
// once in a while. It is for one goroutine at a time.
type userTopics struct {
	known  recent[string, userTopic]
	looked recent[string, struct{}] // whether their partitions can be written
}

// userTopic is what is known of one.
type userTopic struct {
	trouble trouble
	lame    lameness // where it is down
}

const (
	replyTTL = 30 * time.Second
	// downTTL is for how long what can't be written isn't tried: each try costs others some time.
	downTTL = 5 * time.Minute
	// lookLimit bounds a look for topics, which a transaction waits for. One that failed isn't repeated for failedTTL: the
	// transaction itself will tell, and what it waits for is waited for once.
	lookLimit = 3 * time.Second
	failedTTL = time.Second
)

// recall gives what is known of a topic for a key; nil is for none.
func (u *userTopics) recall(topic string, key []byte) (t trouble, ok bool) {
	k, ok := u.known.get(topic, time.Now())
	if k.trouble == troubleDown && k.lame.takes(key) {
		return untroubled, ok
	}
	return k.trouble, ok
}

// learn keeps what became known of a topic for a while.
func (u *userTopics) learn(topic string, t trouble) {
	u.known.put(topic, userTopic{trouble: t}, time.Now(), replyTTL)
}

// unknown notes that nothing could be learnt.
func (u *userTopics) unknown(topic string) {
	u.known.put(topic, userTopic{}, time.Now(), failedTTL)
}

// look reports whether it is time to ask for a topic's partitions, and notes that they are asked for.
func (u *userTopics) look(topic string) bool {
	now := time.Now()
	if _, done := u.looked.get(topic, now); done {
		return false
	}
	u.looked.put(topic, struct{}{}, now, failedTTL)
	return true
}

// learnLame keeps which of a topic's partitions take no records.
func (u *userTopics) learnLame(topic string, l lameness) {
	u.known.put(topic, userTopic{troubleDown, l}, time.Now(), downTTL)
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

// lameness is which of a topic's partitions can't be written, as far as brokers say so.
type lameness struct {
	whole bool   // there is no telling them apart
	of    []bool // by partition
	led   bool   // one of them has a leader all the same, so that what has no key may go there
	some  bool
}

// takes reports whether the topic takes what has a key; nil is for none.
func (l lameness) takes(key []byte) bool {
	switch {
	case l.whole:
		return false
	case !l.some:
		return true
	case key != nil:
		return !l.of[route.Partition(key, int32(len(l.of)))]
	}
	return !l.led && slices.Contains(l.of, false)
}

// lameTopics asks brokers which of the topics' partitions can't be written. Where they say nothing at all no topic is to
// blame.
func lameTopics(ctx context.Context, adm *kadm.Client, topics ...string) map[string]lameness {
	found, err := adm.ListTopics(ctx, topics...)
	if err != nil {
		return nil
	}
	needed, lame := minInSync(ctx, adm, topics...), map[string]lameness{}
	for _, topic := range topics {
		if l := lamenessOf(found[topic], needed[topic]); l.whole || l.some {
			lame[topic] = l
		}
	}
	return lame
}

// minInSync is how many replicas have to be in sync for topics to be written, as far as that can be learnt.
func minInSync(ctx context.Context, adm *kadm.Client, topics ...string) map[string]int {
	described, err := adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return nil
	}
	needed := map[string]int{}
	for _, r := range described {
		for _, c := range r.Configs {
			if r.Err == nil && c.Key == "min.insync.replicas" && c.Value != nil {
				needed[r.Name] = number([]byte(*c.Value))
			}
		}
	}
	return needed
}

// lamenessOf says which partitions have no leader, or fewer replicas in sync than they need. Where that isn't known, 0, a
// leader is enough: while brokers are restarted one by one replicas are missing from all topics, and these take records.
func lamenessOf(t kadm.TopicDetail, needed int) (l lameness) {
	if l.whole = t.Err != nil; l.whole {
		return l
	}
	l.of = make([]bool, len(t.Partitions))
	for i := range l.of {
		p := t.Partitions[int32(i)]
		headless := p.Err != nil || p.Leader < 0
		l.of[i] = headless || len(p.ISR) < min(needed, len(p.Replicas)) // brokers ask for no more than there are
		l.some = l.some || l.of[i]
		l.led = l.led || l.of[i] && !headless
	}
	return l
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

// makeTopics makes those of the topics, of one partition each, that aren't among what was found. It gives those that are there then.
func makeTopics(ctx context.Context, adm *kadm.Client, replication int16, topics []string, found kadm.TopicDetails) map[string]bool {
	missing := slices.DeleteFunc(slices.Clone(topics), func(topic string) bool { return inspected(found[topic], nil) != troubleMissing })
	if len(missing) == 0 {
		return nil
	}
	if replication == 0 {
		replication = -1
	}
	answers, err := adm.CreateTopics(ctx, 1, replication, nil, missing...)
	if err != nil {
		return nil
	}
	made := map[string]bool{}
	for topic, a := range answers {
		made[topic] = a.Err == nil || errors.Is(a.Err, kerr.TopicAlreadyExists)
	}
	return made
}
