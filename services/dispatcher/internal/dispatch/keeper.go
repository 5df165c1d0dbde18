package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
)

// tryAgain is how long a keeper waits before it tries again what didn't go, and before it looks again for a topic.
const tryAgain = time.Second

// leaveLimit bounds how long leaving a group may take.
const leaveLimit = 10 * time.Second

// Keeper converges one agent's routing to its spec.
type Keeper struct {
	env  *Environment
	lead func() bool // whether this dispatcher does what one does for all
	fail func(error) // ends the process
	wake chan struct{}

	mu      sync.Mutex
	room    *Room
	desired *spec.Agent // nil once the record is deleted
	report  status.AgentReport
	carrier *Carrier // while the agent is routed
	lane    *Lane
	topicID [16]byte    // of the user topic, as of the start of the lane
	refused *spec.Agent // the agent whose alert stands that a right is missing; nil: none does
	lag     *int64
	counted map[int32]offsets.Count // by partition of the user topic, as of the end of the last lane
	told    map[int32]offsets.Count // what the last heartbeats said
}

func newKeeper(env *Environment, a *spec.Agent, lead func() bool, fail func(error)) *Keeper {
	return &Keeper{
		env: env, lead: lead, fail: fail, wake: make(chan struct{}, 1), room: NewRoom(a.Partitions), desired: a,
		report: status.AgentReport{Topic: a.Topic, AgentName: a.Name, State: status.ReportStarting},
	}
}

// Desire sets what to converge to; nil means that the agent's record was deleted.
func (k *Keeper) Desire(a *spec.Agent) {
	k.mu.Lock()
	k.desired = a
	k.mu.Unlock()
	k.poke()
}

func (k *Keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Room is the agent's room.
func (k *Keeper) Room() *Room {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.room
}

// roomFor is Room, made anew where an agent of the same name has another number of task partitions.
func (k *Keeper) roomFor(a *spec.Agent) *Room {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.room.Partitions() != a.Partitions {
		k.room = NewRoom(a.Partitions)
	}
	return k.room
}

// Spec is the spec to converge to.
func (k *Keeper) Spec() *spec.Agent {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.desired
}

// Run converges until the context ends or the agent's record is deleted.
func (k *Keeper) Run(ctx context.Context) {
	for ctx.Err() == nil {
		a := k.Spec()
		switch {
		case a == nil:
			k.allowed("the agent is deleted")
			return
		case a.Cleaning():
			k.clean(ctx, a)
		case a.Phase == spec.Active:
			k.serve(ctx, a)
		default:
			k.allowed("the agent is to run no more")
			k.tell(a, status.ReportIdle, nil)
			k.wait(ctx, 0)
		}
	}
}

// wait waits for a newer spec or the end; 0 means without a limit.
func (k *Keeper) wait(ctx context.Context, limit time.Duration) {
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-ctx.Done():
	case <-k.wake:
	case <-expired:
	}
}

// trouble reports what didn't go and waits before the next try.
func (k *Keeper) trouble(ctx context.Context, a *spec.Agent, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	cause := spec.Cause{Type: "DispatchError", Message: fmt.Sprintf("%s: %v", what, err), Remediation: "the dispatcher tries again by itself; see its log"}
	if not := (*kafka.NotCreated)(nil); errors.As(err, &not) { // it says what to do itself
		cause.Remediation = "the dispatcher goes on by itself once the topic is there"
	} else if remedy := kafka.Remedy(err); remedy != "" {
		cause.Remediation = remedy + "; the dispatcher goes on by itself then"
	}
	if old := k.Report().Error; old == nil || *old != cause {
		k.env.Logger.Warn(what, slog.String("agent", a.Ref()), slog.Any("error", err), slog.String("remedy", cause.Remediation))
		if security.Denied(err) {
			k.alertDenied(a, cause.Message+": "+cause.Remediation)
		}
	}
	k.tell(a, status.ReportError, &cause)
	k.wait(ctx, tryAgain)
}

