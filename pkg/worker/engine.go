package worker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Config configures an Engine. Pool, Spec, Service, Node, Runner and Tiers are required.
type Config struct {
	// Pool is the process's, shared by its agents.
	Pool *hop.Pool
	// Opts reach the brokers.
	Opts []kgo.Opt
	// Names are the installation's.
	Names topics.Names
	// Spec is the agent's. Its task topic must exist.
	Spec *spec.Agent
	// Service and Node name this process, as in the Pool.
	Service, Node string
	// Runner executes the attempts.
	Runner Runner
	// Tiers are the installation's retry delays, ascending; their topics must exist.
	Tiers []time.Duration
	// Replication of the topics that the engine makes (the DLQ, reply topics). Defaults to the broker's default.
	Replication int16
	// CreateReplyTopics makes reply topics that don't exist; otherwise such replies are recorded as undeliverable.
	CreateReplyTopics bool
	// Alert is told of what a person has to know; it must not block. Defaults to the log.
	Alert func(Alert)
	// Settled is told what became of tasks, once for each transaction that says so and after it is committed: nothing is
	// told twice. The sequence ends with the call. It must not block, since the next transaction waits. Defaults to nobody.
	Settled func(iter.Seq[Settlement])
	// Assigned is told that partitions were assigned; it must not block. Defaults to nobody.
	Assigned func()
	// Progress is told how far attempts have come, once a second of each at most; it must not block. Defaults to nobody.
	Progress func(Progress)
	// Logger defaults to discarding.
	Logger *slog.Logger
	// Session is the group's session timeout. Defaults to hop.DefaultSession.
	Session time.Duration
	// CancelPause is how long a stop waits for attempts to end that it has cancelled. Defaults to 15 s.
	CancelPause time.Duration
}

// Alert asks for a person. The same Kind with Resolved takes it back; until then it stands, and is told once.
type Alert struct {
	Kind     string // destination_unwritable, records_lost, kafka_denied, queue_held, outage
	Severity string // warning, critical
	Message  string
	Resolved bool
	// Since is when its cause began; zero: now.
	Since time.Time
}

const (
	pollLimit    = 10_000   // records a poll
	batchLimit   = 5_000    // outcomes and published records a transaction
	batchBytes   = 16 << 20 // beyond which a transaction takes no further attempt: it lives seconds at most
	holdLimit    = 8_192    // records of a partition held beyond its window before its fetching is paused
	tidyPause    = 200 * time.Millisecond
	revokeDrain  = 4 * time.Second  // how long a rebalance waits for running attempts
	revokeCancel = 3 * time.Second  // and then for cancelled ones: together less than the rebalance timeout
	cancelPause  = 15 * time.Second // the default, and how long a last commit may take
	tick         = 50 * time.Millisecond
)

// Engine runs one agent's tasks in one process. Its methods are safe for concurrent use.
type Engine struct {
	cfg    Config
	log    *slog.Logger
	member *hop.Member

	wakeSchedule chan struct{}
	wakeCommit   chan struct{}
	scheduling   sync.Mutex // one call of the Runner at a time
	committing   turn       // one transaction at a time
	cancel       context.CancelFunc
	done         sync.WaitGroup
	failed       chan error
	changed      *sync.Cond  // something finished, was committed or went away
	refused      atomic.Bool // the alert stands that it may not consume

	mu       sync.Mutex
	spec     *spec.Agent
	policy   Policy
	parts    map[int32]*partition
	lost     map[int32]*partition // lost, and not yet known to be another's
	zombies  map[int32]int        // attempts of an earlier ownership of the partition that haven't ended
	order    []*partition         // of parts, taken in turn
	suspects []*slot              // in the order in which they are tried
	trial    trial
	// suspicion is the present round of suspicion, from 1; a new round clears everybody of the last.
	suspicion int
	finished  []*slot
	blank     []slot    // not in use yet
	writers   sync.Pool // whose transactions are committed
	running   int
	holders   int  // tasks that have failed and keep their keys
	crowded   bool // an alert stands that a task holds up its partition
	// unsettled counts the finished tasks that are worth not repeating and wait for the next transaction.
	unsettled int
	full      bool // nothing more starts before some of them are settled
	draining  bool
	spent     bool // a stop has waited for what runs in vain
	joined    bool // the group has told this worker of its partitions, perhaps none
	delivery  delivery
	cancels   byTask[*Cancellation] // tasks that are to end
	hastens   byTask[*Hastening]    // tasks whose next attempt is to start at once
	outage    outage
	held      []*slot   // final failures that wait for the outage rule, in the order in which they ended
	heldBy    outlook   // the rule's, when they were judged
	heldUntil time.Time // when the time of the first of them is over; zero: it's for the rule to say
	sought    []*slot   // probes that were picked out of their turn
	soughtIn  int32     // the partition that the last of them is of
}

