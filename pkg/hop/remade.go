package hop

import (
	"context"
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// unknownTopic is called where brokers don't know the topic by the id that the client has, and haven't for seconds: so long
// the client keeps that for itself. One that is there under the name with another id was made again, and the client never
// takes it for the one it knows. One that is gone may come again, and brokers that are behind may yet hear of the same one: to
// leave the group for these would cost what runs. id is zero where the client has found out in its group: then it has given
// the partitions up.
func (m *Member) unknownTopic(ctx context.Context, id [16]byte) {
	ts, err := m.adm.ListTopics(ctx, m.cfg.Topic)
	if err == nil {
		err = ts[m.cfg.Topic].Err
	}
	switch {
	case err == nil && ts[m.cfg.Topic].ID != id:
		m.joinAnew(ctx)
	case err == nil:
		m.log.Warn("a broker doesn't know the topic yet: fetching goes on", slog.String("topic", m.cfg.Topic))
	case !errors.Is(err, kerr.UnknownTopicOrPartition):
		m.log.Warn("look up the topic that brokers don't know", slog.String("topic", m.cfg.Topic), slog.Any("error", err))
	}
	sleep(ctx, deniedPause) // the client would fetch again at once, and for ever
}

// unknownID reports whether a poll says that brokers don't know the topic, and by which id.
func unknownID(fs kgo.Fetches) (id [16]byte, unknown bool) {
	fs.EachTopic(func(t kgo.FetchTopic) {
		t.EachPartition(func(p kgo.FetchPartition) {
			if errors.Is(p.Err, kerr.UnknownTopicID) {
				id, unknown = t.TopicID, true
			}
		})
	})
	return id, unknown
}

// joinAnew makes the client forget what it knows of the topic. The group is left by name, so that nothing more is committed
// of the one before. The topic is consumed again once its partitions are revoked (gone): where it were before, the client
// would take them for those that it has already. Where none are owned, as the group has said already that the member left it,
// nothing is revoked any more.
func (m *Member) joinAnew(ctx context.Context) {
	m.log.Warn("the topic was made again: joining its group anew", slog.String("topic", m.cfg.Topic))
	if err := m.leave(ctx, m.adm); err != nil {
		m.log.Warn("leave the group to join it anew", slog.Any("error", err))
	}
	m.purged.Store(true) // for good: a session may end at any time, and to consume what is consumed changes nothing
	m.cl.PurgeTopicsFromConsuming(m.cfg.Topic)
	m.mu.Lock()
	owned := len(m.owned)
	m.mu.Unlock()
	if owned == 0 {
		m.cl.AddConsumeTopics(m.cfg.Topic)
	}
}

// gone is called where a session of the group has ended, with the partitions that went with it.
func (m *Member) gone(ps []int32) {
	m.mu.Lock()
	for _, p := range ps {
		delete(m.owned, p)
	}
	m.mu.Unlock()
	if m.purged.Load() {
		m.cl.AddConsumeTopics(m.cfg.Topic)
	}
}
