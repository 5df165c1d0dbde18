package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/hop"
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
	fail func(error) // ends the process
	wake chan struct{}

	mu      sync.Mutex
	room    *Room
	desired *spec.Agent // nil once the record is deleted
	report  status.AgentReport
	carrier *Carrier // while the agent is routed
	lane    *Lane
	topicID [16]byte // of the user topic, as of the start of the lane
	lag     *int64
}

func newKeeper(env *Environment, a *spec.Agent, fail func(error)) *Keeper {
	return &Keeper{
		env: env, fail: fail, wake: make(chan struct{}, 1), room: NewRoom(a.Partitions), desired: a,
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
	cleaned := int64(-1) // the generation whose remains are deleted
	for ctx.Err() == nil {
		a := k.Spec()
		switch {
		case a == nil:
			return
		case a.Phase == spec.Active:
			k.serve(ctx, a)
		case a.Phase == spec.Terminated && (a.CleanUp || a.DeleteDLQ) && cleaned != a.Generation:
			k.tell(a, status.ReportLeaving, nil)
			if err := k.cleanUp(ctx, a); err != nil {
				k.trouble(ctx, a, "delete what the agent leaves", err)
				continue
			}
			cleaned = a.Generation
		default:
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
	k.env.Logger.Warn(what, slog.String("agent", a.Ref()), slog.Any("error", err))
	k.tell(a, status.ReportError, &spec.Cause{Type: "DispatchError", Message: fmt.Sprintf("%s: %v", what, err), Remediation: "the dispatcher tries again by itself; see its log"})
	k.wait(ctx, tryAgain)
}

// serve routes an active agent's events until it is to do something else.
func (k *Keeper) serve(ctx context.Context, a *spec.Agent) {
	id, err := k.userTopic(ctx, a)
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
	if err := k.route(ctx, a, id); err != nil {
		k.trouble(ctx, a, "route events", err)
	}
}

var errNoTopic = errors.New("the topic doesn't exist")

// userTopic gives the id of the agent's topic, which it makes where that is allowed.
func (k *Keeper) userTopic(ctx context.Context, a *spec.Agent) ([16]byte, error) {
	found, err := k.env.admin().ListTopics(ctx, a.Topic)
	if err != nil {
		return [16]byte{}, err
	}
	t := found[a.Topic]
	if errors.Is(t.Err, kerr.UnknownTopicOrPartition) || t.Err == nil && len(t.Partitions) == 0 {
		if k.env.CreateTopics {
			if err := kafka.EnsureTopics(ctx, k.env.Client, k.env.Kafka.Replication, kafka.Topic{Name: a.Topic, Partitions: -1}); err != nil {
				return [16]byte{}, err
			}
		}
		return [16]byte{}, errNoTopic
	}
	return t.ID, t.Err
}

// taskTopic makes the agent's task topic and sees to it that topics that its records go through take them.
func (k *Keeper) taskTopic(ctx context.Context, a *spec.Agent) error {
	source, err := kafka.MaxBytes(ctx, k.env.Client, a.Topic)
	if isUnknownTopic(err) {
		source, err = kafka.DefaultMaxBytes, nil
	}
	if err != nil {
		return err
	}
	tasks := kafka.TasksTopic(k.env.Names, a, source)
	found, err := k.env.admin().ListTopics(ctx, tasks.Name)
	if err != nil {
		return fmt.Errorf("look up topic %s: %w", tasks.Name, err)
	}
	if found[tasks.Name].Err != nil || len(found[tasks.Name].Partitions) == 0 {
		if err := kafka.EnsureTopics(ctx, k.env.Client, k.env.Kafka.Replication, tasks); err != nil {
			return err
		}
	}
	limit := kafka.DerivedMaxBytes(source)
	through := []string{tasks.Name}
	if limit > kafka.SharedMaxBytes {
		for _, tier := range k.env.Kafka.RetryTiers {
			through = append(through, k.env.Names.Retry(tier))
		}
	}
	for _, topic := range through {
		if err := kafka.RaiseMaxBytes(ctx, k.env.Client, topic, limit); err != nil {
			return err
		}
	}
	return nil
}

// route is the agent's time as a member of its group.
func (k *Keeper) route(ctx context.Context, a *spec.Agent, id [16]byte) error {
	room := k.roomFor(a)
	lane := &Lane{
		names: k.env.Names, agent: a, node: k.env.Node, room: room, logger: k.env.Logger,
		mend:     func(ctx context.Context) error { return k.taskTopic(ctx, a) },
		alert:    func(kind, message string) { k.env.Reporter.Alert(a.Topic, a.Name, kind, message) },
		assigned: make(map[int32]bool), refused: make(map[recordID]refusal),
	}
	count := k.env.Metrics.routed(a)
	c, err := NewCarrier(CarrierConfig{
		Member: hop.MemberConfig{
			Opts: clientOptions(k.env.Opts), Names: k.env.Names, Group: k.env.Names.Group(a.Topic, a.Name), Topic: a.Topic,
			Service: k.env.Service, Node: k.env.Node,
		},
		Pool: k.env.Pool, Rule: lane, Wake: room.Wake(), Logger: k.env.Logger,
	}, func(n int) { count.Add(float64(n)) })
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
	k.mu.Lock()
	k.carrier, k.lane = nil, nil
	k.mu.Unlock()
	if byItself := (*endedError)(nil); errors.As(why, &byItself) {
		c.Member().Close()
		return k.ended(ctx, byItself.cause)
	}
	stop()
	<-ended
	if ctx.Err() != nil || errors.Is(why, errTopicChanged) {
		c.Member().Close() // the membership stays, so that a restart finds its partitions
		return nil
	}
	k.tell(a, status.ReportLeaving, nil)
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	return c.Member().Leave(leaving)
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
		now, changed := k.desired, k.topicID == [16]byte{}
		k.mu.Unlock()
		switch {
		case now == nil || now.Phase != spec.Active || now.Partitions != a.Partitions:
			return errPhase
		case changed:
			return errTopicChanged
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

// TopicSeen compares what a look at the cluster found of the user topic with what is routed; a topic that is gone or was
// made again ends the lane, and the next one starts at the new topic's beginning.
func (k *Keeper) TopicSeen(id [16]byte, exists bool) {
	k.mu.Lock()
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

// cleanUp deletes what was asked for of an agent's group with its task topic, and its DLQ. Tasks that are left are
// settled as discarded. Pending retries are discarded when they fall due.
func (k *Keeper) cleanUp(ctx context.Context, a *spec.Agent) error {
	adm, names := k.env.admin(), k.env.Names
	tasks, work := names.Tasks(a.Topic, a.Name), names.WorkGroup(a.Topic, a.Name)
	if !a.CleanUp {
		return deleteTopics(ctx, adm, names.DLQ(a.Topic, a.Name))
	}
	if err := k.discardTasks(ctx, adm, a, tasks, work); err != nil {
		return err
	}
	gone := []string{tasks}
	if a.DeleteDLQ {
		gone = append(gone, names.DLQ(a.Topic, a.Name))
	}
	if err := deleteTopics(ctx, adm, gone...); err != nil {
		return err
	}
	groups, err := adm.DeleteGroups(ctx, names.Group(a.Topic, a.Name), work)
	if err != nil {
		return fmt.Errorf("delete groups: %w", err)
	}
	for _, g := range groups {
		if g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound) {
			return fmt.Errorf("delete group %s: %w", g.Group, g.Err)
		}
	}
	return nil
}

// deleteTopics deletes topics; one that is gone already is fine.
func deleteTopics(ctx context.Context, adm *kadm.Client, names ...string) error {
	deleted, err := adm.DeleteTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	for _, d := range deleted {
		if d.Err != nil && !errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %s: %w", d.Topic, d.Err)
		}
	}
	return nil
}

// discardTasks settles what is left on the task topic, once the workers have left it.
func (k *Keeper) discardTasks(ctx context.Context, adm *kadm.Client, a *spec.Agent, tasks, work string) error {
	left, err := k.tasksLeft(ctx, adm, tasks, work)
	if err != nil || left == 0 {
		return err
	}
	if others, err := k.workers(ctx, adm, work); err != nil || others > 0 {
		return errors.Join(err, fmt.Errorf("%d workers are still in the group %s", others, work))
	}
	rule := &Purge{names: k.env.Names, agent: a, node: k.env.Node, logger: k.env.Logger, assigned: make(map[int32]purged)}
	c, err := NewCarrier(CarrierConfig{
		Member: hop.MemberConfig{Opts: k.env.Opts, Names: k.env.Names, Group: work, Topic: tasks, Service: k.env.Service, Node: k.env.Node},
		Pool:   k.env.Pool, Rule: rule, Logger: k.env.Logger,
	}, nil)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(running) }()
	waitErr := k.untilDiscarded(ctx, adm, a, tasks, work, ended)
	stop()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	return errors.Join(waitErr, c.Member().Leave(leaving))
}

func (k *Keeper) untilDiscarded(ctx context.Context, adm *kadm.Client, a *spec.Agent, tasks, work string, ended <-chan error) error {
	again := time.NewTicker(tryAgain / 4)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			<-ended
			return ctx.Err()
		case err := <-ended:
			return &endedError{err}
		case <-again.C:
		}
		if now := k.Spec(); now == nil || now.Generation != a.Generation {
			return errPhase
		}
		if left, err := k.tasksLeft(ctx, adm, tasks, work); err != nil || left == 0 {
			return err
		}
	}
}

// tasksLeft is how many offsets of the task topic aren't committed past; 0 where there is no topic.
func (k *Keeper) tasksLeft(ctx context.Context, adm *kadm.Client, tasks, work string) (int64, error) {
	found, err := adm.ListTopics(ctx, tasks)
	if err != nil {
		return 0, fmt.Errorf("look up topic %s: %w", tasks, err)
	}
	if errors.Is(found[tasks].Err, kerr.UnknownTopicOrPartition) {
		return 0, nil
	}
	if err := found[tasks].Err; err != nil {
		return 0, fmt.Errorf("look up topic %s: %w", tasks, err)
	}
	starts, err1 := adm.ListStartOffsets(ctx, tasks)
	ends, err2 := adm.ListEndOffsets(ctx, tasks)
	if err := errors.Join(err1, err2, starts.Error(), ends.Error()); err != nil {
		return 0, fmt.Errorf("list offsets of %s: %w", tasks, err)
	}
	committed, err := adm.FetchOffsets(ctx, work)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return 0, fmt.Errorf("fetch offsets of group %s: %w", work, err)
	}
	var left int64
	ends.Each(func(end kadm.ListedOffset) {
		low := int64(0)
		if start, ok := starts.Lookup(tasks, end.Partition); ok {
			low = start.Offset
		}
		if o, ok := committed.Lookup(tasks, end.Partition); ok {
			low = max(low, o.At)
		}
		left += max(end.Offset-low, 0)
	})
	return left, nil
}

