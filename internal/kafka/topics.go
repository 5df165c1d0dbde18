package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Record size limits, in bytes.
const (
	// HeadersRoom is what a derived topic takes beyond its source: Reeve's headers ride along.
	HeadersRoom = 64 << 10
	// SharedMaxBytes is the limit of Reeve's own topics, unless a user topic takes larger records; then RaiseMaxBytes
	// raises it. It is far above Kafka's default, since it counts for a batch as a whole and batches are large.
	SharedMaxBytes = 16<<20 + HeadersRoom
	// DefaultMaxBytes is Kafka's own default limit of a topic.
	DefaultMaxBytes = 1048588
)

const (
	maxMessageBytes = "max.message.bytes"
	day             = 24 * time.Hour
	forever         = "-1"
)

// Topic is a topic with its settings.
type Topic struct {
	Name       string
	Partitions int32
	Configs    map[string]string
}

// base are settings that all of Reeve's topics spell out.
func base(maxBytes int) map[string]string {
	return map[string]string{
		"cleanup.policy":         "delete",
		"retention.ms":           forever,
		"retention.bytes":        forever,
		"compression.type":       "producer",
		"message.timestamp.type": "CreateTime",
		maxMessageBytes:          strconv.Itoa(maxBytes),
	}
}

func with(configs map[string]string, keyvals ...string) map[string]string {
	for i := 0; i+1 < len(keyvals); i += 2 {
		configs[keyvals[i]] = keyvals[i+1]
	}
	return configs
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// ControlTopic is the compacted topic of desired state. It has one partition, so that readers see one order.
func ControlTopic(names topics.Names) Topic {
	return Topic{names.Control(), 1, with(base(SharedMaxBytes), "cleanup.policy", "compact")}
}

// CommandsTopic carries commands. It has one partition, so that all followers see one order; a day is longer than any
// command lives.
func CommandsTopic(names topics.Names) Topic {
	return Topic{names.Commands(), 1, with(base(SharedMaxBytes), "retention.ms", millis(day))}
}

// StatusTopic carries what dispatchers and workers report; a day is more than the registry is ever behind.
func StatusTopic(names topics.Names) Topic {
	return Topic{names.Status(), 4, with(base(SharedMaxBytes), "retention.ms", millis(day))}
}

// OutcomesTopic has no time limit: the registry trims it behind its projection.
func OutcomesTopic(names topics.Names) Topic {
	return Topic{names.Outcomes(), 8, base(SharedMaxBytes)}
}

// TasksTopic is an agent's task topic: no time limit, since what stands there was accepted; trimmed behind the committed
// offset. sourceMaxBytes is the limit of the user's topic.
func TasksTopic(names topics.Names, a *spec.Agent, sourceMaxBytes int) Topic {
	return Topic{names.Tasks(a.Topic, a.Name), a.Partitions, with(base(DerivedMaxBytes(sourceMaxBytes)), "segment.bytes", strconv.Itoa(128<<20))}
}

// DerivedMaxBytes is the limit of a topic whose records come from a user topic with the given limit.
func DerivedMaxBytes(sourceMaxBytes int) int { return max(sourceMaxBytes+HeadersRoom, SharedMaxBytes) }

// DLQTopic is an agent's dead-letter topic, kept until it is purged.
func DLQTopic(names topics.Names, a *spec.Agent, sourceMaxBytes int) Topic {
	return Topic{names.DLQ(a.Topic, a.Name), 1, base(DerivedMaxBytes(sourceMaxBytes) + HeadersRoom)}
}

// RetryTopics are the topics of the tiers. The broker's clock stamps the records, so that within a tier the order of
// records is the order in which they fall due.
func RetryTopics(names topics.Names, tiers []time.Duration) []Topic {
	out := make([]Topic, len(tiers))
	for i, tier := range tiers {
		out[i] = Topic{names.Retry(tier), 4, with(base(SharedMaxBytes), "message.timestamp.type", "LogAppendTime")}
	}
	return out
}

// WebhooksTopic carries what is to be sent to URLs. It is trimmed behind what was sent.
func WebhooksTopic(names topics.Names) Topic {
	return Topic{names.Webhooks(), 4, base(SharedMaxBytes)}
}

// WebhookRetryTopics are where webhooks wait; see RetryTopics.
func WebhookRetryTopics(names topics.Names, tiers []time.Duration) []Topic {
	out := make([]Topic, len(tiers))
	for i, tier := range tiers {
		out[i] = Topic{names.WebhookRetry(tier), 2, with(base(SharedMaxBytes+HeadersRoom), "message.timestamp.type", "LogAppendTime")}
	}
	return out
}

// WebhookDLQTopic is for webhooks that were given up, kept until somebody purges it.
func WebhookDLQTopic(names topics.Names) Topic {
	return Topic{names.WebhookDLQ(), 1, base(SharedMaxBytes + HeadersRoom)}
}

// NotCreated says that topics are missing which this process may not create.
type NotCreated struct {
	Topics []string
	Err    error // the broker's
}

func (e *NotCreated) Error() string {
	return fmt.Sprintf("topics are missing that Kafka's ACLs don't let this process create: %s: have them made (`reeve topics` lists them with their settings, `reeve topics --commands` writes the commands), or grant Create on them: %v",
		strings.Join(e.Topics, ", "), e.Err)
}

// Unwrap gives the broker's error.
func (e *NotCreated) Unwrap() error { return e.Err }

// EnsureTopics creates those of the topics that don't exist; one that does is left as it is, and needs no right to create
// anything. Replication -1 is the brokers' default. It returns when a broker knows all of them. Where some may not be
// created the error is a *NotCreated with all of those; the others are made.
func EnsureTopics(ctx context.Context, cl *kgo.Client, replication int16, wanted ...Topic) error {
	adm := kadm.NewClient(cl)
	missing, err := missingTopics(ctx, cl, wanted)
	if err != nil {
		return err
	}
	var created []string
	var left []Topic
	var denied error
	for _, t := range missing {
		err := createTopic(ctx, adm, replication, t)
		switch {
		case err == nil:
			created = append(created, t.Name)
		case security.Denied(err):
			left, denied = append(left, t), err
		case !errors.Is(err, kerr.TopicAlreadyExists):
			return fmt.Errorf("create topic %s with %d partitions: %w", t.Name, t.Partitions, creationRemedy(err))
		}
	}
	if err := awaitTopics(ctx, adm, created); err != nil {
		return err
	}
	if denied == nil {
		return nil
	}
	return awaitOthers(ctx, cl, left, denied)
}

// othersLimit is how long topics that somebody else has to make are waited for: brokers learn of a new one a moment after
// its maker was told that it is there.
const othersLimit = 3 * time.Second

// awaitOthers waits for topics that this process may not make.
func awaitOthers(ctx context.Context, cl *kgo.Client, topics []Topic, denied error) error {
	waiting, cancel := context.WithTimeout(ctx, othersLimit)
	defer cancel()
	tick := time.NewTicker(othersLimit / 10)
	defer tick.Stop()
	for {
		select {
		case <-waiting.Done():
			not := &NotCreated{Err: denied}
			for _, t := range topics {
				not.Topics = append(not.Topics, t.Name)
			}
			return not
		case <-tick.C:
		}
		if left, err := missingTopics(ctx, cl, topics); err == nil {
			topics = left
		}
		if len(topics) == 0 {
			return nil
		}
	}
}

// ListTopics describes topics, with what this process may do with them and each with its own error: the admin client's own gives none of them where the broker keeps
// one from this process.
func ListTopics(ctx context.Context, cl *kgo.Client, names ...string) (kadm.TopicDetails, error) {
	answer, err := metadata(ctx, cl, names)
	if err != nil {
		return nil, err
	}
	out := make(kadm.TopicDetails, len(answer.Topics))
	for _, t := range answer.Topics {
		if t.Topic == nil {
			continue
		}
		d := kadm.TopicDetail{Topic: *t.Topic, ID: t.TopicID, IsInternal: t.IsInternal, Partitions: make(kadm.PartitionDetails, len(t.Partitions)),
			AuthorizedOperations: kadm.DecodeACLOperations(t.AuthorizedOperations), Err: kerr.ErrorForCode(t.ErrorCode)}
		for _, p := range t.Partitions {
			d.Partitions[p.Partition] = kadm.PartitionDetail{Topic: *t.Topic, Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch,
				Replicas: p.Replicas, ISR: p.ISR, OfflineReplicas: p.OfflineReplicas, Err: kerr.ErrorForCode(p.ErrorCode)}
		}
		out[d.Topic] = d
	}
	return out, nil
}

// metadata asks any broker about topics.
func metadata(ctx context.Context, cl *kgo.Client, names []string) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // nil would be all
	req.IncludeTopicAuthorizedOperations = true
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	return req.RequestWith(ctx, cl)
}

