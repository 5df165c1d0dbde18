package hop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/topics"
)

var (
	// ErrReplaced says that a newer process joined under this node's name: this one has to end its work and go.
	ErrReplaced = errors.New("a newer process runs under this node's name")
	// ErrClosed is returned by Poll after Close.
	ErrClosed = errors.New("the group member is closed")
	// ErrInDoubt says that a transaction was given up whose end isn't known: this member commits nothing more. Whoever
	// reads the committed positions next finds out.
	ErrInDoubt = errors.New("it isn't known whether the last transaction was committed")
	// ErrNotMember says that the group doesn't count this member at the moment, so nothing may be committed.
	ErrNotMember = errors.New("not a member of the group")
)

// DefaultSession is the session timeout of a group member: the least that brokers allow by default
// (group.min.session.timeout.ms), since it bounds how long a dead node's work waits.
const DefaultSession = 6 * time.Second

// deniedPause is how long Poll waits where the broker doesn't let the member consume.
const deniedPause = time.Second

// MemberConfig configures a Member. Group, Topic, Service, Node and Handler are required.
type MemberConfig struct {
	// Opts reach the brokers (seeds, TLS, SASL, logger).
	Opts []kgo.Opt
	// Names are the installation's.
	Names topics.Names
	// Group and Topic are what to join and consume.
	Group, Topic string
	// Service and Node make the static member's instance id, <service>.<node>, and name the writer of commits.
	Service, Node string
	// Handler is told of assignments.
	Handler Handler
	// Begin says where a partition begins that the group has no commit of; !ok is the log's start. Where nothing is left
	// there, the gap is told as overtaken. Defaults to the log's start.
	Begin func(topicID [16]byte, partition int32) (offset int64, ok bool)
	// Session is the session timeout. Defaults to DefaultSession.
	Session time.Duration
	// Denied is told when the broker refuses the member a right that it needs to consume, and with nil once it has got
	// partitions or records again. Meanwhile it goes on trying. May be nil.
	Denied func(err error)
	// Logger defaults to discarding.
	Logger *slog.Logger
}

// Handler is told what partitions the member owns. Its methods run on the group's goroutine or within a Poll, never between
// a Poll's return and AllowRebalance; as long as one runs, no record of a new assignment is delivered.
type Handler interface {
	// Assigned gives the partitions that were added, perhaps none, with where they stand. Consumption starts at
	// Assignment.Offset.
	Assigned(ctx context.Context, as []Assignment)
	// Revoked takes partitions back; commits are still possible until it returns, within 10 s.
	Revoked(ctx context.Context, partitions []int32)
	// Lost says that partitions may have another owner already: nothing may be committed for them.
	Lost(partitions []int32)
	// Overtaken says that the events in [from, to) were removed by the topic's retention before they were consumed;
	// consumption goes on at to. For an unassigned partition it is called before Assigned.
	Overtaken(partition int32, from, to int64)
	// Truncated says that the log of a partition that is consumed has lost its end: the broker has no records any more from
	// end on, and what it gets from now on has their offsets. Whatever is known of those must be forgotten before it returns,
	// and no later commit may name them. What lies below is still there. It returns where consumption goes on, at end or
	// before.
	Truncated(ctx context.Context, partition int32, end int64) (next int64)
}

// Assignment is a partition that the member now owns.
type Assignment struct {
	Partition int32
	// TopicID is the UUID of the topic that the partition was of. One that was assigned before may be of an earlier topic of
	// the name, which was deleted since: what it has moved says nothing of this one.
	TopicID  [16]byte
	Offset   int64
	Metadata offsets.Metadata
	// Own says that the committed position is the very one that this Member committed last: nobody else owned the
	// partition in between.
	Own bool
	// LogEnd is the end of the partition's log at the time of assignment.
	LogEnd int64
	// Reached is beyond LogEnd where the log has lost its end, as far as the last commit tells: the records in [LogEnd,
	// Reached) are gone, as those are that Handler.Truncated tells of. Offset and Metadata name none of them any more.
	Reached int64
}

// Position is what a commit says of a partition.
type Position struct {
	Offset   int64
	Metadata string
}

