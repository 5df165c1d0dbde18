package hop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// producer is one transactional client; it is used by one Commit at a time.
type producer struct {
	pool        *Pool
	id          string
	disconnects disconnects

	told   sync.Map // topic → int32: the limits that the client works by
	remade bool     // a topic was deleted and made again, which the client never takes for the one it knows
	// renewed says that the client was made for that reason, and has committed nothing yet.
	renewed bool
	last    *memory // of the last transaction; nil where nothing is left to be seen to
	// suspect says that a connection was lost since the last look at it; busy is when a transaction began or ended last.
	suspect atomic.Bool
	busy    atomic.Int64 // Unix nanoseconds

	mu       sync.Mutex
	cl       *kgo.Client
	closed   bool
	fencedAt time.Time // when somebody else took the id; zero while it's ours
}

func (pr *producer) connect() error {
	cfg := pr.pool.cfg
	opts := append([]kgo.Opt{
		// A transaction's records are flushed together: the first doesn't leave alone, in a request of its own.
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ManualFlushing(),
		// Reeve's headers repeat from record to record: compressed, a batch costs the broker a third less, and the
		// producer nothing. A compressed batch's headers aren't even parsed there.
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		// A partition that met CONCURRENT_TRANSACTIONS waits for a metadata update before it goes on, so that these
		// must not be held back.
		kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.MaxBufferedRecords(1 << 20), kgo.ProducerBatchMaxBytesFn(pr.limit), kgo.BrokerMaxWriteBytes(100 << 20),
		kgo.RecordPartitioner(partitioner{}), kgo.UnknownTopicRetries(4),
		kgo.WithHooks(&pr.disconnects),
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
	pr.busy.Store(time.Now().UnixNano())
	defer func() { pr.busy.Store(time.Now().UnixNano()) }()
	if err := pr.cl.BeginTransaction(); err != nil {
		pr.broken(err)
		return fmt.Errorf("begin transaction of %s: %w", pr.id, err)
	}
	id, epoch, err := pr.cl.ProducerID(ctx)
	if err == nil {
		pr.last = remember(id, epoch, tx.Records)
		err = pr.produce(ctx, tx.Records)
	}
	if err != nil {
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
	pr.last.committed, pr.renewed = true, false
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
	if err := pr.prepare(ctx); err != nil {
		return err
	}
	pr.remade, pr.renewed = false, pr.remade
	return nil
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
	case remade(refused): // were the topic gone, a new client would be told
		return fmt.Errorf("produce %d records: %w", len(rs), pr.forget())
	case len(refused) > 0 && pr.misjudged(ctx, rs, refused):
		return fmt.Errorf("produce %d records: %w", len(rs), ErrOutdated)
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

// decide finds out what became of a transaction whose end wasn't answered. Its coordinator knows; where it doesn't say,
// aborting makes it decided, and then the committed positions tell. It waits as long as that takes: to go on in doubt
// would be to repeat what is finished.
func (pr *producer) decide(tx Tx, cause error) error {
	ctx, cancel := context.WithCancel(pr.pool.life)
	defer cancel()
	defer context.AfterFunc(tx.caller, func() { time.AfterFunc(TransactionTimeout, cancel) })() // a stop is worth a while
	f, err := pr.fate(ctx)
	if f == ending {
		f, err = pr.over(ctx)
	}
	done := f == committed
	if done || f == aborted {
		pr.last.committed = done
		pr.mend(ctx) // or the positions may never be stable
		pr.abort(cause)
	} else if err == nil {
		pr.abort(cause)
		done, err = tx.Member.standsAt(ctx, tx.Offsets)
		pr.last.committed = done
	}
	if err != nil { // the process or the member ends
		tx.Member.doubted()
		pr.last = nil // nobody may end it one way or the other
		return fmt.Errorf("end transaction of %s: %w", pr.id, errors.Join(ErrInDoubt, cause, err))
	}
	if done {
		tx.Member.confirmed(tx.Offsets)
		return nil
	}
	return fmt.Errorf("end transaction of %s: %w", pr.id, cause)
}

// broken replaces the client after an error that kgo can't recover from.
func (pr *producer) broken(err error) {
	pr.pool.log.Warn("a transactional producer is made anew", slog.String("id", pr.id), slog.Any("error", err))
	pr.fencedAt = time.Now()
	pr.suspect.Store(true)
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
