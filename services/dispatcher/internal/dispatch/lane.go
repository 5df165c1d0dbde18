package dispatch

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	// lookInterval is how often the length of a task queue is looked at, and urgentInterval how often where routing waits
	// for an agent that is fast.
	lookInterval   = 100 * time.Millisecond
	urgentInterval = 20 * time.Millisecond
	// alertAfter is how long a destination refuses records before people are told: a topic that was just made may be
	// unknown to some brokers.
	alertAfter = 10 * time.Second
)

// Lane is the rule of an agent's user topic: a record passes when its task partition has room.
type Lane struct {
	names  topics.Names
	agent  *spec.Agent
	node   string
	room   *Room
	router *route.Router
	// mend makes the task topic fit after a refusal; alert tells people.
	mend   func(ctx context.Context) error
	alert  func(kind, message string)
	lost   func(p int32, from, to int64) // records what retention took
	logger *slog.Logger

	asks   *asks
	asked  carriedOut
	places []int32 // scratch of Take
	// anywhere says that the agent's tasks may go to any partition, whatever their keys.
	anywhere atomic.Bool

	mu       sync.Mutex
	assigned map[int32]bool
	refused  map[recordID]refusal
	patience patience
}

// patience tells a destination that refuses records for long from one that did so once.
type patience struct{ since, last time.Time }

// lost notes a refusal, and reports whether they have gone on for long.
func (p *patience) lost(now time.Time) bool {
	if now.Sub(p.last) > alertAfter {
		p.since = now
	}
	p.last = now
	return now.Sub(p.since) > alertAfter
}

type recordID struct {
	partition int32
	offset    int64
}

// refusal counts how often a record was refused for what it is.
type refusal struct {
	times  int
	reason string
}

// maxRefusals is how often a record is tried before it is rejected, so that it doesn't stop its partition.
const maxRefusals = 3

// Follow takes over what a changed spec says of events that are routed from now on.
func (l *Lane) Follow(a *spec.Agent) { l.anywhere.Store(a.Config.Ordering == spec.OrderingNone) }

// Take lets records pass in order until one's task partition is full.
func (l *Lane) Take(_ int32, records []*kgo.Record, limit int) ([]*kgo.Record, time.Duration) {
	records = records[:min(limit, len(records))]
	l.places = l.places[:0]
	control := false
	for _, r := range records {
		if r.Attrs.IsControl() {
			control = true
			l.places = append(l.places, 0)
			continue
		}
		want := int32(-1)
		if r.Key != nil && !l.anywhere.Load() {
			want = route.Partition(r.Key, l.agent.Partitions)
		}
		p, ok := l.room.Reserve(want)
		if !ok {
			break
		}
		l.places = append(l.places, p)
	}
	records = records[:len(l.places)]
	now := time.Now()
	outs := l.router.Tasks(records, l.places, now)
	if control {
		for i, r := range records {
			if r.Attrs.IsControl() {
				outs[i] = nil
			}
		}
	}
	l.cancelAsked(outs, now)
	l.replaceRefused(records, outs, now)
	return outs, lookInterval
}

// Ended gives the places back or uses them.
func (l *Lane) Ended(committed bool) {
	l.room.Ended(committed)
	l.asked.ended(l.asks, committed)
}

// replaceRefused makes a rejection of what the task topic doesn't take.
func (l *Lane) replaceRefused(records, outs []*kgo.Record, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.refused) == 0 {
		return
	}
	for id := range l.refused {
		if len(records) > 0 && id.partition == records[0].Partition && id.offset < records[0].Offset {
			delete(l.refused, id) // moved on
		}
	}
	for i, r := range records {
		why, ok := l.refused[recordID{r.Partition, r.Offset}]
		if !ok || why.times < maxRefusals || outs[i] == nil {
			continue
		}
		end := route.Ending{Outcome: task.Rejected, Settled: task.SettledFailed, Class: task.ClassPermanent, Node: l.node,
			Message: "the task topic refuses the event: " + why.reason}
		if o, err := route.Outcome(l.names, outs[i], end, now); err == nil {
			outs[i] = o
		}
	}
}

// Refused mends the task topic. What a record is refused for by itself counts against it; a topic that can't be written
// is waited for.
func (l *Lane) Refused(ctx context.Context, r *kgo.Record, reason error) {
	if err := l.mend(ctx); err != nil {
		l.logger.Warn("make the task topic fit", slog.String("agent", l.agent.Ref()), slog.Any("error", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !aboutTheRecord(reason) {
		if l.patience.lost(time.Now()) {
			l.alert("destination_unwritable", "tasks can't be written: "+reason.Error())
		}
		return
	}
	id := recordID{r.Partition, r.Offset}
	why := l.refused[id]
	l.refused[id] = refusal{why.times + 1, reason.Error()}
}

// aboutTheRecord reports whether a record is refused for what it is, and not for where it goes.
func aboutTheRecord(err error) bool {
	for _, e := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Overtaken alerts people to the exact range, and has it recorded.
func (l *Lane) Overtaken(p int32, from, to int64) {
	l.alert("records_lost", lostRange(l.agent.Topic, p, from, to))
	l.lost(p, from, to)
}

// Assigned learns the topic's id, which is part of a task's origin.
func (l *Lane) Assigned(a hop.Assignment, topicID [16]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.assigned[a.Partition] = true
	l.router = route.New(l.names, l.agent, topicIDText(topicID))
}

// Released forgets what it knew of a partition's records.
func (l *Lane) Released(p int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.assigned, p)
	for id := range l.refused {
		if id.partition == p {
			delete(l.refused, id)
		}
	}
}

// Partitions is how many partitions of the user topic this node routes.
func (l *Lane) Partitions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.assigned)
}

// topicIDText writes a topic's UUID as Kafka's own tools do.
func topicIDText(id [16]byte) string {
	if id == [16]byte{} {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(id[:])
}
