package dispatch

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/filter"
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
	// A Take stops where its filter has taken this long, which is looked at once in so many decisions: what was found
	// passes first, and who wants a partition back needn't wait for all that is held.
	decideLimit = 20 * time.Millisecond
	decisions   = 16
)

// Lane is the rule of an agent's user topic: a record passes when its task partition has room and the agent's rate allows
// it, and what isn't the agent's is passed over.
type Lane struct {
	names topics.Names
	agent *spec.Agent
	node  string
	room  *Room
	// mend makes the task topic fit after a refusal; alert tells people.
	mend   func(ctx context.Context) error
	alert  func(kind, message string)
	lost   func(p int32, from, to int64) // records what retention took
	logger *slog.Logger

	asks  *asks
	asked carriedOut
	rules atomic.Pointer[rules] // of the spec as it is now
	spans atomic.Int32          // partitions that the user topic has
	quota quota

	// Scratch of Take. passing are the records that become something; kept has them where that isn't all.
	passing, kept []*kgo.Record
	places, at    []int32 // of each of passing: its task partition, and which of the records it is
	unfit         []unfit
	settled       map[*kgo.Record]*kgo.Record // see Settled

	mu       sync.Mutex
	routers  map[int32]*route.Router // by partition that this node routes
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

// rules are what a spec says of the events that are routed.
type rules struct {
	routing  spec.Routing
	anywhere bool        // tasks may go to any partition, whatever their keys
	gate     *route.Gate // nil: every event becomes a task
}

// unfit is a task that doesn't run: the how manieth of those that pass, and why.
type unfit struct {
	i   int
	why route.Passage
}

// Follow takes over what a changed spec says of events that are routed from now on. On an error nothing has changed.
func (l *Lane) Follow(a *spec.Agent) error {
	now := rules{routing: a.Routing, anywhere: a.Config.Ordering == spec.OrderingNone}
	if before := l.rules.Load(); before != nil && reflect.DeepEqual(before.routing, now.routing) {
		now.gate = before.gate
	} else {
		var err error
		if now.gate, err = route.NewGate(a, compile); err != nil {
			return err
		}
	}
	l.rules.Store(&now)
	return nil
}

func compile(expression string) (route.Filter, error) {
	f, err := filter.Compile(expression)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Take lets records pass in order until one's task partition is full, or the agent's rate is used up.
func (l *Lane) Take(p int32, records []*kgo.Record, limit int) ([]*kgo.Record, time.Duration) {
	records = records[:min(limit, len(records))]
	now, rules := time.Now(), l.rules.Load()
	rate := l.share(rules.routing.Rate)
	l.quota.refill(rate, now)
	n, wait := l.choose(records, rules, rate, now)
	records = records[:n]
	outs := l.router(p).Tasks(l.passing, l.places, now)
	for _, u := range l.unfit {
		outs[u.i] = l.settle(outs[u.i], u.why.Settle(l.names, outs[u.i], l.node, now))
	}
	if len(outs) < n {
		outs = spread(records, l.passing, outs)
	}
	l.cancelAsked(outs, now)
	l.replaceRefused(records, outs, now)
	return outs, wait
}

// choose finds how many of the records are done with, and puts those of them that become something into passing. If it
// isn't all of them, wait says when to look again. It decides of a handful, then takes their places together: each
// look into the room has its price, and what finds no place is decided upon in vain.
func (l *Lane) choose(records []*kgo.Record, rules *rules, rate float64, now time.Time) (n int, wait time.Duration) {
	l.places, l.kept, l.unfit, l.at = l.places[:0], l.kept[:0], l.unfit[:0], l.at[:0]
	handful := decisions
	if rules.gate == nil {
		handful = len(records)
	}
	over := 0
	for n < len(records) && wait == 0 {
		if rules.gate != nil && n > 0 && time.Since(now) > decideLimit {
			break
		}
		first := len(l.places)
		for end := min(n+handful, len(records)); n < end; n++ {
			r := records[n]
			if r.Attrs.IsControl() || rules.gate != nil && !l.fits(r, rules.gate) {
				if over++; over == 1 {
					l.kept = append(l.kept, records[:n]...)
				}
				continue
			}
			want := int32(-1)
			if r.Key != nil && !rules.anywhere {
				want = route.Partition(r.Key, l.agent.Partitions)
			}
			l.places, l.at = append(l.places, want), append(l.at, int32(n))
			if over > 0 {
				l.kept = append(l.kept, r)
			}
		}
		var placed int
		if placed, wait = l.place(l.places[first:], rate); wait > 0 {
			n, l.places = int(l.at[first+placed]), l.places[:first+placed]
		}
	}
	for last := len(l.unfit) - 1; last >= 0 && l.unfit[last].i >= len(l.places); last-- {
		l.unfit = l.unfit[:last] // it found no place
	}
	if l.passing = records[:n]; over > 0 {
		l.passing = l.kept[:len(l.places)]
	}
	if wait == 0 && n == len(records) {
		wait = lookInterval
	}
	return n, wait
}

// fits reports whether something becomes of an event. If it is a task that doesn't run, it is noted why not.
func (l *Lane) fits(r *kgo.Record, gate *route.Gate) bool {
	why := gate.Decide(r)
	if why.Class != "" {
		l.unfit = append(l.unfit, unfit{len(l.places), why})
	}
	return !why.Over
}

// place takes the places that records want on their task partitions, in order. Where there are too few, or the rate is used
// up, it is fewer, and wait says when to look again.
func (l *Lane) place(wants []int32, rate float64) (n int, wait time.Duration) {
	n = len(wants)
	if rate > 0 {
		for n = 0; n < len(wants) && wait == 0; {
			if wait = l.quota.take(rate); wait == 0 {
				n++
			}
		}
	}
	free := l.room.Reserve(wants[:n])
	if free == n {
		return n, wait
	}
	if rate > 0 {
		l.quota.giveBack(n - free)
	}
	return free, lookInterval
}

// spread puts what became of those that pass at their places among all.
func spread(records, passing, outs []*kgo.Record) []*kgo.Record {
	all := make([]*kgo.Record, len(records))
	next := 0
	for i, r := range records {
		if next < len(passing) && r == passing[next] {
			all[i] = outs[next]
			next++
		}
	}
	return all
}

// Ended gives the places back or uses them.
func (l *Lane) Ended(committed bool) {
	l.room.Ended(committed)
	l.asked.ended(l.asks, committed)
	l.quota.ended(committed)
	clear(l.settled)
}

// Settled are the tasks that ended here before they were dispatched, by their outcomes.
func (l *Lane) Settled() map[*kgo.Record]*kgo.Record { return l.settled }

// settle notes the task that ends with an outcome, and gives that; a task that goes on is its own.
func (l *Lane) settle(task, becomes *kgo.Record) *kgo.Record {
	if becomes.Topic == task.Topic {
		return becomes
	}
	if l.settled == nil {
		l.settled = make(map[*kgo.Record]*kgo.Record)
	}
	l.settled[becomes] = task
	return becomes
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
			outs[i] = l.settle(outs[i], o)
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

// Truncated alerts people to the exact range.
func (l *Lane) Truncated(p int32, end, read int64) {
	l.alert("records_lost", truncatedRange(l.agent.Topic, p, end, read))
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.refused {
		if id.partition == p && id.offset >= end {
			delete(l.refused, id)
		}
	}
}

// Assigned learns the topic's id, which is part of a task's origin.
func (l *Lane) Assigned(a hop.Assignment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.routers[a.Partition] = route.New(l.names, l.agent, topicIDText(a.TopicID))
}

// Released forgets what it knew of a partition's records.
func (l *Lane) Released(p int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.routers, p)
	for id := range l.refused {
		if id.partition == p {
			delete(l.refused, id)
		}
	}
}

// Spans says how many partitions the user topic has.
func (l *Lane) Spans(partitions int) { l.spans.Store(int32(partitions)) }

// share is this node's part of the agent's rate: that of its partitions. 0 is no limit.
func (l *Lane) share(rate float64) float64 {
	if rate == 0 {
		return 0
	}
	own := l.Partitions()
	return rate * float64(own) / float64(max(own, int(l.spans.Load()), 1))
}

func (l *Lane) router(p int32) *route.Router {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.routers[p]
}

// Partitions is how many partitions of the user topic this node routes.
func (l *Lane) Partitions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.routers)
}

// topicIDText writes a topic's UUID as Kafka's own tools do.
func topicIDText(id [16]byte) string {
	if id == [16]byte{} {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(id[:])
}
