package hop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"sync/atomic"
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
	// Withheld is told where a transaction isn't ended that a broker forgot, and may not be ended by this process; and that
	// it is over. It must not block. Without it that is logged.
	Withheld func(message string, resolved bool)
}

// Pool is a process's transactional producers. It is safe for concurrent use.
type Pool struct {
	cfg     PoolConfig
	log     *slog.Logger
	free    chan *producer
	doubted chan *producer  // whose last transaction has to be looked at
	look    chan struct{}   // says that one of the free ones is doubted
	life    context.Context // ends with Close
	end     context.CancelFunc
	done    sync.WaitGroup

	limits   limits
	withheld withholding
	all      [MaxProducers]atomic.Pointer[producer] // of made

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

// NewPool makes the producers and ends what an earlier life of this node left open, all before it returns. While the brokers
// don't answer it waits, as long as the context allows.
func NewPool(ctx context.Context, cfg PoolConfig) (*Pool, error) {
	if cfg.Size == 0 {
		cfg.Size = DefaultProducers
	}
	cfg.Size = min(cfg.Size, MaxProducers)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, free: make(chan *producer, MaxProducers), doubted: make(chan *producer, MaxProducers), look: make(chan struct{}, 1)}
	p.life, p.end = context.WithCancel(context.Background())
	cl, err := kgo.NewClient(cfg.Opts...)
	if err != nil {
		return nil, fmt.Errorf("configure producers: %w", err)
	}
	defer cl.Close()
	if err := p.persist(ctx, func() error { return EndTransactions(ctx, cl, cfg.Names, cfg.Service, cfg.Node) }); err != nil {
		p.end()
		return nil, err
	}
	for range cfg.Size {
		pr, err := p.make()
		if err == nil {
			err = p.persist(ctx, func() error { return pr.prepare(ctx) })
		}
		if err != nil {
			p.Close()
			return nil, err
		}
		p.free <- pr
	}
	p.done.Go(p.mendAll)
	return p, nil
}

// persist tries again what fails because a broker is slow or away, until the context ends: a cluster that has just started
// may take a minute until its transactions' coordinators stand. What a broker answers is for good, unless it says otherwise.
func (p *Pool) persist(ctx context.Context, do func() error) error {
	pause := retryPause
	var last error
	for tries := 0; ; tries++ {
		err := do()
		var answer *kerr.Error
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", ctx.Err(), cmp.Or(last, err))
		case errors.Is(err, kgo.ErrClientClosed), errors.As(err, &answer) && !answer.Retriable:
			return err
		}
		if tries%20 == 0 {
			p.log.Warn("waiting for the coordinators of this node's transactions", slog.Any("error", err))
		}
		last = err
		sleep(ctx, pause)
		pause = min(2*pause, retryPauseMax)
	}
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
	pr.disconnects.pool.Store(p)
	if err := pr.connect(); err != nil {
		return nil, err
	}
	p.all[len(p.made)].Store(pr)
	p.made = append(p.made, pr)
	return pr, nil
}

// Close ends the producers. Transactions still running fail.
func (p *Pool) Close() {
	p.end()
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pr := range p.made {
		pr.close()
	}
}

// Commit runs a transaction, or commits plainly where there is nothing to produce. Transactions of one Member must not
// overlap. Afterwards either everything is committed and it returns nil, or nothing is. A *RecordsError is for the
// caller to resolve; after ErrOutdated the same work is best committed again at once; after any other error the same work may be committed again later. It returns within about 15 s,
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
	defer p.release(pr)
	tx.Member.disconnects.pool.Store(p)
	return pr.run(ctx, tx)
}

// acquire takes a free producer. Where all are held for long (a destination that hangs), the pool grows, so that one
// agent's trouble doesn't become everybody's.
func (p *Pool) acquire(ctx context.Context) (*producer, error) {
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		select {
		case pr := <-p.free:
			if !pr.doubted() {
				return pr, nil
			}
			p.release(pr)
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a producer: %w", ctx.Err())
		case <-t.C:
			if pr, err := p.make(); pr != nil || err != nil {
				return pr, err
			}
		}
	}
}