// Member is a static member of a group over one topic. Its methods may be called from any goroutine, but Poll and
// AllowRebalance only from one.
type Member struct {
	cfg         MemberConfig
	log         *slog.Logger
	cl          *kgo.Client
	adm         *kadm.Client
	instance    string
	lease       lease
	disconnects disconnects
	purged      atomic.Bool   // the topic was made again, and the client had to forget the one before
	made        chan struct{} // closed once cl is set; the client's callbacks may come before
	life        context.Context
	end         context.CancelFunc // with Close

	mu        sync.Mutex
	topicID   [16]byte
	owned     map[int32]bool     // the partitions that the group has assigned
	committed map[int32]Position // the last that this process committed and saw confirmed
	doubt     bool               // a transaction was given up whose end isn't known
	dropped   error              // why the session has to end: partitions are assigned that the Handler wasn't told of
	denied    bool               // as Denied was told last
	search    context.CancelFunc // of the search for positions that is under way
	over      bool               // the poll that is under way should end
}

// NewMember joins the group. It returns at once; assignments come to the Handler.
func NewMember(cfg MemberConfig) (*Member, error) {
	if cfg.Session == 0 {
		cfg.Session = DefaultSession
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Member{cfg: cfg, instance: cfg.Service + "." + cfg.Node, owned: map[int32]bool{}, committed: map[int32]Position{}, made: make(chan struct{})}
	m.log = cfg.Logger.With(slog.String("group", cfg.Group))
	m.lease.session = cfg.Session
	m.life, m.end = context.WithCancel(context.Background())
	opts := append([]kgo.Opt{
		kgo.FetchMaxWait(time.Second),
		kgo.FetchMaxBytes(16 << 20),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(time.Minute),
	}, cfg.Opts...)
	opts = append(opts,
		kgo.ConsumerGroup(cfg.Group), kgo.ConsumeTopics(cfg.Topic), kgo.InstanceID(m.instance),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(cfg.Session), kgo.HeartbeatInterval(cfg.Session/4), kgo.RebalanceTimeout(10*time.Second),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.DisableFetchSessions(),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.OnPartitionsAssigned(m.assigned), kgo.OnPartitionsRevoked(m.revoked), kgo.OnPartitionsLost(m.lost), kgo.AdjustFetchOffsetsFn(m.fetched),
		kgo.WithHooks(&m.lease, &m.disconnects),
	)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		m.end()
		return nil, fmt.Errorf("configure member of group %s: %w", cfg.Group, err)
	}
	m.cl, m.adm = cl, kadm.NewClient(cl)
	close(m.made)
	return m, nil
}

// Client is the member's client, for requests beside the consumption.
func (m *Member) Client() *kgo.Client { return m.cl }

// TopicID is the UUID of the topic as of the last assignment.
func (m *Member) TopicID() [16]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.topicID
}

// HasLease reports whether work may start: the group has confirmed this member recently enough that nobody else can own
// its partitions. After a gap it stays false until the second confirmation, by when a loss would have been told.
func (m *Member) HasLease() bool { return m.lease.held() }

