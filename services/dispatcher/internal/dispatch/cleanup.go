package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
)

// clean deletes what is asked for of a life of the agent that ended, and says so until the registry takes note. One
// dispatcher does it for all, or a slow one would delete what the next life has made.
func (k *Keeper) clean(ctx context.Context, a *spec.Agent) {
	if !k.lead() {
		k.tell(a, status.ReportIdle, nil)
		k.wait(ctx, tryAgain) // it may come to lead
		return
	}
	if r := k.Report(); r.Cleaned == nil || r.Cleaned.Since != a.CleanSince {
		k.tell(a, status.ReportLeaving, nil)
		floor, err := k.cleanUp(ctx, a)
		if err != nil {
			k.trouble(ctx, a, "delete what the agent leaves", err)
			return
		}
		k.set(func(r *status.AgentReport) {
			r.Generation, r.State, r.Error = a.Generation, status.ReportIdle, nil
			r.Cleaned = &status.Cleaned{Since: a.CleanSince, RetryFloor: floor}
		})
		k.allowed("what the agent leaves is deleted")
	}
	k.wait(ctx, tryAgain)
}

// cleanUp deletes what was asked for of an agent's groups with its task topic, and its DLQ. Tasks that are left are settled
// as discarded. So are pending retries, when they fall due: those below the offsets that it returns. Topics are deleted by
// their ids, so that never a later one goes.
func (k *Keeper) cleanUp(ctx context.Context, a *spec.Agent) (floor map[string][]int64, err error) {
	adm, names := k.env.admin(), k.env.Names
	tasks, work, dlq := names.Tasks(a.Topic, a.Name), names.WorkGroup(a.Topic, a.Name), names.DLQ(a.Topic, a.Name)
	found, err := kafka.ListTopics(ctx, k.env.Client, tasks, dlq)
	if err != nil {
		return nil, err
	}
	none := func(string) bool { return false }
	if err := k.left(ctx, adm, names.Group(a.Topic, a.Name), none); err != nil { // dispatchers that may still route
		return nil, err
	}
	if err := k.left(ctx, adm, work, k.env.isDispatcher); err != nil { // what workers run may still be dead-lettered or retried
		return nil, err
	}
	if err := k.left(ctx, adm, names.DLQGroup(a.Topic, a.Name), none); err != nil { // what is redriven there would be lost with its task topic
		return nil, err
	}
	var gone []kadm.TopicDetail
	if a.DeleteDLQ {
		gone = append(gone, found[dlq])
	}
	if a.CleanUp {
		if floor, err = k.retryFloor(ctx, adm); err != nil {
			return nil, err
		}
		if err := k.discardTasks(ctx, adm, a, tasks, work); err != nil {
			return nil, err
		}
		gone = append(gone, found[tasks])
	}
	for _, t := range gone {
		if err := deleteTopic(ctx, k.env.Client, t); err != nil {
			return nil, err
		}
	}
	if !a.CleanUp {
		return nil, nil
	}
	return floor, deleteGroups(ctx, adm, names.Group(a.Topic, a.Name), work)
}

// retryFloor gives the ends of the retry topics: no worker of the agent is left that could send more.
func (k *Keeper) retryFloor(ctx context.Context, adm *kadm.Client) (map[string][]int64, error) {
	out := make(map[string][]int64)
	for _, tier := range k.env.Tiers {
		topic := k.env.Names.Retry(tier)
		ends, err := adm.ListEndOffsets(ctx, topic)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("list the end of %s: %w", topic, err)
		}
		floors := make([]int64, len(ends[topic]))
		for p, end := range ends[topic] {
			if p >= 0 && int(p) < len(floors) {
				floors[p] = end.Offset
			}
		}
		out[topics.Tier(tier)] = floors
	}
	return out, nil
}

// deleteTopic deletes a topic by its id; one that is gone already is fine.
func deleteTopic(ctx context.Context, cl *kgo.Client, t kadm.TopicDetail) error {
	if isUnknownTopic(t.Err) {
		return nil
	}
	if t.Err != nil {
		return fmt.Errorf("look up topic %s: %w", t.Topic, t.Err)
	}
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = int32(leaveLimit.Milliseconds())
	one := kmsg.NewDeleteTopicsRequestTopic()
	one.TopicID = t.ID
	req.Topics = append(req.Topics, one)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("delete topic %s: %w", t.Topic, err)
	}
	for _, rt := range resp.Topics {
		if err := kerr.ErrorForCode(rt.ErrorCode); err != nil && !isUnknownTopic(err) {
			return fmt.Errorf("delete topic %s: %w", t.Topic, err)
		}
	}
	return nil
}

// deleteGroups deletes groups; one that is gone already is fine.
func deleteGroups(ctx context.Context, adm *kadm.Client, names ...string) error {
	groups, err := adm.DeleteGroups(ctx, names...)
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

// discardTasks settles what is left on the task topic, which the workers have left.
func (k *Keeper) discardTasks(ctx context.Context, adm *kadm.Client, a *spec.Agent, tasks, work string) error {
	left, err := k.tasksLeft(ctx, adm, tasks, work)
	if err != nil || left == 0 {
		return err
	}
	rule := &Purge{names: k.env.Names, agent: a, node: k.env.Node, logger: k.env.Logger, assigned: make(map[int32]purged)}
	c, err := NewCarrier(CarrierConfig{
		Member: hop.MemberConfig{Opts: k.env.Opts, Names: k.env.Names, Group: work, Topic: tasks, Service: k.env.Service, Node: k.env.Node},
		Pool:   k.env.Pool, Rule: rule, Unrun: k.env.unrun, Logger: k.env.Logger,
	}, nil)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	var run sync.WaitGroup
	run.Go(func() { ended <- c.Run(running) })
	waitErr := k.untilDiscarded(ctx, adm, a, tasks, work, ended)
	stop()
	run.Wait()
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
			return ctx.Err()
		case err := <-ended:
			return &endedError{err}
		case <-again.C:
		}
		if now := k.Spec(); now == nil || !now.Cleaning() || now.CleanSince != a.CleanSince {
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

// left is an error while a group has members, but those that are excepted by their instance id.
func (k *Keeper) left(ctx context.Context, adm *kadm.Client, group string, except func(instance string) bool) error {
	described, err := adm.DescribeGroups(ctx, group)
	if err != nil {
		return fmt.Errorf("describe group %s: %w", group, err)
	}
	n := 0
	for _, m := range described[group].Members {
		if m.InstanceID == nil || !except(*m.InstanceID) {
			n++
		}
	}
	if n > 0 {
		return fmt.Errorf("%d members are still in the group %s", n, group)
	}
	return nil
}
