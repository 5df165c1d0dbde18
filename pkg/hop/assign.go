package hop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	retryPause    = 25 * time.Millisecond
	retryPauseMax = 400 * time.Millisecond
	// missingLimit is how long a broker may be behind with a partition that the group has assigned.
	missingLimit = 3 * time.Second
)

// assigned finds out where the new partitions stand, ends what a dead owner left open, claims them and tells the
// Handler. It doesn't give up while the member stands: a partition whose position isn't known must not be consumed. A
// member that the group has dropped meanwhile could try for ever, and its joining again would wait for that: the session
// is ended instead.
func (m *Member) assigned(ctx context.Context, _ *kgo.Client, ps map[string][]int32) {
	<-m.made
	m.lease.joined()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.life, cancel)() // Close waits for this callback
	m.giveUp(cancel)
	defer m.giveUp(nil)
	parts := slices.Clone(ps[m.cfg.Topic])
	slices.Sort(parts)
	m.mu.Lock()
	for _, p := range parts {
		m.owned[p] = true
	}
	m.mu.Unlock()
	var as []Assignment
	pause, began := retryPause, time.Now()
	for tries := 0; len(parts) > 0; tries++ {
		var err error
		if as, err = m.takeOver(ctx, parts); err == nil {
			break
		}
		if dropped(err) {
			m.log.Warn("the group went on without this member while it looked for the position of its partitions", slog.Any("error", err))
			m.mu.Lock()
			m.dropped = err
			m.mu.Unlock()
			return
		}
		if errors.Is(err, errMissing) && time.Since(began) > missingLimit {
			m.startOver(ctx, err)
			return
		}
		wait := pause
		if security.Denied(err) {
			m.tellDenied(err)
			wait = deniedPause
		} else if tries%20 == 0 {
			m.log.Warn("waiting for the position of assigned partitions", slog.Any("error", err))
		}
		if !sleep(ctx, wait) {
			m.mu.Lock()
			m.dropped = err
			m.mu.Unlock()
			return
		}
		pause = min(2*pause, retryPauseMax)
	}
	if len(as) > 0 {
		m.tellDenied(nil)
	}
	m.cfg.Handler.Assigned(ctx, as)
}

// errMissing is the error of a partition that the topic doesn't have.
var errMissing = errors.New("the range of the partition isn't known yet")

// startOver leaves the group by name and ends the session. A static member that comes back gets the partitions that it had,
// without a look at the topic; where that was made again with fewer, only a new assignment helps.
func (m *Member) startOver(ctx context.Context, why error) {
	m.log.Warn("the topic has fewer partitions than were assigned: the group assigns them anew", slog.Any("error", why))
	if err := m.leave(ctx, m.adm); err != nil {
		m.log.Warn("leave the group to join it anew", slog.Any("error", err))
	}
	m.mu.Lock()
	m.dropped = why
	m.mu.Unlock()
}

// giveUp notes how to end the search for positions that is under way; nil: there is none.
func (m *Member) giveUp(search context.CancelFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.search = search
	if m.over && search != nil {
		search()
	}
}

// pollOver says whether the poll that is under way should end. The client's would wait for the search for positions,
// whatever its context says.
func (m *Member) pollOver(over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = over
	if over && m.search != nil {
		m.search()
	}
}

// dropped reports whether an error says that the group has no member of this standing any more.
func dropped(err error) bool {
	return errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.FencedInstanceID)
}

// fetched is asked by the client before it consumes from the offsets that it has read. Its error ends the session: all
// partitions count as lost, and the member joins anew.
func (m *Member) fetched(_ context.Context, os map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return os, m.dropped
}

// takeOver is one try of assigned.
func (m *Member) takeOver(ctx context.Context, parts []int32) ([]Assignment, error) {
	id, logs, err := m.logs(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.topicID = id
	m.mu.Unlock()
	// The first look may see what a pending transaction is about to replace; it serves only to learn who wrote last.
	seen, err := m.adm.FetchOffsetsForTopics(ctx, m.cfg.Group, m.cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("fetch offsets of group %s: %w", m.cfg.Group, err)
	}
	if err := m.endDeadWriters(ctx, parts, seen); err != nil {
		return nil, err
	}
	stable, err := m.adm.FetchOffsetsForTopics(kadm.RequireStable(ctx), m.cfg.Group, m.cfg.Topic)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("fetch stable offsets of group %s: %w", m.cfg.Group, err)
	}
	as := make([]Assignment, 0, len(parts))
	claims := map[int32]Position{}
	for _, p := range parts {
		log, ok := logs[p]
		if !ok { // a broker that is behind: without this a partition would look as if it had been made again
			return nil, fmt.Errorf("%s/%d: %w", m.cfg.Topic, p, errMissing)
		}
		a, claim := m.position(p, stable, log, id)
		as = append(as, a)
		if claim != nil {
			claims[p] = *claim
		}
	}
	if len(claims) > 0 {
		if err := m.commitPlain(ctx, m.Generation(), claims); err != nil {
			return nil, fmt.Errorf("claim partitions: %w", err)
		}
	}
	return as, nil
}

