package positions

import (
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

var topicID = [16]byte{1, 2, 3}

// record is one as it stands on a task topic or the outcomes topic.
func record(partition int32, offset int64, headers ...string) *kgo.Record {
	r := &kgo.Record{Partition: partition, Offset: offset}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func origin(partition int32, offset int64) string {
	return string(task.Origin{Topic: "orders", Partition: partition, Offset: offset, TopicID: text(topicID)}.AppendHeader(nil))
}

func outcomes(of ...*kgo.Record) settled {
	s := settled{}
	for _, r := range of {
		s.add(r)
	}
	return s
}

func tasks(t *testing.T, of ...*kgo.Record) (out []taskRecord) {
	t.Helper()
	for _, r := range of {
		read, ok := taskOf(r)
		if !ok {
			t.Fatalf("no task: %v", r)
		}
		out = append(out, read)
	}
	return out
}

func at(next int64, m offsets.Metadata) position {
	m.TopicID = topicID
	return position{next, m.Encode(next)}
}

func decoded(t *testing.T, p position) offsets.Metadata {
	t.Helper()
	m, err := offsets.Decode(p.Next, p.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const agent, other = "orders/bill", "orders/ship"

func TestAPositionOnAUserTopicIsBehindEveryEventThatATaskWasMadeOf(t *testing.T) {
	counted := offsets.Metadata{Passed: offsets.Count{Since: 7, N: 100}, Node: "d0", Clean: true}
	ps := map[int32]position{0: at(10, counted), 1: at(10, counted), 2: at(10, counted)}
	advance(ps, agentOf(0, "", ""), text(topicID),
		tasks(t,
			record(0, 50, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 12), task.HeaderAttempt, "1"),
			record(0, 51, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 3), task.HeaderAttempt, "2"), // a retry of long ago
			record(0, 52, task.HeaderAgent, agent, task.HeaderOrigin, "orders/1/99/another", task.HeaderAttempt, "1"),
			record(0, 53, task.HeaderAgent, other, task.HeaderOrigin, origin(1, 50), task.HeaderAttempt, "1")),
		outcomes(
			record(0, 1, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 10), task.HeaderAttempt, "1", task.HeaderFinal, "true"),
			record(0, 2, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 12), task.HeaderAttempt, "1"),
			record(0, 3, task.HeaderAgent, agent, task.HeaderOrigin, origin(2, 20), task.HeaderAttempt, "1"),
			record(0, 4, task.HeaderAgent, other, task.HeaderOrigin, origin(1, 60), task.HeaderAttempt, "1"),
			record(0, 5, task.HeaderAgent, agent, task.HeaderOrigin, origin(1, 70)+"/4", task.HeaderAttempt, "1"))) // of a life that ended
	if p, m := ps[0], decoded(t, ps[0]); p.Next != 13 || m.Passed.N != 102 || m.Passed.Since != 7 || m.Node != "d0" || m.Clean {
		t.Errorf("%+v, %+v", p, m)
	}
	if ps[1] != at(10, counted) {
		t.Errorf("nothing happened on partition 1, and it stands at %+v", ps[1])
	}
	if p, m := ps[2], decoded(t, ps[2]); p.Next != 21 || m.Passed.N != 101 {
		t.Errorf("%+v, %+v", p, m)
	}
}

// An event is cancelled before its turn, and a finished one is reopened: neither says that what lies between was dispatched.
func TestWhatPassesBeforeItsTurnMovesNoPosition(t *testing.T) {
	var before offsets.Set
	before.Add(4) // offset 14
	from := at(10, offsets.Metadata{Settled: before, Passed: offsets.Count{Since: 7, N: 100}})
	ps := map[int32]position{0: from}
	advance(ps, agentOf(0, "", ""), text(topicID),
		tasks(t, record(0, 50, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 40), task.HeaderAttempt, "1", task.HeaderRedrives, "1")),
		outcomes(
			record(0, 1, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 11), task.HeaderAttempt, "1"),
			record(0, 2, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 14), task.HeaderAttempt, "0", task.HeaderFinal, "true", task.HeaderOutcome, "cancelled"),
			record(0, 3, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 30), task.HeaderAttempt, "0", task.HeaderFinal, "true", task.HeaderOutcome, "cancelled")))
	p, m := ps[0], decoded(t, ps[0])
	if p.Next != 12 || !m.Settled.Has(2) || !m.Settled.Has(18) || m.Settled.Len() != 2 || m.Passed.N != 102 {
		t.Errorf("%+v, %+v", p, m)
	}
	advance(ps, agentOf(0, "", ""), text(topicID), nil, outcomes(
		record(0, 4, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 20), task.HeaderAttempt, "0", task.HeaderFinal, "true", task.HeaderOutcome, "rejected")))
	if p, m = ps[0], decoded(t, ps[0]); p.Next != 21 || !m.Settled.Has(9) || m.Settled.Len() != 1 {
		t.Errorf("what is rejected is so in its turn: %+v, %+v", p, m)
	}
}

