package hop

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	// TransactionTimeout is when a broker ends a transaction by itself. A transaction lives milliseconds; fencing, not
	// this, is the normal way out.
	TransactionTimeout = 5 * time.Second
	// DefaultProducers hides the wait for the markers of one transaction behind others.
	DefaultProducers = 4
	// patience is how long a Commit waits for a producer before it gets one of its own.
	patience = 2 * time.Second
	// AnyPartition as a record's partition leaves the choice to its key's hash; without a key records are spread.
	AnyPartition int32 = -1
)

// PartitionOf is a record's partition by the hash of something else than its key, whatever the number of the topic's
// partitions.
func PartitionOf(what []byte) int32 {
	h := fnv.New32a()
	_, _ = h.Write(what) // never fails
	return -2 - int32(h.Sum32()>>2)
}

// Among is the partition that PartitionOf of something comes to where the topic has n.
func Among(partition int32, n int) int32 { return int32(int(-2-partition) % n) }

// PoolConfig configures a Pool. Service and Node are required.
type PoolConfig struct {
	Opts          []kgo.Opt
	Names         topics.Names
	Service, Node string
	// Size is how many producers there are at first. Defaults to DefaultProducers, at most MaxProducers.
	Size   int
	Logger *slog.Logger
}

// Pool is a process's transactional producers. It is safe for concurrent use.
type Pool struct {
	cfg  PoolConfig
	log  *slog.Logger
	free chan *producer
	life context.Context // ends with Close
	end  context.CancelFunc

	limits limits

	mu   sync.Mutex
	made []*producer
}

// Tx is one transaction.
type Tx struct {
	Member *Member
	// Records are to be produced; a Partition of AnyPartition leaves the choice to the key, one of PartitionOf to what
	// that was given. They must not be used again, whatever comes of
	// the transaction. Without records Offsets are committed plainly.
	Records []*kgo.Record
	Offsets map[int32]Position
	// Generation is Member.Generation as of when Offsets were taken together, while their partitions were owned.
	Generation Generation

	caller context.Context // of Commit, without its own limit
}

// RecordsError says that the broker refused records for what they are or where they go. Nothing was committed.
type RecordsError struct {
	// Refused maps indexes of Tx.Records to reasons.
	Refused map[int]error
}

func (e *RecordsError) Error() string {
	for i, err := range e.Refused {
		return fmt.Sprintf("%d records refused, one of them (%d): %v", len(e.Refused), i, err)
	}
	return "records refused"
}

// NewPool makes the producers and ends what an earlier life of this node left open, all before it returns.
func NewPool(ctx context.Context, cfg PoolConfig) (*Pool, error) {
	if cfg.Size == 0 {
		cfg.Size = DefaultProducers
	}
	cfg.Size = min(cfg.Size, MaxProducers)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, free: make(chan *producer, MaxProducers)}
	p.life, p.end = context.WithCancel(context.Background())
	cl, err := kgo.NewClient(cfg.Opts...)
	if err != nil {
		return nil, fmt.Errorf("configure producers: %w", err)
	}
	defer cl.Close()
	if err := EndTransactions(ctx, cl, cfg.Names, cfg.Service, cfg.Node); err != nil {
		p.end()
		return nil, err
	}
	for range cfg.Size {
		pr, err := p.make()
		if err == nil {
			err = pr.prepare(ctx)
		}
		if err != nil {
			p.Close()
			return nil, err
		}
		p.free <- pr
	}
	return p, nil
}

// make adds a producer; nil when there are as many as there may be.
func (p *Pool) make() (*producer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life.Err() != nil {
		return nil, errors.New("the producers are closed")
	}
	if len(p.made) >= MaxProducers {
		return nil, nil
	}
	pr := &producer{pool: p, id: p.cfg.Names.TransactionalID(p.cfg.Service, p.cfg.Node, len(p.made))}
	if err := pr.connect(); err != nil {
		return nil, err
	}
	p.made = append(p.made, pr)
	return pr, nil
}

// Close ends the producers. Transactions still running fail.
func (p *Pool) Close() {
	p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pr := range p.made {
		pr.close()
	}
}

