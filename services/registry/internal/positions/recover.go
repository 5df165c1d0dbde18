package positions

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// round is one round of a task: a redrive opens the next.
type round struct {
	agent, origin, redrives string
}

func roundOf(r *kgo.Record) round {
	redrives := route.Header(r, task.HeaderRedrives)
	if redrives == "" {
		redrives = "0"
	}
	return round{route.Header(r, task.HeaderAgent), route.Header(r, task.HeaderOrigin), redrives}
}

// ended is what outcomes say of a round: its last settled attempt, whether it is finished, and whether that may have been
// before its event was dispatched: who cancels an event doesn't wait for its turn.
type ended struct {
	attempt         int
	final, unopened bool
}

// settled is what outcomes say of rounds of tasks.
type settled map[round]ended

// add takes in a record of the outcomes topic.
func (s settled) add(r *kgo.Record) {
	of := roundOf(r)
	e := s[of]
	e.attempt = max(e.attempt, number(route.Header(r, task.HeaderAttempt)))
	if route.Header(r, task.HeaderFinal) == "true" {
		e.final = true
		e.unopened = e.attempt == 0 && task.Outcome(route.Header(r, task.HeaderOutcome)) == task.Cancelled
	}
	s[of] = e
}

// has reports whether the attempt is settled that a record on a task topic or retry topic asks for: a round that is
// finished has no further one.
func (s settled) has(t taskRecord) bool {
	e, ok := s[t.round]
	return ok && (e.final || e.attempt >= max(t.attempt, 1))
}

func number(text string) int {
	n, _ := strconv.Atoi(text) // 0 for what is no number
	return n
}

// passed is what is known to have passed of a partition of a user topic, by offset: true in its turn, false perhaps before.
type passed map[int64]bool

// advance brings positions on a user topic up to date: a position is behind every event that a task was made of in its
// turn, and what was cancelled before its turn is settled beyond it. Each counts, since received is what the commits count.
func advance(at map[int32]position, a *spec.Agent, topicID string, tasks []taskRecord, done settled) {
	seen := map[int32]passed{}
	add := func(of round, o task.Origin, inTurn bool) {
		from, ok := at[o.Partition]
		if !ok || of.agent != a.Ref() || of.redrives != "0" || o.TopicID != topicID || o.Life != a.Life || o.Offset < from.Next {
			return // a later round begins whenever somebody wants it
		}
		if seen[o.Partition] == nil {
			seen[o.Partition] = passed{}
		}
		seen[o.Partition][o.Offset] = seen[o.Partition][o.Offset] || inTurn
	}
	for _, t := range tasks {
		add(t.round, t.event, true)
	}
	for of, e := range done {
		if o, err := task.ParseOrigin(of.origin); err == nil {
			add(of, o, !e.unopened)
		}
	}
	for p, events := range seen {
		at[p] = events.after(at[p])
	}
}

// after is the position once these events have passed.
func (events passed) after(from position) position {
	m, err := offsets.Decode(from.Next, from.Metadata)
	if err != nil {
		m = offsets.Metadata{}
	}
	to, fresh := from.Next, int64(0)
	for event, inTurn := range events {
		if inTurn {
			to = max(to, event+1)
		}
		if !m.Settled.Has(event - from.Next) {
			fresh++
		}
	}
	m = m.From(from.Next, to)
	for event, inTurn := range events {
		if !inTurn && event >= to && event < to+offsets.Window {
			m.Settled.Add(event - to)
		}
	}
	if m.Passed.Since > 0 {
		m.Passed.N += fresh
	}
	m.Clean = false
	return position{to, m.Encode(to)}
}

// settle brings the position of a partition up to date whose records are settled in any order: those behind the position
// are given in order. What had begun beside what is settled since is taken to have begun, as after any unclean end.
func settle(from position, records []taskRecord, done func(taskRecord) bool) position {
	m, err := offsets.Decode(from.Next, from.Metadata)
	if err != nil {
		m = offsets.Metadata{}
	}
	t := offsets.NewTracker(from.Next, m.Settled)
	last := int64(-1)
	for _, r := range records {
		if t.Advance(); !t.Fits(r.offset) {
			break
		}
		if !t.Deliver(r.offset) {
			continue
		}
		if done(r) {
			t.Settle(r.offset)
			last = r.offset
		}
	}
	if last < 0 {
		return from
	}
	low, set := t.Position()
	m.Settled, m.Clean, m.Reserved = set, false, max(m.Reserved, last+1)
	m.Entries = slices.DeleteFunc(slices.Clone(m.Entries), func(e offsets.Entry) bool { return e.Offset < low || set.Has(e.Offset-low) })
	return position{low, m.Encode(low)}
}
