package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// reopener opens the next round of tasks that are finished and left no dead letter: it makes the task of its event anew.
//
// Who does it is the dispatcher that routes the event's partition, in a transaction of its carrier that also holds the note
// that the command is finished. It begins with the generation in which the partition is its own, then reads the commands
// to their end, and its transaction is refused if the partition has been another's since. So of all who ever own the
// partition one does it, once.
type reopener struct {
	env      *Environment
	commands *command.Follower
	keeper   func(ref string) *Keeper
	wake     chan struct{}

	mu   sync.Mutex
	open []command.Command
}

const (
	// reopenAgain is how often a command is looked at again that nobody could carry out yet: its agent is paused, or its
	// partition is another dispatcher's.
	reopenAgain = time.Second
	// reopenLimit bounds one try.
	reopenLimit = 15 * time.Second
)

func (o *reopener) add(c command.Command) {
	o.mu.Lock()
	o.open = append(o.open, c)
	o.mu.Unlock()
	signal(o.wake)
}

// run carries commands out until the context ends.
func (o *reopener) run(ctx context.Context) {
	for {
		var again <-chan time.Time
		o.mu.Lock()
		todo := o.open
		o.open = nil
		o.mu.Unlock()
		var left []command.Command
		for _, c := range todo {
			if o.pending(ctx, c) {
				left = append(left, c)
			}
		}
		o.mu.Lock()
		o.open = append(left, o.open...)
		o.mu.Unlock()
		if len(left) > 0 {
			again = time.After(reopenAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		case <-again:
		}
	}
}

// pending tries a command, and reports whether it is to be tried again.
func (o *reopener) pending(ctx context.Context, c command.Command) bool {
	if ctx.Err() != nil || time.Now().After(c.Expires) || o.commands.Finished(c.ID) {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, reopenLimit)
	defer cancel()
	err := o.reopen(limited, c)
	refused := (*refusedError)(nil)
	switch {
	case err == nil:
		o.env.Reporter.Command(c, status.CommandDone, "its event is dispatched once more")
		return false
	case errors.As(err, &refused):
		o.env.Reporter.Command(c, status.CommandRefused, refused.Error())
		return false
	case errors.Is(err, errFinished):
		return false
	case !errors.Is(err, errElsewhere) && ctx.Err() == nil:
		o.env.Logger.Warn("open a task's next round: it is tried again", slog.String("agent", c.Ref()), slog.String("task", c.Task), slog.Any("error", err))
	}
	return true
}

// refusedError says why a command can't be carried out, and what to do instead.
type refusedError struct{ message string }

func (e *refusedError) Error() string { return e.message }

var errFinished = errors.New("somebody has done it")

// reopen makes the task anew, if its partition is this dispatcher's.
func (o *reopener) reopen(ctx context.Context, c command.Command) error {
	origin, err := task.ParseOrigin(c.Task)
	if err != nil {
		return &refusedError{err.Error()}
	}
	k := o.keeper(c.Ref())
	if k == nil {
		return errElsewhere
	}
	carrier, lane, topicID := k.routing()
	if carrier == nil {
		return errElsewhere
	}
	since, ok := carrier.Owns(origin.Partition)
	if !ok {
		return errElsewhere
	}
	if err := o.commands.CatchUp(ctx, o.env.admin()); err != nil {
		return err
	}
	if o.commands.Finished(c.ID) {
		return errFinished
	}
	if origin.TopicID != "" && topicID != "" && origin.TopicID != topicID {
		return &refusedError{fmt.Sprintf("the topic %s was deleted and made again since: publish the event again", origin.Topic)}
	}
	event, err := o.event(ctx, origin)
	if err != nil {
		return err
	}
	records, err := o.records(lane, topicID, event, c)
	if err != nil {
		return err
	}
	return carrier.Add(ctx, origin.Partition, since, records)
}

// routing is what routes the agent's events now; nil where nothing does.
func (k *Keeper) routing() (*Carrier, *Lane, string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.carrier, k.lane, topicIDText(k.topicID)
}

// event reads an event from the user's topic.
func (o *reopener) event(ctx context.Context, origin task.Origin) (*kgo.Record, error) {
	gone := &refusedError{fmt.Sprintf("the event %s stands on its topic no longer: publish it again", origin.ID())}
	adm := o.env.admin()
	starts, err1 := adm.ListStartOffsets(ctx, origin.Topic)
	ends, err2 := adm.ListCommittedOffsets(ctx, origin.Topic)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("look for the event %s: %w", origin.ID(), err)
	}
	start, ok1 := starts.Lookup(origin.Topic, origin.Partition)
	end, ok2 := ends.Lookup(origin.Topic, origin.Partition)
	if !ok1 || !ok2 || start.Err != nil || end.Err != nil || origin.Offset < start.Offset || origin.Offset >= end.Offset {
		return nil, gone
	}
	cl, err := kgo.NewClient(append(o.env.Opts[:len(o.env.Opts):len(o.env.Opts)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{origin.Topic: {origin.Partition: kgo.NewOffset().At(origin.Offset)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.DisableFetchSessions(), kgo.FetchMaxBytes(1), kgo.FetchMaxPartitionBytes(1))...)
	if err != nil {
		return nil, fmt.Errorf("read the event %s: %w", origin.ID(), err)
	}
	defer cl.Close()
	for {
		fetches := cl.PollRecords(ctx, 1)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read the event %s: %w", origin.ID(), ctx.Err())
		}
		for _, r := range fetches.Records() {
			if r.Offset != origin.Offset || r.Attrs.IsControl() {
				return nil, gone
			}
			return r, nil
		}
	}
}

// records are the task of the next round, and the note that the command is finished.
func (o *reopener) records(lane *Lane, topicID string, event *kgo.Record, c command.Command) ([]*kgo.Record, error) {
	now := time.Now()
	a := lane.agent
	place := lane.placeOf(event)
	r := route.New(o.env.Names, a, topicID).Tasks([]*kgo.Record{event}, []int32{place}, now)[0]
	r.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte(strconv.Itoa(c.Round + 1))})
	finished, err := c.Finished(o.env.Names, o.env.Service+"/"+o.env.Node, now)
	if err != nil {
		return nil, err
	}
	return []*kgo.Record{r, finished}, nil
}

// placeOf is the task partition of an event that is dispatched out of its turn.
func (l *Lane) placeOf(r *kgo.Record) int32 {
	if r.Key != nil && !l.rules.Load().anywhere {
		return route.Partition(r.Key, l.agent.Partitions)
	}
	return int32(r.Offset % int64(l.agent.Partitions))
}

// reopenable says why an agent in a phase doesn't get a task of its event once more; "" says that it does, or will.
func reopenable(a *spec.Agent) string {
	if a == nil || a.Phase == spec.Terminated {
		return "the agent is deleted: register it again first"
	}
	return ""
}