// missingTopics are those that don't exist.
func missingTopics(ctx context.Context, cl *kgo.Client, wanted []Topic) ([]Topic, error) {
	names := make([]string, len(wanted))
	for i, t := range wanted {
		names[i] = t.Name
	}
	known, err := ListTopics(ctx, cl, names...)
	if err != nil {
		return nil, fmt.Errorf("look up topics: %w", err)
	}
	var missing []Topic
	var hidden []string
	var why error
	for _, t := range wanted {
		switch found := known[t.Name]; {
		case security.Denied(found.Err):
			hidden, why = append(hidden, t.Name), found.Err
		case found.Err != nil || len(found.Partitions) == 0:
			missing = append(missing, t)
		}
	}
	if why != nil {
		return nil, Explained("look up the topics "+strings.Join(hidden, ", ")+", which this process may not even describe", why)
	}
	return missing, nil
}

// CheckTopic reports whether a topic exists or could be made by this process; the error is a *NotCreated where neither is
// so. It makes nothing.
func CheckTopic(ctx context.Context, cl *kgo.Client, replication int16, t Topic) error {
	missing, err := missingTopics(ctx, cl, []Topic{t})
	if err != nil || len(missing) == 0 {
		return err
	}
	answers, err := kadm.NewClient(cl).ValidateCreateTopics(ctx, t.Partitions, replication, nil, t.Name)
	if err == nil {
		_, err = answers.On(t.Name, func(r *kadm.CreateTopicResponse) error { return r.Err })
	}
	if security.Denied(err) {
		return &NotCreated{[]string{t.Name}, err}
	}
	return nil // what else is wrong shows when it is made
}

