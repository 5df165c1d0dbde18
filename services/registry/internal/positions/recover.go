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

// settled is up to which attempt rounds of tasks are settled; a round that is finished has no further attempt.
type settled map[round]int

const finished = 1 << 30

// add takes in a record of the outcomes topic.
func (s settled) add(r *kgo.Record) {
	attempt := number(route.Header(r, task.HeaderAttempt))
	if route.Header(r, task.HeaderFinal) == "true" {
		attempt = finished
	}
	of := roundOf(r)
	s[of] = max(s[of], attempt)
}

// has reports whether the attempt is settled that a record on a task topic or retry topic asks for.
func (s settled) has(t taskRecord) bool { return s[t.round] >= max(t.attempt, 1) }

func number(text string) int {
	n, _ := strconv.Atoi(text) // 0 for what is no number
	return n
}

// advance brings positions on a user topic up to date: a position is behind every event that a task was made of. What was
// made is counted, since received is what the commits count.
func advance(at map[int32]position, a *spec.Agent, topicID string, tasks []taskRecord, done settled) {
	made := map[int32]map[int64]bool{}
	add := func(p int32, event int64) {
		from, ok := at[p]
		if !ok || event < from.Next {
			return
		}
		if made[p] == nil {
			made[p] = map[int64]bool{}
		}
		made[p][event] = true
	}
	for _, t := range tasks {
		if o := t.event; t.agent == a.Ref() && o.TopicID == topicID && o.Life == a.Life {
			add(o.Partition, o.Offset)
		}
	}
	for of := range done {
		if o, err := task.ParseOrigin(of.origin); err == nil && of.agent == a.Ref() && o.TopicID == topicID && o.Life == a.Life {
			add(o.Partition, o.Offset)
		}
	}
	for p, events := range made {
		from := at[p]
		to := from.Next
		for event := range events {
			to = max(to, event+1)
		}
		m, err := offsets.Decode(from.Next, from.Metadata)
		if err != nil {
			m = offsets.Metadata{}
		}
		if m.Passed.Since > 0 {
			m.Passed.N += int64(len(events))
		}
		m.Clean = false
		at[p] = position{to, m.Encode(to)}
	}
}

// settle brings the position of a task partition up to date: tasks are its records behind the position, in order. What
// had begun beside what is settled since is taken to have begun, as after any unclean end.
func settle(from position, tasks []taskRecord, done settled) position {
	m, err := offsets.Decode(from.Next, from.Metadata)
	if err != nil {
		m = offsets.Metadata{}
	}
	t := offsets.NewTracker(from.Next, m.Settled)
	last := int64(-1)
	for _, r := range tasks {
		if t.Advance(); !t.Fits(r.offset) {
			break
		}
		if !t.Deliver(r.offset) {
			continue
		}
		if done.has(r) {
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
