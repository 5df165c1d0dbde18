package hop

import (
	"context"
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"
)

// unknownTopic is called where brokers don't know the topic by the id that the client has, and haven't for seconds: so long
// the client keeps that for itself. One that is there under the name is another one then, which the client never takes for
// the one it knows. One that is gone may come again.
func (m *Member) unknownTopic(ctx context.Context) {
	ts, err := m.adm.ListTopics(ctx, m.cfg.Topic)
	if err == nil {
		err = ts[m.cfg.Topic].Err
	}
	switch {
	case err == nil:
		m.joinAnew(ctx)
	case !errors.Is(err, kerr.UnknownTopicOrPartition):
		m.log.Warn("look up the topic that brokers don't know", slog.String("topic", m.cfg.Topic), slog.Any("error", err))
	}
	sleep(ctx, deniedPause) // the client would fetch again at once, and for ever
}

// joinAnew makes the client forget what it knows of the topic. The group is left by name, so that nothing more is committed
// of the one before. The topic is consumed again once its partitions are revoked (consumeAgain): where it were before, the
// client would take them for those that it has already.
func (m *Member) joinAnew(ctx context.Context) {
	m.log.Warn("the topic was made again: joining its group anew", slog.String("topic", m.cfg.Topic))
	if err := m.leave(ctx, m.adm); err != nil {
		m.log.Warn("leave the group to join it anew", slog.Any("error", err))
	}
	m.purged.Store(true) // for good: a session may end at any time, and to consume what is consumed changes nothing
	m.cl.PurgeTopicsFromConsuming(m.cfg.Topic)
}

// consumeAgain is called where a session of the group has ended.
func (m *Member) consumeAgain() {
	if m.purged.Load() {
		m.cl.AddConsumeTopics(m.cfg.Topic)
	}
}
