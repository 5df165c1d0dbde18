package deliver

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	pollLimit = 1_000
	// drain is how long a stop waits for what is in flight; then it is cut off, and tried again by whoever comes next.
	drain = 5 * time.Second
	// handOverLimit bounds the last commit.
	handOverLimit = 5 * time.Second
)

// Config configures a Deliverer. All fields are required, but Metrics.
type Config struct {
	Member hop.MemberConfig // without Handler
	Pool   *hop.Pool
	Names  topics.Names
	Tiers  []time.Duration // of waiting, ascending
	// Retries are the delays between tries.
	Retries []time.Duration
	Send    func(context.Context, Webhook) Answer
	// MakeDLQ makes the topic of webhooks that were given up.
	MakeDLQ func(context.Context) error
	// Alert tells a person that endpoints are down for long or that a topic can't be written, and takes it back.
	Alert   func(kind, message string, resolved bool)
	Metrics *Metrics
	Logger  *slog.Logger
}

// Deliverer sends webhooks as a member of the dispatchers' group.
type Deliverer struct {
	cfg     Config
	log     *slog.Logger
	member  *hop.Member
	sending sync.WaitGroup
	wake    chan struct{} // something has finished

	committing sync.Mutex // one transaction at a time

	mu        sync.Mutex
	changed   *sync.Cond // something has ended
	parts     map[int32]*part
	endpoints map[string]*endpoint
	running   int
	finished  []*item
	held      int64 // not before, Unix milliseconds: the last transaction failed
	pause     time.Duration
	dlqReady  bool
	toldDown  string
	toldWrite bool
	toldDLQ   bool
	stopping  bool
}

// New joins the group.
func New(cfg Config) (*Deliverer, error) {
	d := &Deliverer{cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1), parts: map[int32]*part{}, endpoints: map[string]*endpoint{}}
	d.changed = sync.NewCond(&d.mu)
	if d.cfg.Metrics == nil {
		d.cfg.Metrics = NewMetrics(nil)
	}
	cfg.Member.Handler = d
	cfg.Member.Logger = cfg.Logger
	d.mu.Lock() // the first assignment may come before the member is known here
	defer d.mu.Unlock()
	m, err := hop.NewMember(cfg.Member)
	if err != nil {
		return nil, err
	}
	d.member = m
	return d, nil
}

// Run sends until the context ends, then waits a little for what is in flight, commits and returns nil. Any error means
// that it can't go on; hop.ErrReplaced says that a newer process has this node's name.
func (d *Deliverer) Run(ctx context.Context) error {
	loops, end := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { d.commits(loops) })
	done.Go(func() { d.looks(loops) })
	err := d.polls(ctx)
	d.stop(err == nil)
	end()
	done.Wait()
	d.sending.Wait()
	if err == nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOverLimit)
		defer cancel()
		d.handOver(last, nil)
	}
	d.untell()
	d.member.Close()
	return err
}

// polls reads records and admits them.
func (d *Deliverer) polls(ctx context.Context) error {
	for {
		fetches, err := d.member.Poll(ctx, pollLimit)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("consume %s: %w", d.cfg.Member.Topic, err)
		}
		d.mu.Lock()
		fetches.EachPartition(func(fp kgo.FetchTopicPartition) {
			if p := d.parts[fp.Partition]; p != nil {
				for _, r := range fp.Records {
					p.pending, p.bytes = append(p.pending, r), p.bytes+len(r.Value)
				}
				d.admit(p)
			}
		})
		d.start()
		d.mu.Unlock()
		d.member.AllowRebalance()
	}
}

// stop starts nothing more, and waits for what is in flight or cuts it off.
func (d *Deliverer) stop(wait bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopping = true
	if wait {
		d.await(drain, func() bool { return d.running == 0 })
	}
	for _, p := range d.parts {
		p.cut()
	}
}

// await waits for a condition for so long. The lock is held at its beginning and at its end.
func (d *Deliverer) await(limit time.Duration, ok func() bool) {
	expired := false
	defer time.AfterFunc(limit, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		expired = true
		d.changed.Broadcast()
	}).Stop()
	for !ok() && !expired {
		d.changed.Wait()
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