type logRange struct{ start, end int64 }

// logs gives the topic's id and its partitions' ranges.
func (m *Member) logs(ctx context.Context) ([16]byte, map[int32]logRange, error) {
	ts, err := m.adm.ListTopics(ctx, m.cfg.Topic)
	if err != nil {
		return [16]byte{}, nil, fmt.Errorf("look up topic %s: %w", m.cfg.Topic, err)
	}
	if err := ts[m.cfg.Topic].Err; err != nil {
		return [16]byte{}, nil, fmt.Errorf("look up topic %s: %w", m.cfg.Topic, err)
	}
	starts, err := m.adm.ListStartOffsets(ctx, m.cfg.Topic)
	if err != nil {
		return [16]byte{}, nil, fmt.Errorf("list start offsets of %s: %w", m.cfg.Topic, err)
	}
	ends, err := m.adm.ListCommittedOffsets(ctx, m.cfg.Topic)
	if err != nil {
		return [16]byte{}, nil, fmt.Errorf("list end offsets of %s: %w", m.cfg.Topic, err)
	}
	if err := errors.Join(starts.Error(), ends.Error()); err != nil {
		return [16]byte{}, nil, fmt.Errorf("list offsets of %s: %w", m.cfg.Topic, err)
	}
	logs := map[int32]logRange{}
	starts.Each(func(o kadm.ListedOffset) {
		end, _ := ends.Lookup(m.cfg.Topic, o.Partition)
		logs[o.Partition] = logRange{o.Offset, end.Offset}
	})
	return ts[m.cfg.Topic].ID, logs, nil
}

// position decides where a partition stands. claim is what has to be committed before anything starts, so that whoever
// comes next knows who was here; nil where the last commit is ours already.
func (m *Member) position(p int32, committed kadm.OffsetResponses, log logRange, id [16]byte) (a Assignment, claim *Position) {
	a = Assignment{Partition: p, TopicID: id, Offset: log.start, LogEnd: log.end}
	o, ok := committed.Lookup(m.cfg.Topic, p)
	known := ok && o.At >= 0
	if known {
		m.mu.Lock()
		last, own := m.committed[p]
		m.mu.Unlock()
		a.Own = own && last == Position{o.At, o.Metadata}
		a.Offset = o.At
		a.Metadata = m.decode(p, o.At, o.Metadata)
	}
	none := [16]byte{}
	cut := known && o.At <= log.end && id != none && a.Metadata.TopicID == id && a.Metadata.Reach(o.At) > log.end
	if cut { // what comes at these offsets from now on would count as settled
		m.log.Error("the log ends before what was settled of it: the broker has lost records; going on at its end", slog.String("topic", m.cfg.Topic),
			slog.Int("partition", int(p)), slog.Int64("settled", a.Metadata.Reach(o.At)), slog.Int64("end", log.end))
		a.Reached = a.Metadata.Reach(o.At)
		a.Metadata, a.Own = a.Metadata.Below(o.At, log.end), false
	}
	switch {
	case !known:
		a.Offset = m.begin(p, log, id)
	case known && o.At > log.end && id != none && a.Metadata.TopicID == id:
		// What was committed was there: the log lost its end, by the election of a leader that lagged behind or the like.
		// To begin anew would repeat all that the topic still has.
		m.log.Error("the log ends before the committed offset: the broker has lost records; going on at its end", slog.String("topic", m.cfg.Topic),
			slog.Int("partition", int(p)), slog.Int64("committed", o.At), slog.Int64("end", log.end))
		a.Offset, a.Own, a.Reached = log.end, false, a.Metadata.Reach(o.At)
		a.Metadata = offsets.Metadata{TopicID: id, Node: a.Metadata.Node, Passed: a.Metadata.Passed, Outages: a.Metadata.Outages}
	case known && a.Metadata.TopicID != none && id != none && a.Metadata.TopicID != id, known && o.At > log.end:
		m.log.Warn("the topic was made again since the last commit: starting at its beginning", slog.String("topic", m.cfg.Topic), slog.Int("partition", int(p)), slog.Int64("offset", a.Offset))
		a = Assignment{Partition: p, TopicID: id, Offset: log.start, LogEnd: log.end}
	case known && o.At < log.start:
		m.cfg.Handler.Overtaken(p, o.At, log.start)
		a.Metadata = a.Metadata.From(o.At, log.start)
		a.Offset, a.Own = log.start, false
	case known && a.Metadata.Node == m.cfg.Node && !cut:
		return a, nil
	}
	mine := a.Metadata
	mine.Node, mine.TopicID, mine.Clean = m.cfg.Node, id, false
	return a, &Position{a.Offset, mine.Encode(a.Offset)}
}

