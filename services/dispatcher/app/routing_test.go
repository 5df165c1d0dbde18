package app

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// onEachKafka runs a test on a kfake and on the test run's Kafka. topic is the user topic's name.
func onEachKafka(t *testing.T, body func(t *testing.T, w *world, topic string)) {
	t.Helper()
	t.Parallel()
	t.Run("kfake", func(t *testing.T) {
		t.Parallel()
		body(t, newWorld(t), "orders")
	})
	t.Run("shared", func(t *testing.T) {
		t.Parallel()
		shared := testenv.Kafka(t)
		if strings.HasPrefix(shared.About, "kfake") {
			t.Skip("the test run's Kafka is kfake")
		}
		prefix := testenv.Prefix(t)
		body(t, worldOn(t, prefix, strings.Split(shared.Address, ",")...), prefix+".orders")
	})
}

// passed waits until heartbeats told what has become of so many events, and gives how many were filtered.
func (w *world) passed(beats *reader, events int64) (tasks, filtered int64) {
	w.t.Helper()
	most := map[[2]int64]status.Dispatched{}
	deadline := time.Now().Add(60 * time.Second)
	for tasks+filtered < events {
		if time.Now().After(deadline) {
			w.t.Fatalf("heartbeats tell of %d tasks and %d filtered, not of %d", tasks, filtered, events)
		}
		for _, r := range beats.next(1) {
			var n status.Node
			if json.Unmarshal(r.Value, &n) != nil || n.Event != status.EventNode {
				continue
			}
			for _, a := range n.Agents {
				for _, d := range a.Dispatched {
					most[[2]int64{int64(d.Partition), d.Since}] = d
				}
			}
		}
		tasks, filtered = 0, 0
		for _, d := range most {
			tasks, filtered = tasks+d.N, filtered+d.Filtered
		}
	}
	return tasks, filtered
}

func TestWhatAFilterPassesOverLeavesACountAndNothingElse(t *testing.T) {
	onEachKafka(t, func(t *testing.T, w *world, topic string) {
		w.create(kafka.Topic{Name: topic, Partitions: 2})
		a := agent(topic, "bill")
		a.Filter = `data.n % 10 == 0`
		w.desire(a)
		stop := w.start()
		beats, tasks := w.read(w.names.Status()), w.read(w.names.Tasks(topic, "bill"))
		w.events(topic, 0, 200)
		w.produce(&kgo.Record{Topic: topic, Value: []byte(`{"m":1}`)}, &kgo.Record{Topic: topic, Value: []byte(`no JSON`)})
		got := tasks.next(22)
		var values, odd []string
		for _, r := range got {
			if class := route.Header(r, task.HeaderErrorClass); class != "" {
				odd = append(odd, class+": "+string(r.Value))
				continue
			}
			values = append(values, string(r.Value))
		}
		slices.Sort(odd)
		if s := strings.Join(odd, ", "); s != `invalid_input: no JSON, invalid_input: {"m":1}` {
			t.Errorf("routed with a class: %s", s)
		}
		if len(values) != 20 {
			t.Errorf("%d events pass the filter, not 20: %v", len(values), values)
		}
		if n, filtered := w.passed(beats, 202); n != 22 || filtered != 180 {
			t.Errorf("%d tasks and %d filtered of 202 events", n, filtered)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		// The next dispatcher goes on with the count, also where a batch is nothing but filtered.
		w.start()
		for i := range 50 {
			w.produce(&kgo.Record{Topic: topic, Value: fmt.Appendf(nil, `{"n":%d}`, 10*i+1)})
		}
		if n, filtered := w.passed(beats, 252); n != 22 || filtered != 230 {
			t.Errorf("%d tasks and %d filtered of 252 events", n, filtered)
		}
		w.until("the group has no lag", func() bool { return w.lag(w.names.Group(topic, "bill"), topic) == 0 })
		tasks.nothing(300 * time.Millisecond)
	})
}

func TestAChangedFilterCountsWithoutARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 1})
	a := agent("orders", "bill")
	a.Filter = `data.n < 0`
	w.desire(a)
	w.start()
	beats, tasks := w.read(w.names.Status()), w.read(w.names.Tasks("orders", "bill"))
	w.events("orders", 0, 10)
	if _, filtered := w.passed(beats, 10); filtered != 10 {
		t.Errorf("%d filtered", filtered)
	}
	a.Filter, a.Generation = `data.n == 12`, 2
	w.desire(a)
	w.until("the dispatcher has the spec", func() bool { return w.reports(beats, 2, status.ReportServing) })
	w.events("orders", 10, 20)
	each(t, tasks.next(1), 12, 13)
	// One that can't be compiled, which a registry refuses, stops this agent alone, and says so.
	a.Filter, a.Generation = `nonsense(`, 3
	w.desire(a)
	w.until("the dispatcher says that it can't", func() bool { return w.reports(beats, 3, status.ReportError) })
	w.events("orders", 20, 30)
	a.Filter, a.Generation = `data.n == 22`, 4
	w.desire(a)
	each(t, tasks.next(1), 22, 23)
}