// Commit runs a transaction, or commits plainly where there is nothing to produce. Transactions of one Member must not
// overlap. Afterwards either everything is committed and it returns nil, or nothing is. A *RecordsError is for the
// caller to resolve; after any other error the same work may be committed again later. It returns within about 15 s,
// unless the end of a transaction is in doubt: then it returns once that is decided, or with ErrInDoubt a while after
// the context has ended or when the pool is closed.
func (p *Pool) Commit(ctx context.Context, tx Tx) error {
	if len(tx.Offsets) == 0 {
		return errors.New("commit: no offsets")
	}
	if tx.Member.inDoubt() {
		return ErrInDoubt
	}
	tx.caller = ctx
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if len(tx.Records) == 0 {
		return tx.Member.commitPlain(ctx, tx.Generation, tx.Offsets)
	}
	pr, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	defer func() { p.free <- pr }()
	return pr.run(ctx, tx)
}

// acquire takes a free producer. Where all are held for long (a destination that hangs), the pool grows, so that one
// agent's trouble doesn't become everybody's.
func (p *Pool) acquire(ctx context.Context) (*producer, error) {
	select {
	case pr := <-p.free:
		return pr, nil
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		select {
		case pr := <-p.free:
			return pr, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a producer: %w", ctx.Err())
		case <-t.C:
			if pr, err := p.make(); pr != nil || err != nil {
				return pr, err
			}
		}
	}
}

// producer is one transactional client; it is used by one Commit at a time.
type producer struct {
	pool *Pool
	id   string
	told sync.Map // topic → int32: the limits that the client works by

	mu       sync.Mutex
	cl       *kgo.Client
	closed   bool
	fencedAt time.Time // when somebody else took the id; zero while it's ours
}

func (pr *producer) connect() error {
	cfg := pr.pool.cfg
	opts := append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0),
		// Reeve's headers repeat from record to record: compressed, a batch costs the broker a third less, and the
		// producer nothing. A compressed batch's headers aren't even parsed there.
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		// A partition that met CONCURRENT_TRANSACTIONS waits for a metadata update before it goes on, so that these
		// must not be held back.
		kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.MaxBufferedRecords(1 << 20), kgo.ProducerBatchMaxBytesFn(pr.limit), kgo.BrokerMaxWriteBytes(100 << 20),
		kgo.RecordPartitioner(partitioner{}), kgo.UnknownTopicRetries(4),
	}, cfg.Opts...)
	opts = append(opts, kgo.TransactionalID(pr.id), kgo.TransactionTimeout(TransactionTimeout))
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("configure producer %s: %w", pr.id, err)
	}
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.cl = cl
	if pr.closed {
		cl.Close()
	}
	return nil
}

func (pr *producer) close() {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.closed = true
	pr.cl.Close()
}

func (pr *producer) prepare(ctx context.Context) error {
	if _, _, err := pr.cl.ProducerID(ctx); err != nil {
		return fmt.Errorf("prepare producer %s: %w", pr.id, err)
	}
	return nil
}

func (pr *producer) run(ctx context.Context, tx Tx) error {
	if err := pr.restore(ctx, tx.Member); err != nil {
		return err
	}
	if err := pr.fit(ctx, tx.Records); err != nil {
		return err
	}
	if err := pr.cl.BeginTransaction(); err != nil {
		pr.broken(err)
		return fmt.Errorf("begin transaction of %s: %w", pr.id, err)
	}
	if err := pr.produce(ctx, tx.Records); err != nil {
		pr.abort(err)
		return err
	}
	if err := tx.Member.commitWithin(ctx, pr.cl, pr.id, tx.Generation, tx.Offsets); err != nil {
		pr.abort(err)
		return err
	}
	if err := pr.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return pr.decide(tx, err)
	}
	tx.Member.confirmed(tx.Offsets)
	return nil
}

// restore makes a producer anew whose id was taken. A process that was stopped and woke up must not take back what its
// successor holds, so the group has to confirm this member first.
func (pr *producer) restore(ctx context.Context, m *Member) error {
	if pr.fencedAt.IsZero() {
		return nil
	}
	if !m.lease.confirmedSince(pr.fencedAt) || !m.lease.held() {
		return fmt.Errorf("producer %s was fenced: %w", pr.id, ErrNotMember)
	}
	if err := pr.renew(ctx); err != nil {
		return err
	}
	pr.fencedAt = time.Time{}
	return nil
}