// Poll waits for records, at most limit of them, control records included (their Attrs say so): they have to be
// committed past. It ends with the context's error, ErrClosed, or ErrReplaced. After it returns records,
// AllowRebalance must be called.
func (m *Member) Poll(ctx context.Context, limit int) (kgo.Fetches, error) {
	stop := context.AfterFunc(ctx, func() { m.pollOver(true) })
	defer m.pollOver(false)
	defer stop()
	for {
		fs := m.cl.PollRecords(ctx, limit)
		if fs.IsClientClosed() {
			return nil, ErrClosed
		}
		var fatal error
		denied := false
		id, unknown := unknownID(fs)
		fs.EachError(func(_ string, p int32, err error) {
			if errors.Is(err, kerr.UnknownTopicID) {
				return
			}
			cut, err2 := m.fetchError(ctx, p, err)
			if cut {
				drop(fs, p)
			}
			fatal = errors.Join(fatal, err2)
			denied = denied || security.Denied(err)
		})
		if fatal != nil {
			m.cl.AllowRebalance()
			return nil, fatal
		}
		if !fs.Empty() {
			m.tellDenied(nil)
			return fs, nil
		}
		m.cl.AllowRebalance()
		if unknown {
			m.unknownTopic(ctx, id)
		}
		if denied { // the client would fetch again at once, and for ever
			sleep(ctx, deniedPause)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// tellDenied tells Denied what has changed.
func (m *Member) tellDenied(err error) {
	m.mu.Lock()
	before := m.denied
	m.denied = err != nil
	m.mu.Unlock()
	if before == (err != nil) {
		return
	}
	if m.cfg.Denied != nil {
		m.cfg.Denied(err)
	} else if err != nil {
		m.log.Warn("fetching waits for a right", slog.String("topic", m.cfg.Topic), slog.Any("error", err))
	}
}

// AllowRebalance lets the Handler's methods run again.
func (m *Member) AllowRebalance() { m.cl.AllowRebalance() }

// Pause and Resume stop and start the fetching of partitions. Pausing drops what was fetched and not polled.
func (m *Member) Pause(ps ...int32) {
	m.cl.PauseFetchPartitions(map[string][]int32{m.cfg.Topic: ps})
}

// Resume takes back a Pause.
func (m *Member) Resume(ps ...int32) {
	m.cl.ResumeFetchPartitions(map[string][]int32{m.cfg.Topic: ps})
}

// fetchError decides which errors of a poll end the consumption. cut says that the partition goes on elsewhere, so that
// what the poll brought of it is out of date.
func (m *Member) fetchError(ctx context.Context, p int32, err error) (cut bool, fatal error) {
	var loss *kgo.ErrDataLoss
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return false, nil // Poll looks at the context itself
	case errors.Is(err, kerr.FencedInstanceID):
		return false, ErrReplaced
	case errors.Is(err, kerr.OffsetOutOfRange):
		return m.outOfRange(ctx, p), nil
	case errors.As(err, &loss): // by the epochs of its leaders the client has found where the log isn't the one that was read
		m.lostEnd(ctx, p, loss.ConsumedTo, loss.ResetTo)
		return true, nil
	case security.Denied(err):
		m.tellDenied(err)
		return false, nil
	}
	m.log.Warn("fetching goes on after an error", slog.String("topic", m.cfg.Topic), slog.Int("partition", int(p)), slog.Any("error", err))
	return false, nil
}

func (m *Member) revoked(ctx context.Context, _ *kgo.Client, ps map[string][]int32) {
	<-m.made
	if gone := ps[m.cfg.Topic]; len(gone) > 0 {
		m.cfg.Handler.Revoked(ctx, gone)
	}
	m.gone(ps[m.cfg.Topic])
}

func (m *Member) lost(_ context.Context, _ *kgo.Client, ps map[string][]int32) {
	<-m.made
	m.mu.Lock()
	m.dropped = nil
	m.mu.Unlock()
	if gone := ps[m.cfg.Topic]; len(gone) > 0 {
		m.cfg.Handler.Lost(gone)
	}
	m.gone(ps[m.cfg.Topic])
}

// Leave takes the static member out of the group by name, so that others get its partitions at once, and closes.
// What was consumed should be committed before.
func (m *Member) Leave(ctx context.Context) error {
	m.Close()
	cl, err := kgo.NewClient(m.cfg.Opts...)
	if err != nil {
		return fmt.Errorf("leave group %s: %w", m.cfg.Group, err)
	}
	defer cl.Close()
	return m.leave(ctx, kadm.NewClient(cl))
}

func (m *Member) leave(ctx context.Context, adm *kadm.Client) error {
	rs, err := adm.LeaveGroup(ctx, kadm.LeaveGroup(m.cfg.Group).InstanceIDs(m.instance).Reason("left by name"))
	if err == nil {
		err = rs.Error()
	}
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("leave group %s: %w", m.cfg.Group, err)
	}
	return nil
}

// Close ends the consumption. The static membership stays for the session timeout, so that a restart finds its
// partitions.
func (m *Member) Close() {
	m.end()
	m.cl.CloseAllowingRebalance()
}