// serve routes an active agent's events until it is to do something else.
func (k *Keeper) serve(ctx context.Context, a *spec.Agent) {
	id, spans, err := k.userTopic(ctx, a)
	switch {
	case errors.Is(err, errNoTopic):
		k.tellMissing(a)
		k.wait(ctx, tryAgain)
		return
	case err != nil:
		k.trouble(ctx, a, "look up the user topic", err)
		return
	}
	if err := k.taskTopic(ctx, a); err != nil {
		k.trouble(ctx, a, "make the task topic", err)
		return
	}
	k.allowed(routed)
	if forgotten, err := k.forgotten(ctx, a, id); err != nil || forgotten != nil {
		k.trouble(ctx, a, "look up where the agent stands", errors.Join(err, forgotten))
		return
	}
	if err := k.route(ctx, a, id, spans); err != nil {
		k.trouble(ctx, a, "route events", err)
	}
}

// forgotten is an error where the agent's group had positions on the topic with this id, and Kafka has none any more.
func (k *Keeper) forgotten(ctx context.Context, a *spec.Agent, id [16]byte) (forgotten, err error) {
	if a.Kept.Topic == "" || a.Kept.Topic != topicIDText(id) {
		return nil, nil
	}
	group := k.env.Names.Group(a.Topic, a.Name)
	if yes, err := hop.Forgotten(ctx, k.env.Client, group, a.Topic); err != nil || !yes {
		return nil, err
	}
	return &hop.ForgottenError{Group: group}, nil
}

// route is the agent's time as a member of its group. Its topic has an id and so many partitions.
func (k *Keeper) route(ctx context.Context, a *spec.Agent, id [16]byte, spans int) error {
	room := k.roomFor(a)
	lane := &Lane{
		names: k.env.Names, agent: a, node: k.env.Node, room: room, asks: k.env.asks, logger: k.env.Logger,
		mend:  func(ctx context.Context) error { return k.taskTopic(ctx, a) },
		alert: func(kind, message string) { k.env.Reporter.Meet(a.Topic, a.Name, kind, message) },
		lost: func(p int32, from, to int64) {
			k.env.Reporter.Send(a.Ref(), status.Lost{Event: status.EventLost, Topic: a.Topic, AgentName: a.Name, TopicID: topicIDText(id), Partition: p, From: from, To: to, Timestamp: status.Seconds(time.Now())})
		},
		routers: make(map[int32]*route.Router), refused: make(map[recordID]refusal),
	}
	if err := lane.Follow(a); err != nil {
		return err
	}
	lane.Spans(spans)
	passed, over := k.env.Metrics.routed(a)
	c, err := NewCarrier(CarrierConfig{
		Member: hop.MemberConfig{
			Opts: clientOptions(k.env.Opts), Names: k.env.Names, Group: k.env.Names.Group(a.Topic, a.Name), Topic: a.Topic,
			Service: k.env.Service, Node: k.env.Node, Denied: func(err error) { k.denied(a, err) }, Begin: begin(a),
		},
		Pool: k.env.Pool, Rule: lane, Wake: room.Wake(), Unrun: k.env.unrun, Logger: k.env.Logger,
	}, func(n, m int) { passed.Add(float64(n)); over.Add(float64(m)) })
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.carrier, k.lane, k.topicID = c, lane, id
	k.mu.Unlock()
	k.tell(a, status.ReportServing, nil)
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(running) }()
	why := k.whileServing(ctx, a, ended)
	if byItself := (*endedError)(nil); errors.As(why, &byItself) {
		k.unrouted(c)
		c.Member().Close()
		return k.ended(ctx, byItself.cause)
	}
	stop()
	<-ended
	k.unrouted(c)
	if ctx.Err() != nil || errors.Is(why, errTopicChanged) {
		c.Member().Close() // the membership stays, so that a restart finds its partitions
		return nil
	}
	k.tell(a, status.ReportLeaving, nil)
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	return c.Member().Leave(leaving)
}

// unrouted notes that a carrier has ended. What it has counted is still to be told.
func (k *Keeper) unrouted(c *Carrier) {
	passed := c.Passed()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.carrier, k.lane, k.counted = nil, nil, passed
}