// reports says whether a dispatcher has told that the agent is in a state with a spec of a generation.
func (w *world) reports(beats *reader, generation int64, state string) bool {
	for _, r := range beats.next(1) {
		var n status.AgentReport
		if json.Unmarshal(r.Value, &n) == nil && n.Event == status.EventAgent && n.Generation == generation && n.State == state {
			return true
		}
	}
	return false
}

func TestARateHoldsAndNobodyLeavesTheGroupForIt(t *testing.T) {
	onEachKafka(t, func(t *testing.T, w *world, topic string) {
		w.create(kafka.Topic{Name: topic, Partitions: 1})
		a, free := agent(topic, "bill"), agent(topic, "free")
		a.Rate = 0.5
		w.desire(a)
		w.desire(free)
		stop := w.start()
		w.events(topic, 0, 100)
		w.read(w.names.Tasks(topic, "free")).next(100) // another agent isn't held up
		tasks := w.read(w.names.Tasks(topic, "bill"))
		got := tasks.next(5)
		if took := got[4].Timestamp.Sub(got[0].Timestamp); took < 7900*time.Millisecond || took > 9500*time.Millisecond {
			t.Errorf("at 0.5 a second, the fifth came %v after the first", took)
		}
		groups, err := w.adm.DescribeGroups(t.Context(), w.names.Group(topic, "bill"))
		if err != nil || groups[w.names.Group(topic, "bill")].State != "Stable" {
			t.Errorf("the group: %+v, %v", groups, err)
		}
		a.Rate, a.Generation = 40, 2 // a change counts at once
		w.desire(a)
		got = tasks.next(60)
		if took := got[59].Timestamp.Sub(got[9].Timestamp); took < 1*time.Second || took > 3*time.Second {
			t.Errorf("at 40 a second, 50 took %v", took)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		a.Rate, a.Generation = 0, 3
		w.desire(a)
		w.start()
		each(t, append(got, tasks.next(95-len(got))...), 5, 100) // a fetch may bring more than is waited for
	})
}

// With two dispatchers each has the part of the rate that its partitions are.
func TestARateIsOneForAllDispatchers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(kafka.Topic{Name: "orders", Partitions: 4})
	a := agent("orders", "bill")
	a.Rate = 20
	w.desire(a)
	w.start()
	w.start(func(c *Config) { c.Node = "n2" })
	group := w.names.Group("orders", "bill")
	w.until("both are members", func() bool {
		g, err := w.adm.DescribeGroups(t.Context(), group)
		return err == nil && g[group].State == "Stable" && len(g[group].Members) == 2
	})
	for i := range 400 { // as many on each partition
		w.produce(&kgo.Record{Topic: "orders", Key: fmt.Append(nil, i), Value: []byte("1")})
	}
	got := w.read(w.names.Tasks("orders", "bill")).next(80)
	first, last := got[0].Timestamp, got[0].Timestamp
	for _, r := range got {
		if r.Timestamp.Before(first) {
			first = r.Timestamp
		}
		if r.Timestamp.After(last) {
			last = r.Timestamp
		}
	}
	if took := last.Sub(first); took < 3400*time.Millisecond || took > 7*time.Second {
		t.Errorf("at 20 a second, 80 took %v", took)
	}
}