// New makes an engine. Start starts it.
func New(cfg Config) *Engine {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		cfg: cfg, spec: cfg.Spec, policy: NewPolicy(cfg.Spec, cfg.Tiers),
		log:          cfg.Logger.With(slog.String("agent", cfg.Spec.Ref())),
		wakeSchedule: make(chan struct{}, 1), wakeCommit: make(chan struct{}, 1), failed: make(chan error, 1), committing: make(turn, 1),
		parts: map[int32]*partition{}, lost: map[int32]*partition{}, zombies: map[int32]int{}, suspicion: 1,
	}
	if e.cfg.CancelPause == 0 {
		e.cfg.CancelPause = cancelPause
	}
	if e.cfg.Alert == nil {
		e.cfg.Alert = func(a Alert) {
			e.log.Warn("alert", slog.String("kind", a.Kind), slog.String("message", a.Message), slog.Bool("resolved", a.Resolved))
		}
	}
	if e.cfg.Assigned == nil {
		e.cfg.Assigned = func() {}
	}
	e.changed = sync.NewCond(&e.mu)
	return e
}

// turn is a lock that is held for as long as the broker takes. It is a channel, since the time of a test's bubble stands still
// while somebody waits for a sync.Mutex.
type turn chan struct{}

// Lock takes the turn, and waits while it is somebody else's.
func (t turn) Lock() { t <- struct{}{} }

// Unlock gives it to the next.
func (t turn) Unlock() { <-t }

// denied tells that the worker may not consume, and that it may again.
func (e *Engine) denied(err error) {
	e.refused.Store(err != nil)
	a := Alert{Kind: "kafka_denied", Severity: "critical", Resolved: err == nil, Message: "its tasks are consumed again"}
	if p, ok := (security.Config{}).Diagnose(err); ok {
		a.Message = fmt.Sprintf("the worker can't consume %s in the group %s: %s (%v): %s", e.cfg.Names.Tasks(e.cfg.Spec.Topic, e.cfg.Spec.Name),
			e.cfg.Names.WorkGroup(e.cfg.Spec.Topic, e.cfg.Spec.Name), p.What, err, p.Remedy)
	}
	e.cfg.Alert(a)
}

// Start joins the agent's work group.
func (e *Engine) Start() error {
	e.mu.Lock() // the Handler waits until the member is there
	defer e.mu.Unlock()
	m, err := hop.NewMember(hop.MemberConfig{
		Opts: e.cfg.Opts, Names: e.cfg.Names, Service: e.cfg.Service, Node: e.cfg.Node,
		Group:   e.cfg.Names.WorkGroup(e.cfg.Spec.Topic, e.cfg.Spec.Name),
		Topic:   e.cfg.Names.Tasks(e.cfg.Spec.Topic, e.cfg.Spec.Name),
		Handler: (*ownership)(e), Session: e.cfg.Session, Denied: e.denied, Logger: e.log,
	})
	if err != nil {
		return err
	}
	e.member = m
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.done.Go(func() { e.poll(ctx) })
	e.done.Go(func() { e.scheduleLoop(ctx) })
	e.done.Go(func() { e.commitLoop(ctx) })
	return nil
}

// Failed delivers the error that ended the engine: hop.ErrReplaced when a newer process has this node's name. Attempts
// that run are cancelled.
func (e *Engine) Failed() <-chan error { return e.failed }

// Update makes a changed spec count for what is settled and started from now on.
func (e *Engine) Update(a *spec.Agent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	strict := e.strict()
	e.spec, e.policy = a, NewPolicy(a, e.cfg.Tiers)
	if strict && !e.strict() {
		e.relax()
	}
	e.outage.hurry(time.Now())
	signal(e.wakeSchedule)
}

// Kick says that the Runner may have more slots.
func (e *Engine) Kick() { signal(e.wakeSchedule) }

// Figures is what the engine knows of itself.
type Figures struct {
	Partitions int // owned, those included that were lost and not yet given to anybody else
	Running    int // attempts in flight
	Held       int // tasks read and not settled, the running ones included
	// Overdue counts the attempts that have run for twice their time: the Runner can't end them.
	Overdue int
	// Joined says that the group counts this worker, and has confirmed it recently enough that its work may start.
	Joined bool
	// Outage is the one that stands; nil: none.
	Outage *Outage
}

