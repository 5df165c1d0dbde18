package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
)

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