// begin is where a partition begins that nobody has committed. It is committed before anything is consumed, under the
// group's generation, so that it is decided once.
func (m *Member) begin(p int32, log logRange, id [16]byte) int64 {
	if m.cfg.Begin == nil {
		return log.start
	}
	at, ok := m.cfg.Begin(id, p)
	switch {
	case !ok, at > log.end: // beyond the end it was another topic's
		return log.start
	case at < log.start:
		m.cfg.Handler.Overtaken(p, at, log.start)
		return log.start
	}
	return at
}

func (m *Member) decode(p int32, at int64, metadata string) offsets.Metadata {
	md, err := offsets.Decode(at, metadata)
	if err != nil {
		m.log.Warn("commit metadata can't be read and counts as empty", slog.String("topic", m.cfg.Topic), slog.Int("partition", int(p)), slog.Any("error", err))
	}
	return md
}

// endDeadWriters ends the open transactions of nodes that wrote the last commits, handed nothing over and aren't in
// the group any more: an open transaction would stall every reader of the topics it touched.
func (m *Member) endDeadWriters(ctx context.Context, parts []int32, seen kadm.OffsetResponses) error {
	suspects := map[string]bool{}
	for _, p := range parts {
		if o, ok := seen.Lookup(m.cfg.Topic, p); ok && o.At >= 0 {
			if md, err := offsets.Decode(o.At, o.Metadata); err == nil && !md.Clean && md.Node != "" && md.Node != m.cfg.Node {
				suspects[md.Node] = true
			}
		}
	}
	if len(suspects) == 0 {
		return nil
	}
	gs, err := m.adm.DescribeGroups(ctx, m.cfg.Group)
	if err == nil {
		err = gs[m.cfg.Group].Err
	}
	if err != nil {
		return fmt.Errorf("describe group %s: %w", m.cfg.Group, err)
	}
	for _, member := range gs[m.cfg.Group].Members {
		if member.InstanceID != nil {
			for node := range suspects {
				if *member.InstanceID == m.cfg.Service+"."+node {
					delete(suspects, node)
				}
			}
		}
	}
	for node := range suspects {
		m.log.Info("ending the open transactions of a node that is gone", slog.String("node", node))
		if err := EndTransactions(ctx, m.cl, m.cfg.Names, m.cfg.Service, node); err != nil {
			return err
		}
	}
	return nil
}

// MaxProducers is how many transactional ids a node has, extras included.
const MaxProducers = 8

// EndTransactions ends whatever a node's producers left open, by claiming their ids (InitProducerID). A process that is
// still alive under that name loses its producers.
func EndTransactions(ctx context.Context, cl *kgo.Client, names topics.Names, service, node string) error {
	var wg sync.WaitGroup
	errs := make([]error, MaxProducers)
	for k := range MaxProducers {
		wg.Go(func() { errs[k] = endTransaction(ctx, cl, names.TransactionalID(service, node, k)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func endTransaction(ctx context.Context, cl *kgo.Client, id string) error {
	for {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID = &id
		req.TransactionTimeoutMillis = int32(TransactionTimeout / time.Millisecond)
		resp, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil {
			return nil
		}
		if !kerr.IsRetriable(err) && !errors.Is(err, kerr.ConcurrentTransactions) {
			return fmt.Errorf("end transactions of %s: %w", id, err)
		}
		if !sleep(ctx, retryPause) {
			return fmt.Errorf("end transactions of %s: %w", id, ctx.Err())
		}
	}
}

// sleep waits, and reports false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
