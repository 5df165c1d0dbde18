package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/status"
)

const (
	dlqEvery = 30 * time.Second // between two looks for a dead-letter topic that somebody else has to make
	dlqLimit = 3 * time.Second  // of one look
)

// topicCheck is what a keeper knows of topics that it can't make itself.
type topicCheck struct {
	said  string    // the last error of joining
	next  time.Time // when the dead-letter topic is looked for again; it isn't once it is there or can be made
	done  bool
	alert bool // that it is missing stands
}

// begin looks at everything again. An alert stands until it is taken back.
func (c *topicCheck) begin() { *c = topicCheck{alert: c.alert} }

// news reports whether an error is another one than before.
func (c *topicCheck) news(err error) bool {
	changed := err.Error() != c.said
	c.said = err.Error()
	return changed
}

// checkDLQ alerts early where a dead-letter topic is missing that the engine won't be able to make on first use: tasks that
// fail for good would wait for it.
func (k *Keeper) checkDLQ(ctx context.Context, now time.Time) {
	if k.topics.done || now.Before(k.topics.next) {
		return
	}
	if !k.spec.Config.DLQEnabled {
		k.endTopicAlert("the agent keeps no dead letters any more")
		return
	}
	k.topics.next = now.Add(dlqEvery)
	ctx, cancel := context.WithTimeout(ctx, dlqLimit)
	defer cancel()
	topic := kafka.DLQTopic(k.env.Names, k.spec, kafka.DefaultMaxBytes)
	err := kafka.CheckTopic(ctx, k.env.Client, k.env.Kafka.Replication, topic)
	if not := (*kafka.NotCreated)(nil); errors.As(err, &not) && !k.topics.alert {
		k.topics.alert = true
		k.sendAlert(status.KindTopicMissing, "warning", fmt.Sprintf(
			"the dead-letter topic %s doesn't exist and this supervisor may not create it: tasks that fail for good will wait; have it made (`reeve topics --agent %s` says how), or grant Create on it", topic.Name, k.spec.Ref()), false)
	}
	if err != nil {
		return // also where the broker doesn't answer: it is asked again
	}
	k.topics.done = true
	k.endTopicAlert("the dead-letter topic is there")
}

// endTopicAlert takes the alert back, if it stands.
func (k *Keeper) endTopicAlert(why string) {
	if k.topics.alert {
		k.topics.alert = false
		k.sendAlert(status.KindTopicMissing, "warning", why, true)
	}
}