// workers counts the members of a work group that are no dispatchers.
func (k *Keeper) workers(ctx context.Context, adm *kadm.Client, work string) (int, error) {
	described, err := adm.DescribeGroups(ctx, work)
	if err != nil {
		return 0, fmt.Errorf("describe group %s: %w", work, err)
	}
	n := 0
	for _, m := range described[work].Members {
		if m.InstanceID == nil || !k.env.isDispatcher(*m.InstanceID) {
			n++
		}
	}
	return n, nil
}

// tell sets the report, and sends it at once where state or error changed.
func (k *Keeper) tell(a *spec.Agent, state string, cause *spec.Cause) {
	k.set(func(r *status.AgentReport) {
		r.Generation, r.State, r.Error, r.TopicMissing = a.Generation, state, cause, false
	})
}

func (k *Keeper) tellMissing(a *spec.Agent) {
	if !k.env.CreateTopics && !k.Report().TopicMissing {
		k.env.Logger.Warn("the agent's topic doesn't exist: create it, its events are routed from then on", slog.String("agent", a.Ref()), slog.String("topic", a.Topic))
	}
	k.set(func(r *status.AgentReport) {
		r.Generation, r.State, r.Error, r.TopicMissing = a.Generation, status.ReportServing, nil, true
	})
}

func (k *Keeper) set(change func(r *status.AgentReport)) {
	k.mu.Lock()
	before := k.report
	change(&k.report)
	after := k.report
	k.mu.Unlock()
	if before.State != after.State || before.Error != after.Error || before.TopicMissing != after.TopicMissing || before.Generation != after.Generation {
		k.env.Reporter.Agent(k.Report())
	}
}

// Report is the agent's report with its figures.
func (k *Keeper) Report() status.AgentReport {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.report
	r.Lag = k.lag
	if k.lane != nil {
		r.Partitions = k.lane.Partitions()
	}
	if n := k.room.Unsettled(); k.carrier != nil || n > 0 {
		r.Unsettled = &n
	}
	return r
}

// positions gives where the lane stands; nil while there is none.
func (k *Keeper) positions() map[int32]int64 {
	k.mu.Lock()
	c := k.carrier
	k.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.Positions()
}

func (k *Keeper) setLag(lag *int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lag = lag
}
