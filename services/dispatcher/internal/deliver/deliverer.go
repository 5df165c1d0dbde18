package deliver

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	pollLimit   = 1_000
	holdRecords = 4_096    // of a partition in memory before its fetching is paused
	holdBytes   = 16 << 20 // the same; it goes on when a quarter is left
	lookEvery   = 250 * time.Millisecond
	// drain is how long a stop waits for what is in flight; then it is cut off, and tried again by whoever comes next.
	drain = 5 * time.Second
	// handOverLimit bounds the last commit.
	handOverLimit = 5 * time.Second
	// Kinds of alerts.
	alertFailing = "webhook_failing"
	alertWrite   = "webhooks_unwritable"
	alertDLQ     = "webhook_dlq_unwritable"
	// alertEvery is how often it is looked for endpoints that are down for long.
	alertEvery = 5 * time.Second
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

// part is an owned partition. The Deliverer's lock guards it.
type part struct {
	id      int32
	tracker *offsets.Tracker
	pending []*kgo.Record // beyond the window
	live    int           // admitted and not settled
	bytes   int           // of pending and live
	dirty   bool          // there is something to commit
	paused  bool
	leaving bool // nothing starts
	gone    bool
	flight  map[*item]struct{}
}

// item is a webhook's place here, from admission to settlement. The Deliverer's lock guards it.
type item struct {
	Webhook
	part     *part
	end      *endpoint
	admitted time.Time
	cancel   context.CancelFunc // while it is in flight
	verdict  Verdict
	status   int
	ended    time.Time
	silent   bool // its status record was refused
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

// admit takes pending records into the window, and each to its endpoint; none of a partition that is handed over, which the
// next owner sends.
func (d *Deliverer) admit(p *part) {
	if p.leaving {
		return
	}
	now := time.Now()
	for len(p.pending) > 0 {
		r := p.pending[0]
		if !p.tracker.Fits(r.Offset) {
			if p.tracker.Low() < p.tracker.Next() {
				break
			}
			p.tracker.Jump(r.Offset) // only offsets without a record lie before it
		}
		p.pending[0] = nil
		p.pending = p.pending[1:]
		p.dirty = true
		if fresh := p.tracker.Deliver(r.Offset); !fresh || r.Attrs.IsControl() {
			if fresh {
				p.tracker.Settle(r.Offset)
			}
			p.bytes -= len(r.Value)
			continue
		}
		p.live++
		d.queue(&item{Webhook: Read(r), part: p, admitted: now}, now)
	}
	d.pace(p)
}

// pace pauses a partition's fetching, or lets it go on.
func (d *Deliverer) pace(p *part) {
	switch held := len(p.pending) + p.live; {
	case !p.paused && (held > holdRecords || p.bytes > holdBytes):
		p.paused = true
		d.member.Pause(p.id)
	case p.paused && held <= holdRecords/4 && p.bytes <= holdBytes/4:
		p.paused = false
		d.member.Resume(p.id)
	}
}

// queue puts a webhook where it waits for its start, or puts it off.
func (d *Deliverer) queue(i *item, now time.Time) {
	if i.Problem != nil {
		d.finish(i, Verdict{State: Failed, Class: "invalid_input", Message: i.Problem.Error()}, 0)
		return
	}
	i.end = d.endpoints[i.Endpoint]
	if i.end == nil {
		i.end = &endpoint{name: i.Endpoint}
		d.endpoints[i.Endpoint] = i.end
	}
	if i.end.full() {
		d.putOff(i, now)
		return
	}
	i.end.queue = append(i.end.queue, i)
}

func (d *Deliverer) putOff(i *item, now time.Time) {
	d.cfg.Metrics.deferred.Inc()
	d.finish(i, Defer(d.cfg.Retries, i.Deferred, i.end.down(), now.Sub(since(i.Record))), 0)
}

// start starts what may be in flight.
func (d *Deliverer) start() {
	if d.stopping {
		return
	}
	for _, e := range d.endpoints {
		for len(e.queue) > 0 && e.places() > 0 && d.running < inFlight {
			i := e.queue[0]
			e.queue[0] = nil
			if e.queue = e.queue[1:]; len(e.queue) == 0 {
				e.queue = nil
			}
			d.send(i)
		}
	}
}

func (d *Deliverer) send(i *item) {
	ctx, cancel := context.WithCancel(context.Background()) // a stop gives it some time
	i.cancel = cancel
	i.end.running++
	d.running++
	i.part.flight[i] = struct{}{}
	d.sending.Go(func() {
		defer cancel()
		began := time.Now()
		answer := d.cfg.Send(ctx, i.Webhook)
		d.cfg.Metrics.seconds.Observe(time.Since(began).Seconds())
		d.answered(i, answer, ctx.Err() != nil)
	})
}

// answered judges a try, unless it was cut off.
func (d *Deliverer) answered(i *item, a Answer, cut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	i.end.running--
	d.running--
	delete(i.part.flight, i)
	d.changed.Broadcast()
	if i.part.gone || cut && a.Err != nil {
		d.forget(i.end)
		return
	}
	v := Judge(d.cfg.Retries, i.Attempt, a)
	i.end.judged(v, a.Status, now)
	d.forget(i.end)
	d.finish(i, v, a.Status)
	d.start()
}

// forget drops an endpoint that nothing is known of.
func (d *Deliverer) forget(e *endpoint) {
	if e.idle(time.Now()) {
		delete(d.endpoints, e.name)
	}
}

// finish hands a webhook to the next transaction.
func (d *Deliverer) finish(i *item, v Verdict, status int) {
	i.verdict, i.status, i.ended = v, status, time.Now()
	d.finished = append(d.finished, i)
	signal(d.wake)
}

// looks puts off what has waited for too long for a place, and tells of endpoints that are down for long.
func (d *Deliverer) looks(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		d.mu.Lock()
		for _, e := range d.endpoints {
			for len(e.queue) > 0 && (e.down() && e.running > 0 || now.Sub(e.queue[0].admitted) > patience) {
				i := e.queue[0]
				e.queue = e.queue[1:]
				d.putOff(i, now)
			}
			d.forget(e)
		}
		d.start() // places at others may have been what was waited for
		d.cfg.Metrics.inFlight.Set(float64(d.running))
		d.mu.Unlock()
		if now.Sub(told) >= alertEvery {
			told = now
			d.tellDown(now)
		}
	}
}