// startAt is what a registry notes when it is told to start at the end.
func (w *world) startAt(topic string) *spec.StartAt {
	w.t.Helper()
	ts, err := w.adm.ListTopics(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	ends, err := w.adm.ListEndOffsets(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	id := ts[topic].ID
	at := &spec.StartAt{TopicID: base64.RawURLEncoding.EncodeToString(id[:]), Offsets: map[int32]int64{}}
	ends.Each(func(o kadm.ListedOffset) { at.Offsets[o.Partition] = o.Offset })
	return at
}

// Where a group begins is decided once: by what was noted when the agent was registered, whatever comes before the
// dispatchers, however many they are, and whatever the spec says later.
func TestAnAgentStartsOnceWhereItWasRegistered(t *testing.T) {
	onEachKafka(t, func(t *testing.T, w *world, topic string) {
		w.create(kafka.Topic{Name: topic, Partitions: 4})
		w.events(topic, 0, 50)
		a := agent(topic, "bill")
		a.Start, a.StartAt = spec.StartLatest, w.startAt(topic)
		w.events(topic, 50, 100) // registered, and no dispatcher there
		w.desire(a)
		stop := w.start()
		w.start(func(c *Config) { c.Node = "n2" })
		tasks := w.read(w.names.Tasks(topic, "bill"))
		each(t, tasks.next(50), 50, 100)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		w.events(topic, 100, 150)
		a.StartAt, a.Generation = w.startAt(topic), 2 // registered again
		w.desire(a)
		w.start()
		each(t, tasks.next(50), 100, 150)
		if _, err := w.adm.UpdatePartitions(t.Context(), 6, topic); err != nil {
			t.Fatal(err)
		}
		w.cl.PurgeTopicsFromClient(topic)
		w.events(topic, 150, 250)
		each(t, tasks.next(100), 150, 250)
		tasks.nothing(500 * time.Millisecond)
		w.until("the group has no lag", func() bool { return w.lag(w.names.Group(topic, "bill"), topic) == 0 })
	})
}

// A topic that was made again is another: what was noted of the one before it is nothing to it, and every dispatcher that
// was there, or comes later, begins at its beginning.
func TestATopicThatIsMadeAgainSkipsAndRepeatsNothing(t *testing.T) {
	onEachKafka(t, func(t *testing.T, w *world, topic string) {
		w.create(kafka.Topic{Name: topic, Partitions: 2})
		w.events(topic, 0, 40)
		a := agent(topic, "bill")
		a.Start, a.StartAt = spec.StartLatest, w.startAt(topic)
		w.desire(a)
		stop := w.start()
		second := w.start(func(c *Config) { c.Node = "n2" })
		tasks := w.read(w.names.Tasks(topic, "bill"))
		w.events(topic, 40, 80)
		each(t, tasks.next(40), 40, 80)
		again := func(partitions int32) {
			t.Helper()
			if _, err := w.adm.DeleteTopic(t.Context(), topic); err != nil {
				t.Fatal(err)
			}
			var made kadm.TopicID
			w.until("the topic is made again", func() bool {
				r, err := w.adm.CreateTopic(t.Context(), partitions, 1, nil, topic)
				made = r.ID
				return err == nil && r.Err == nil
			})
			w.until("the broker shows the new topic and takes records for it", func() bool {
				shown, err := w.adm.ListTopics(t.Context(), topic)
				if err != nil || shown[topic].ID != made {
					return false
				}
				ends, err := w.adm.ListEndOffsets(t.Context(), topic)
				return err == nil && ends.Error() == nil && len(ends[topic]) == int(partitions)
			})
			w.cl.PurgeTopicsFromClient(topic)
		}
		again(2)
		w.events(topic, 80, 100) // fewer than there were: the old positions lie beyond its end
		each(t, tasks.next(20), 80, 100)
		again(3)
		w.events(topic, 100, 300) // more than there were: the old positions lie within
		each(t, tasks.next(200), 100, 300)
		for _, s := range []func() error{stop, second} {
			if err := s(); err != nil {
				t.Fatal(err)
			}
		}
		again(2) // while nobody looks
		w.events(topic, 300, 500)
		w.start()
		each(t, tasks.next(200), 300, 500)
		tasks.nothing(500 * time.Millisecond)
		w.until("the group has no lag", func() bool { return w.lag(w.names.Group(topic, "bill"), topic) == 0 })
	})
}