// denied reports that the agent's events can't be consumed for want of a right, and takes it back with nil.
func (k *Keeper) denied(a *spec.Agent, err error) {
	if err == nil {
		k.allowed(routed)
		k.tell(a, status.ReportServing, nil)
		return
	}
	what := fmt.Sprintf("consume %s in the group %s: %v", a.Topic, k.env.Names.Group(a.Topic, a.Name), err)
	remedy := kafka.Remedy(err)
	k.alertDenied(a, what+": "+remedy)
	k.tell(a, status.ReportError, &spec.Cause{Type: "DispatchError", Message: what, Remediation: remedy + "; the dispatcher goes on by itself then"})
}

// routed is why the alert of a missing right is taken back, as a rule.
const routed = "its events are routed"

// alertDenied alerts that a right is missing.
func (k *Keeper) alertDenied(a *spec.Agent, message string) {
	k.mu.Lock()
	k.refused = a
	k.mu.Unlock()
	k.env.Reporter.Alert(status.Alert{Topic: a.Topic, AgentName: a.Name, Kind: status.KindDenied, Severity: "critical", Message: message})
}

// allowed takes the alert of a missing right back, if it stands.
func (k *Keeper) allowed(why string) {
	k.mu.Lock()
	stood := k.refused
	k.refused = nil
	k.mu.Unlock()
	if stood != nil {
		k.env.Reporter.Alert(status.Alert{Topic: stood.Topic, AgentName: stood.Name, Kind: status.KindDenied, Severity: "critical", Message: why, Resolved: true})
	}
}

// Reasons to end a lane.
var (
	errPhase        = errors.New("the agent isn't active any more")
	errTopicChanged = errors.New("the user topic was deleted or made again")
)

// endedError is what a carrier ended with by itself; nil where it just ended.
type endedError struct{ cause error }

func (e *endedError) Error() string { return fmt.Sprintf("the consumption ended: %v", e.cause) }
func (e *endedError) Unwrap() error { return e.cause }

// whileServing waits for a reason to stop serving.
func (k *Keeper) whileServing(ctx context.Context, a *spec.Agent, ended <-chan error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return &endedError{err}
		case <-k.wake:
		}
		k.mu.Lock()
		now, lane, changed := k.desired, k.lane, k.topicID == [16]byte{}
		k.mu.Unlock()
		switch {
		case now == nil || now.Phase != spec.Active || now.Cleaning() || now.Partitions != a.Partitions:
			return errPhase
		case changed:
			return errTopicChanged
		}
		if err := lane.Follow(now); err != nil {
			return err // the next lane tells of it
		}
		k.tell(now, status.ReportServing, nil)
	}
}

// ended decides what it means that a carrier ended by itself.
func (k *Keeper) ended(ctx context.Context, err error) error {
	if errors.Is(err, hop.ErrReplaced) {
		k.fail(k.env.replaced(ctx))
		return nil
	}
	return err
}

// begin is where the agent's group begins: at the topic's start, unless its spec says otherwise of this very topic.
func begin(a *spec.Agent) func(topicID [16]byte, partition int32) (int64, bool) {
	return func(topicID [16]byte, partition int32) (int64, bool) {
		if a.StartAt == nil || a.StartAt.TopicID != topicIDText(topicID) {
			return 0, false
		}
		at, ok := a.StartAt.Offsets[partition]
		return at, ok
	}
}

// TopicSeen compares what a look at the cluster found of the user topic with what is routed; a topic that is gone or was
// made again ends the lane, and the next one starts at the new topic's beginning.
func (k *Keeper) TopicSeen(id [16]byte, partitions int) {
	exists := partitions > 0
	k.mu.Lock()
	if k.lane != nil && exists {
		k.lane.Spans(partitions)
	}
	serving := k.carrier != nil && k.topicID != [16]byte{}
	changed := serving && (!exists || id != k.topicID)
	if changed {
		k.topicID = [16]byte{}
	}
	k.mu.Unlock()
	if changed {
		k.poke()
	}
}