// tellDown tells of endpoints that have failed for long, all of them together, and takes it back.
func (d *Deliverer) tellDown(now time.Time) {
	d.mu.Lock()
	var down []string
	for _, e := range d.endpoints {
		if e.down() && now.Sub(e.since) >= longDown {
			down = append(down, fmt.Sprintf("%s since %s (%s)", e.name, e.since.UTC().Format(time.RFC3339), e.message))
		}
	}
	slices.Sort(down)
	text := strings.Join(down[:min(len(down), 5)], ", ")
	before := d.toldDown
	d.toldDown = text
	d.mu.Unlock()
	d.cfg.Metrics.down.Set(float64(len(down)))
	switch {
	case text != "":
		if more := len(down) - 5; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		d.cfg.Alert(alertFailing, "webhooks fail for a long time: "+text+"; they are tried again and given up in the end, to "+d.cfg.Names.WebhookDLQ(), false)
	case before != "":
		d.cfg.Alert(alertFailing, "webhooks are delivered again", true)
	}
}

// untell takes back what this process told, at its end: who goes on sees for itself.
func (d *Deliverer) untell() {
	d.mu.Lock()
	told := map[string]bool{alertFailing: d.toldDown != "", alertWrite: d.toldWrite, alertDLQ: d.toldDLQ}
	d.mu.Unlock()
	for kind, was := range told {
		if was {
			d.cfg.Alert(kind, "the dispatcher that told of it has stopped", true)
		}
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

// cut cuts off what is in flight.
func (p *part) cut() {
	for i := range p.flight {
		i.cancel()
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