func createTopic(ctx context.Context, adm *kadm.Client, replication int16, t Topic) error {
	configs := make(map[string]*string, len(t.Configs))
	for k, v := range t.Configs {
		configs[k] = &v
	}
	resp, err := adm.CreateTopic(ctx, t.Partitions, replication, configs, t.Name)
	if err == nil {
		err = resp.Err
	}
	return err
}

// awaitTopics waits until a broker knows the topics: the controller answers before it has told the brokers.
func awaitTopics(ctx context.Context, adm *kadm.Client, names []string) error {
	if len(names) == 0 {
		return nil
	}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		known, err := adm.ListTopics(ctx, names...)
		if err != nil {
			return fmt.Errorf("look for new topics: %w", err)
		}
		if known.Error() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for new topics: %w: %w", ctx.Err(), known.Error())
		case <-tick.C:
		}
	}
}

func creationRemedy(err error) error {
	if errors.Is(err, kerr.InvalidReplicationFactor) {
		return fmt.Errorf("set REEVE_TOPIC_REPLICATION to at most the number of brokers: %w", err)
	}
	return err
}

// MaxBytes is a topic's record size limit.
func MaxBytes(ctx context.Context, cl *kgo.Client, topic string) (int, error) {
	described, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("read settings of topic %s: %w", topic, err)
	}
	rc, err := described.On(topic, nil)
	if err == nil {
		err = rc.Err
	}
	if err != nil {
		return 0, fmt.Errorf("read settings of topic %s: %w", topic, err)
	}
	for _, c := range rc.Configs {
		if c.Key != maxMessageBytes {
			continue
		}
		if n, err := strconv.Atoi(c.MaybeValue()); err == nil {
			return n, nil
		}
	}
	return DefaultMaxBytes, nil
}

// RaiseMaxBytes makes sure that a topic takes records of at least this size.
func RaiseMaxBytes(ctx context.Context, cl *kgo.Client, topic string, atLeast int) error {
	now, err := MaxBytes(ctx, cl, topic)
	if err != nil || now >= atLeast {
		return err
	}
	value := strconv.Itoa(atLeast)
	resp, err := kadm.NewClient(cl).AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: maxMessageBytes, Value: &value}}, topic)
	if err == nil {
		_, err = resp.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
	if err != nil {
		return fmt.Errorf("raise %s of topic %s to %d: %w", maxMessageBytes, topic, atLeast, err)
	}
	return nil
}

// Trim deletes the records below the given offsets, by topic and partition. A topic that is gone, and an offset that
// is already below the log's start, are fine. One topic's trouble doesn't keep the others from being trimmed.
func Trim(ctx context.Context, cl *kgo.Client, below map[string]map[int32]int64) error {
	var errs []error
	for topic, ps := range below {
		errs = append(errs, trimTopic(ctx, kadm.NewClient(cl), topic, ps))
	}
	return errors.Join(errs...)
}

func trimTopic(ctx context.Context, adm *kadm.Client, topic string, below map[int32]int64) error {
	var offsets kadm.Offsets
	for p, at := range below {
		if at > 0 {
			offsets.AddOffset(topic, p, at, -1)
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	resps, err := adm.DeleteRecords(ctx, offsets)
	if err == nil {
		err = resps.Error()
	}
	if err != nil && !trimmed(err) {
		return fmt.Errorf("trim topic %s behind committed offsets: %w", topic, err)
	}
	return nil
}

// trimmed reports whether an error says that there is nothing to trim.
func trimmed(err error) bool {
	if shards := (*kadm.ShardErrors)(nil); errors.As(err, &shards) {
		for _, s := range shards.Errs {
			if !trimmed(s.Err) {
				return false
			}
		}
		return true
	}
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.OffsetOutOfRange)
}
