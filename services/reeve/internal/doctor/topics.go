package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/security"
)

// topics looks at the topics that the services need, and at those that the agents listen to.
func (e *Examination) topics(ctx context.Context, cl *kgo.Client) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	planned := e.Installation.Topics()
	names := e.Installation.UserTopics()
	for _, p := range planned {
		names = append(names, p.Name)
	}
	found, err := kafka.ListTopics(ctx, cl, names...)
	if err != nil {
		e.fail("topics", "", "look up topics: %v", err)
		return
	}
	for _, p := range planned {
		if !e.concerns(slices.Concat(p.WrittenBy, p.ReadBy, p.CreatedBy)...) {
			continue
		}
		e.planned(ctx, cl, p, found[p.Name])
	}
	for _, name := range e.Installation.UserTopics() {
		e.userTopic(name, found[name])
	}
}

func (e *Examination) planned(ctx context.Context, cl *kgo.Client, p kafka.Planned, found kadm.TopicDetail) {
	name := "topic " + p.Name
	switch {
	case security.Denied(found.Err):
		e.skip(name, "it may not be described, see its rights")
	case found.Err != nil && !errors.Is(found.Err, kerr.UnknownTopicOrPartition):
		e.fail(name, "", "%v", found.Err)
	case found.Err != nil || len(found.Partitions) == 0:
		e.missing(ctx, cl, p)
	default:
		e.settings(ctx, cl, p, found)
	}
}

// missing decides whether a topic that isn't there is trouble: not where a service that makes it may do so.
func (e *Examination) missing(ctx context.Context, cl *kgo.Client, p kafka.Planned) {
	name, remedy := "topic "+p.Name, "have it made: `reeve topics --commands` writes the lines; or grant Create on it (`reeve acls --create-topics`)"
	if p.Agent != "" {
		remedy = strings.Replace(remedy, "topics --commands", "topics --agent "+p.Agent+" --commands", 1)
	}
	err := kafka.CheckTopic(ctx, cl, e.Config.Kafka.Replication, p.Topic)
	not := (*kafka.NotCreated)(nil)
	switch {
	case err == nil && e.concerns(p.CreatedBy...):
		e.ok(name, "isn't there yet, and will be made (%s)", partitions(int(p.Partitions)))
	case errors.As(err, &not) || err == nil:
		e.fail(name, remedy, "it isn't there, and none of the services that were looked at may make it")
	default:
		e.fail(name, remedy, "it isn't there: %v", err)
	}
}

// settings compares a topic with what it should be.
func (e *Examination) settings(ctx context.Context, cl *kgo.Client, p kafka.Planned, found kadm.TopicDetail) {
	name := "topic " + p.Name
	if fixed := p.Agent != "" && len(p.WrittenBy) == 1 && p.WrittenBy[0] == "dispatcher" || p.Partitions == 1; fixed && len(found.Partitions) != int(p.Partitions) {
		e.fail(name, "make it anew with that number, when it is empty", "it has %s and needs %d", partitions(len(found.Partitions)), p.Partitions)
		return
	}
	described, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, p.Name)
	if err == nil {
		_, err = described.On(p.Name, func(r *kadm.ResourceConfig) error { return r.Err })
	}
	if security.Denied(err) {
		e.ok(name, "%s; its settings may not be read by this principal", partitions(len(found.Partitions)))
		return
	}
	if err != nil {
		e.fail(name, "", "read its settings: %v", err)
		return
	}
	now := map[string]string{}
	for _, c := range described[0].Configs {
		now[c.Key] = c.MaybeValue()
	}
	bad, poor := judge(p.Configs, now)
	set := make([]string, 0, len(bad)+len(poor))
	for _, key := range slices.Concat(bad, poor) {
		set = append(set, key+"="+p.Configs[key])
	}
	remedy := "kafka-configs.sh --alter --entity-type topics --entity-name " + p.Name + " --add-config " + strings.Join(set, ",")
	switch {
	case len(bad) > 0:
		e.fail(name, remedy, "%s", differences(bad, p.Configs, now))
	case len(poor) > 0:
		e.warn(name, remedy, "%s", differences(poor, p.Configs, now))
	default:
		e.ok(name, "%s, settings as they should be", partitions(len(found.Partitions)))
	}
}

// judge names the settings by which accepted work would be lost or come out of order, and those that are merely not as
// they should be.
func judge(want, now map[string]string) (bad, poor []string) {
	for _, key := range sorted(want) {
		have, known := now[key]
		if !known || have == want[key] {
			continue
		}
		switch key {
		case "max.message.bytes":
			w, err1 := strconv.Atoi(want[key])
			h, err2 := strconv.Atoi(have)
			if err1 == nil && err2 == nil && h >= w {
				continue
			}
			poor = append(poor, key)
		case "cleanup.policy", "retention.bytes", "message.timestamp.type":
			bad = append(bad, key)
		case "retention.ms":
			if want[key] != "-1" { // what is kept longer than needed is no loss
				poor = append(poor, key)
				continue
			}
			bad = append(bad, key)
		case "segment.bytes", "compression.type":
		default:
			poor = append(poor, key)
		}
	}
	return bad, poor
}

func differences(keys []string, want, now map[string]string) string {
	parts := make([]string, len(keys))
	for i, key := range keys {
		parts[i] = fmt.Sprintf("%s is %s and should be %s", key, now[key], want[key])
	}
	return strings.Join(parts, ", ")
}

func partitions(n int) string {
	if n == 1 {
		return "1 partition"
	}
	return strconv.Itoa(n) + " partitions"
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (e *Examination) userTopic(topic string, found kadm.TopicDetail) {
	name := "topic " + topic
	switch {
	case security.Denied(found.Err):
		e.skip(name, "it may not be described, see its rights")
	case found.Err != nil || len(found.Partitions) == 0:
		e.warn(name, "create it: its events are routed from then on", "agents listen to it, and it isn't there")
	default:
		e.ok(name, "yours, %s", partitions(len(found.Partitions)))
	}
}