// renew gives the producer a new client.
func (pr *producer) renew(ctx context.Context) error {
	pr.cl.Close()
	pr.told.Clear()
	if err := pr.connect(); err != nil {
		return err
	}
	return pr.prepare(ctx)
}

// produce sends the records and waits for them.
func (pr *producer) produce(ctx context.Context, rs []*kgo.Record) error {
	var (
		mu      sync.Mutex
		refused map[int]error
		other   error
	)
	failed := func(r *kgo.Record, err error) {
		if err == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if !refusal(err) {
			other = err
			return
		}
		for i := range rs { // an exception; success takes no index
			if rs[i] == r {
				if refused == nil {
					refused = map[int]error{}
				}
				refused[i] = err
			}
		}
	}
	// The records' own context must outlive a cancelled commit: kgo would fail some of a batch and not others.
	for _, r := range rs {
		pr.cl.Produce(context.Background(), r, failed)
	}
	if err := pr.cl.Flush(ctx); err != nil {
		return fmt.Errorf("produce %d records: %w", len(rs), err)
	}
	mu.Lock()
	defer mu.Unlock()
	switch {
	case len(refused) > 0 && pr.misjudged(ctx, rs, refused):
		return fmt.Errorf("produce %d records: %w", len(rs), errLimitChanged)
	case len(refused) > 0:
		return &RecordsError{Refused: refused}
	case other != nil:
		return fmt.Errorf("produce %d records: %w", len(rs), other)
	}
	return nil
}

// refusal reports whether an error is about a record or its destination, and not about the broker or the producer.
func refusal(err error) bool {
	for _, e := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.TopicAuthorizationFailed,
		kerr.InvalidTopicException, kerr.PolicyViolation, kerr.InvalidRecord, kerr.InvalidTimestamp} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// abort ends a transaction that went wrong before its end.
func (pr *producer) abort(cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), TransactionTimeout)
	defer cancel()
	if err := pr.cl.AbortBufferedRecords(ctx); err != nil {
		pr.broken(err)
		return
	}
	if err := pr.cl.EndTransaction(ctx, kgo.TryAbort); err != nil {
		pr.broken(errors.Join(cause, err))
	}
}

// decide finds out what became of a transaction whose end wasn't answered: aborting makes it decided, and then the
// committed positions tell. It waits as long as that takes: to go on in doubt would be to repeat what is finished.
func (pr *producer) decide(tx Tx, cause error) error {
	pr.abort(cause)
	ctx, cancel := context.WithCancel(pr.pool.life)
	defer cancel()
	defer context.AfterFunc(tx.caller, func() { time.AfterFunc(TransactionTimeout, cancel) })() // a stop is worth a while
	committed, err := tx.Member.standsAt(ctx, tx.Offsets)
	if err != nil { // the process or the member ends
		tx.Member.doubted()
		return fmt.Errorf("end transaction of %s: %w", pr.id, errors.Join(ErrInDoubt, cause, err))
	}
	if committed {
		tx.Member.confirmed(tx.Offsets)
		return nil
	}
	return fmt.Errorf("end transaction of %s: %w", pr.id, cause)
}

// broken replaces the client after an error that kgo can't recover from.
func (pr *producer) broken(err error) {
	pr.pool.log.Warn("a transactional producer is made anew", slog.String("id", pr.id), slog.Any("error", err))
	pr.fencedAt = time.Now()
}

// partitioner takes a record's own partition, that of PartitionOf, or the key's.
type partitioner struct{}

func (partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return &topicPartitioner{keyed: kgo.StickyKeyPartitioner(nil).ForTopic(topic)}
}

type topicPartitioner struct{ keyed kgo.TopicPartitioner }

func (t *topicPartitioner) RequiresConsistency(r *kgo.Record) bool {
	return r.Partition != AnyPartition || t.keyed.RequiresConsistency(r)
}

func (t *topicPartitioner) Partition(r *kgo.Record, n int) int {
	switch {
	case r.Partition >= 0:
		return int(r.Partition) // beyond the topic's partitions kgo fails the record
	case r.Partition != AnyPartition:
		return int(Among(r.Partition, n))
	}
	return t.keyed.Partition(r, n)
}

func (t *topicPartitioner) OnNewBatch() {
	if b, ok := t.keyed.(kgo.TopicPartitionerOnNewBatch); ok {
		b.OnNewBatch()
	}
}
