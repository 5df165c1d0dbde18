package hop

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Generation is a member's standing in its group at one time. A commit carries the one under which its positions were
// taken together: positions from before a partition was lost must never be committed after.
type Generation struct {
	member string
	number int32
}

// Generation is the current one.
func (m *Member) Generation() Generation {
	member, number := m.cl.GroupMetadata()
	return Generation{member, number}
}

// commitPlain commits positions outside of a transaction. The group's generation fences it.
func (m *Member) commitPlain(ctx context.Context, g Generation, ps map[int32]Position) error {
	if g.member == "" {
		return ErrNotMember
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation, req.InstanceID = m.cfg.Group, g.member, g.number, &m.instance
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.TopicID = m.cfg.Topic, m.TopicID()
	for p, at := range ps {
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.Metadata = p, at.Offset, &at.Metadata
		t.Partitions = append(t.Partitions, rp)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, m.cl)
	if err != nil {
		return fmt.Errorf("commit offsets of group %s: %w", m.cfg.Group, err)
	}
	for _, rt := range resp.Topics {
		for _, rp := range rt.Partitions {
			if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
				return fmt.Errorf("commit offset of %s/%d for group %s: %w", m.cfg.Topic, rp.Partition, m.cfg.Group, err)
			}
		}
	}
	m.confirmed(ps)
	return nil
}

// commitWithin adds positions to a producer's open transaction. The request is made by hand because kgo's own offers
// no metadata and commits what was polled, not what was settled.
func (m *Member) commitWithin(ctx context.Context, cl *kgo.Client, id string, g Generation, ps map[int32]Position) error {
	if g.member == "" {
		return ErrNotMember
	}
	pid, epoch, err := cl.ProducerID(ctx) // the epoch changes with every end of a transaction (KIP-890)
	if err != nil {
		return fmt.Errorf("producer id of %s: %w", id, err)
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = id, pid, epoch
	req.Group, req.MemberID, req.Generation, req.InstanceID = m.cfg.Group, g.member, g.number, &m.instance
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic, t.TopicID = m.cfg.Topic, m.TopicID() // version 6 goes by id alone
	for p, at := range ps {
		rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.Metadata = p, at.Offset, &at.Metadata
		t.Partitions = append(t.Partitions, rp)
	}
	req.Topics = append(req.Topics, t)
	for tries := 0; ; tries++ {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return fmt.Errorf("commit offsets of group %s within %s: %w", m.cfg.Group, id, err)
		}
		err = offsetsError(resp)
		if err == nil {
			return nil
		}
		if again := errors.Is(err, kerr.ConcurrentTransactions) || kerr.IsRetriable(err); !again || tries == 200 || !sleep(ctx, retryPause/5) {
			return fmt.Errorf("commit offsets of group %s within %s: %w", m.cfg.Group, id, err)
		}
	}
}

func offsetsError(resp *kmsg.TxnOffsetCommitResponse) error {
	for _, rt := range resp.Topics {
		for _, rp := range rt.Partitions {
			if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// standsAt reports whether the stable committed positions are these. It is asked once the transaction is decided, so
// any of its partitions tells of all.
func (m *Member) standsAt(ctx context.Context, ps map[int32]Position) (bool, error) {
	for {
		os, err := m.adm.FetchOffsetsForTopics(kadm.RequireStable(ctx), m.cfg.Group, m.cfg.Topic)
		if err == nil {
			err = os.Error()
		}
		if err == nil {
			for p, want := range ps {
				o, ok := os.Lookup(m.cfg.Topic, p)
				if !ok || o.At != want.Offset || o.Metadata != want.Metadata {
					return false, nil
				}
			}
			return true, nil
		}
		if !sleep(ctx, retryPause) {
			return false, fmt.Errorf("fetch stable offsets of group %s: %w", m.cfg.Group, err)
		}
	}
}

func (m *Member) inDoubt() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.doubt
}

func (m *Member) doubted() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doubt = true
}

func (m *Member) confirmed(ps map[int32]Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.committed, ps)
}
