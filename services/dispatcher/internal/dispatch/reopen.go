package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/dispatcher/internal/redrive"
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
	done, err := o.reopen(limited, c)
	refused := (*refusedError)(nil)
	switch {
	case err == nil:
		o.env.Reporter.Command(c, status.CommandDone, done)
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

// reopen makes the task anew, if its partition is this dispatcher's, and says what has become of it.
func (o *reopener) reopen(ctx context.Context, c command.Command) (done string, err error) {
	origin, err := task.ParseOrigin(c.Task)
	if err != nil {
		return "", &refusedError{err.Error()}
	}
	k := o.keeper(c.Ref())
	if k == nil {
		return "", errElsewhere
	}
	carrier, lane, topicID := k.routing()
	if carrier == nil {
		return "", errElsewhere
	}
	since, ok := carrier.Owns(origin.Partition)
	if !ok {
		return "", errElsewhere
	}
	if err := o.commands.CatchUp(ctx, o.env.admin()); err != nil {
		return "", err
	}
	if o.commands.Finished(c.ID) {
		return "", errFinished
	}
	if origin.TopicID != "" && topicID != "" && origin.TopicID != topicID {
		return "", &refusedError{fmt.Sprintf("the topic %s was deleted and made again since: publish the event again", origin.Topic)}
	}
	event, err := o.event(ctx, origin)
	if err != nil {
		return "", err
	}
	finished, err := c.Finished(o.env.Names, o.env.Service+"/"+o.env.Node, time.Now())
	if err != nil {
		return "", err
	}
	again, becomes := lane.again(topicID, event, c.Round+1, time.Now())
	records, done := []*kgo.Record{becomes, finished}, "its event is dispatched once more"
	if becomes != again {
		done = "it is " + route.Header(becomes, task.HeaderOutcome) + " by what its agent takes now: " + route.Header(becomes, task.HeaderErrorMessage)
		records = append(records, slices.Concat(o.env.unrun.Ended(ctx, worker.Ending{Task: again, Outcome: becomes})...)...)
	}
	const told = 2 // where what Ended gave begins
	if err := carrier.Add(ctx, origin.Partition, since, records); err != nil {
		o.env.unrun.NotCommitted(ctx, records, told, err)
		return "", err
	}
	o.tellOpened(ctx, c, records)
	return done, nil
}

// tellOpened tells which round was opened. Where Kafka doesn't take it, the round is heard of with its first outcome.
func (o *reopener) tellOpened(ctx context.Context, c command.Command, records []*kgo.Record) {
	opened := redrive.Opened(o.env.Names.Tasks(c.Topic, c.Agent), records)
	if err := o.env.Reporter.Rounds(ctx, c.Topic, c.Agent, opened); err != nil {
		o.env.Logger.Warn("tell that a task's next round is opened", slog.String("agent", c.Ref()), slog.String("task", c.Task), slog.Any("error", err))
	}
}

// routing is what routes the agent's events now; nil where nothing does.
func (k *Keeper) routing() (*Carrier, *Lane, string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.carrier, k.lane, topicIDText(k.topicID)
}

// event reads an event from the user's topic.
func (o *reopener) event(ctx context.Context, origin task.Origin) (*kgo.Record, error) {
	r, err := kafka.RecordAt(ctx, o.env.Client, o.env.Opts, origin.Topic, origin.Partition, origin.Offset)
	if errors.Is(err, kafka.ErrGone) {
		return nil, &refusedError{fmt.Sprintf("the event %s stands on its topic no longer: publish it again", origin.ID())}
	}
	if err != nil {
		return nil, fmt.Errorf("look for the event %s: %w", origin.ID(), err)
	}
	return r, nil
}

// again is the task of an event's later round, and what becomes of it by the agent's spec as it is now: itself, or how it
// ends unrun.
func (l *Lane) again(topicID string, event *kgo.Record, round int, now time.Time) (again, becomes *kgo.Record) {
	again = route.New(l.names, l.agent, topicID).Tasks([]*kgo.Record{event}, []int32{l.placeOf(event)}, now)[0]
	again.Headers = append(again.Headers[:len(again.Headers):len(again.Headers)], kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte(strconv.Itoa(round))})
	gate := l.rules.Load().gate
	if gate == nil {
		return again, again
	}
	return again, gate.Decide(event).Again().Settle(l.names, again, l.node, now)
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