// Figures counts.
func (e *Engine) Figures() Figures {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := Figures{Partitions: len(e.parts) + len(e.lost), Running: e.running, Joined: e.joined && e.member.HasLease(), Outage: e.outage.figures()}
	now := time.Now()
	for _, p := range e.order {
		f.Held += p.live + len(p.pending)
		for s := range p.inFlight {
			if limit := s.attempt.Timeout; limit > 0 && now.Sub(s.alive())/2 > limit {
				f.Overdue++
			}
		}
	}
	return f
}

// Stop starts nothing more, waits for running attempts until the context ends, cancels the rest, commits what is
// settled as a clean hand-over and closes. The static membership stays, so that a restart finds its partitions. Stop and
// Leave do nothing to an engine that wasn't started, and may be called again.
func (e *Engine) Stop(ctx context.Context) {
	if !e.started() {
		return
	}
	e.drain(ctx)
	e.member.Close()
	e.endDenied()
}

// Leave is Stop, and leaves the group by name: another worker gets the partitions at once.
func (e *Engine) Leave(ctx context.Context) error {
	if !e.started() {
		return nil
	}
	e.drain(ctx)
	defer e.endDenied()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelPause)
	defer cancel()
	return e.member.Leave(ctx)
}

func (e *Engine) started() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.member != nil
}

func (e *Engine) drain(ctx context.Context) {
	e.mu.Lock()
	e.draining = true
	e.mu.Unlock()
	idle := func() bool { return e.running == 0 }
	if !e.await(ctx, idle) {
		e.cancelRunning(func(*slot) bool { return true })
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.CancelPause)
		left := !e.await(grace, idle)
		cancel()
		e.mu.Lock()
		e.spent = left
		e.mu.Unlock()
	}
	e.cancel() // the loops end; what is settled is committed below
	e.done.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelPause)
	defer cancel()
	e.commitLast(last, func(*slot) bool { return true })
	e.endAlerts()
}

// endAlerts takes back what people were told of, because the worker has stopped.
func (e *Engine) endAlerts() {
	e.mu.Lock()
	defer e.mu.Unlock()
	const message = "the worker stops; the next one sees for itself"
	if e.outage.believed {
		e.cfg.Alert(Alert{Kind: "outage", Severity: "critical", Resolved: true, Message: message})
	}
	if e.crowded {
		e.cfg.Alert(Alert{Kind: KindQueueHeld, Severity: "warning", Resolved: true, Message: message})
	}
	if e.delivery.endWaits(func(string) bool { return true }) {
		e.resolved(message)
	}
}

// endDenied takes back that the worker may not consume, once it doesn't want to any more.
func (e *Engine) endDenied() {
	if e.refused.Swap(false) {
		e.cfg.Alert(Alert{Kind: "kafka_denied", Severity: "critical", Resolved: true, Message: "the worker stops"})
	}
}

// await waits for a condition under the lock, and reports false if the context ended first.
func (e *Engine) await(ctx context.Context, ok func() bool) bool {
	stop := context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.changed.Broadcast()
	})
	defer stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for !ok() {
		if ctx.Err() != nil {
			return false
		}
		e.changed.Wait()
	}
	return true
}

func (e *Engine) cancelRunning(of func(*slot) bool) {
	var victims []*Attempt
	e.mu.Lock()
	for _, ps := range []map[int32]*partition{e.parts, e.lost} {
		for _, p := range ps {
			for s := range p.inFlight {
				if of(s) {
					victims = append(victims, &s.attempt)
				}
			}
		}
	}
	e.mu.Unlock()
	e.cancelAttempts(victims)
}

func (e *Engine) cancelAttempts(as []*Attempt) {
	e.scheduling.Lock()
	defer e.scheduling.Unlock()
	for _, a := range as {
		e.cfg.Runner.Cancel(a)
	}
}

// poll reads records and admits them, until the context ends or the member is fenced.
func (e *Engine) poll(ctx context.Context) {
	for {
		fs, err := e.member.Poll(ctx, pollLimit)
		if err != nil {
			if !errors.Is(err, hop.ErrReplaced) {
				return
			}
			e.cancelRunning(func(*slot) bool { return true })
			e.failed <- err
			return
		}
		e.admit(fs)
		e.member.AllowRebalance()
		e.schedule()
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