func TestATaskPartitionIsSettledAsFarAsItsOutcomesSay(t *testing.T) {
	var before offsets.Set
	before.Add(2) // offset 12
	from := at(10, offsets.Metadata{Node: "s0", Settled: before, Reserved: 14, Entries: []offsets.Entry{{Offset: 10, Attempt: 2}, {Offset: 13, Attempt: 2}}})
	of := tasks(t,
		record(0, 10, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 1), task.HeaderAttempt, "1"),
		record(0, 11, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 2), task.HeaderAttempt, "2"),
		record(0, 12, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 3), task.HeaderAttempt, "1"),
		record(0, 13, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 4), task.HeaderAttempt, "1"),
		record(0, 15, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 5), task.HeaderAttempt, "1"), // 14 is a marker
		record(0, 16, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 1), task.HeaderAttempt, "1", task.HeaderRedrives, "1"))
	done := outcomes(
		record(0, 1, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 1), task.HeaderAttempt, "2", task.HeaderFinal, "true"),
		record(0, 2, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 2), task.HeaderAttempt, "2"),
		record(0, 3, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 5), task.HeaderAttempt, "1", task.HeaderFinal, "true"))
	p := settle(from, of, done.has)
	m := decoded(t, p)
	if p.Next != 13 || !m.Settled.Has(2) || m.Settled.Has(0) || m.Settled.Has(3) || m.Reserved != 16 || m.Clean || m.Node != "s0" {
		t.Errorf("%+v, %+v", p, m)
	}
	if len(m.Entries) != 1 || m.Entries[0] != (offsets.Entry{Offset: 13, Attempt: 2}) {
		t.Errorf("entries %+v", m.Entries)
	}
	if got := settle(from, of, settled{}.has); got != from {
		t.Errorf("nothing was settled since, and the position changed to %+v", got)
	}
}

func TestAnEarlierAttemptsOutcomeSettlesNoLaterOne(t *testing.T) {
	failedOnce := outcomes(record(0, 1, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 1), task.HeaderAttempt, "1"))
	retry := tasks(t, record(0, 9, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 1), task.HeaderAttempt, "2"))[0]
	if failedOnce.has(retry) {
		t.Error("its first attempt's outcome settles the second")
	}
	if first := tasks(t, record(0, 9, task.HeaderAgent, agent, task.HeaderOrigin, origin(0, 1), task.HeaderAttempt, "1"))[0]; !failedOnce.has(first) {
		t.Error("it doesn't settle the first")
	}
}

func TestForgottenIsWhatHadAPositionOnThisVeryTopic(t *testing.T) {
	bill := agentOf(5, "A", "")
	kept := &copied{topic: "orders", topicID: "A", life: 5, at: map[int32]position{0: {Next: 3}}}
	for name, c := range map[string]struct {
		s    seen
		old  *copied
		want bool
	}{
		"the group has none and had one":             {seen{group: group{agent: bill}, known: true, topicID: "A"}, kept, true},
		"it has one":                                 {seen{group: group{agent: bill}, known: true, topicID: "A", at: kept.at}, kept, false},
		"Kafka didn't say":                           {seen{group: group{agent: bill}, topicID: "A"}, kept, false},
		"the topic is gone":                          {seen{group: group{agent: bill}, known: true}, kept, false},
		"the topic was made again":                   {seen{group: group{agent: agentOf(5, "A", "")}, known: true, topicID: "B"}, kept, false},
		"the agent was deleted with its group":       {seen{group: group{agent: agentOf(9, "", "")}, known: true, topicID: "A"}, kept, false},
		"nobody knows of one":                        {seen{group: group{agent: agentOf(5, "", "")}, known: true, topicID: "A"}, nil, false},
		"only the agent's record knows, and waits":   {seen{group: group{agent: bill}, known: true, topicID: "A"}, nil, true},
		"the record knows of the other group's only": {seen{group: group{kind: ofTasks, agent: bill}, known: true, topicID: "A"}, nil, false},
		"a retry tier's":                             {seen{group: group{kind: ofRetries}, known: true, topicID: "A"}, nil, true},
		"dead letters of which none was redriven":    {seen{group: group{kind: ofLetters}, known: true, topicID: "A"}, nil, false},
		"dead letters of which some were":            {seen{group: group{kind: ofLetters}, known: true, topicID: "A"}, &copied{topicID: "A"}, true},
	} {
		if c.s.at == nil {
			c.s.at = map[int32]position{}
		}
		if got := c.s.forgotten(c.old); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestWhatWasTrimmedFromATaskTopicIsNotCalledLost(t *testing.T) {
	from := at(10, offsets.Metadata{Node: "s0", Reserved: 20})
	k := Keeper{kept: map[string]*copied{"g": {topicID: "A", at: map[int32]position{0: from, 1: from}}}}
	s := seen{group: group{kind: ofTasks, name: "g", agent: agentOf(0, "", "A")}, topicID: "A"}
	got := k.copyOf(s, map[int32]peek.Bounds{0: {Start: 15, End: 15}, 1: {Start: 3, End: 40}})
	if m := decoded(t, got[0]); got[0].Next != 15 || m.Node != "s0" || m.Reserved != 20 || got[1] != from {
		t.Errorf("%+v", got)
	}
	s.kind = ofEvents
	if got = k.copyOf(s, map[int32]peek.Bounds{0: {Start: 15, End: 15}}); got[0] != from {
		t.Errorf("what retention took from a user topic is lost, and the position says %+v", got[0])
	}
}

func TestACopyBelongsToTheTopicThatItsMetadataNames(t *testing.T) {
	s := seen{group: group{topic: "orders"}, topicID: "later", at: map[int32]position{0: at(4, offsets.Metadata{})}}
	if c := s.copied(); c.topicID != text(topicID) || !maps.Equal(c.at, s.at) {
		t.Errorf("%+v", c)
	}
}

func agentOf(life int64, topic, tasks string) *spec.Agent {
	return &spec.Agent{Topic: "orders", Name: "bill", Life: life, Kept: spec.Kept{Topic: topic, Tasks: tasks}}
}
