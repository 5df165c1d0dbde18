package worker

import (
	"container/heap"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// simulation is an engine with everything around it, on a clock of its own: events come in, attempts take their time, retry
// topics keep what they get for as long as they should, transactions take 2 ms.
type simulation struct {
	events  happenings
	e       *Engine
	names   topics.Names
	free    int // slots of the runner
	log     int64
	began   time.Time
	commits bool // one is under way
	attempt func(id int, at time.Duration) (Result, time.Duration)

	done, attempts map[int]int
	dead           map[int]time.Duration
	first          map[int]time.Duration // when the first attempt failed
	alerts         []bool                // of outages: begun, over
}

// happening is what happens at a time.
type happening struct {
	at   time.Time
	what func()
}

type happenings []happening

func (h happenings) Len() int           { return len(h) }
func (h happenings) Less(a, b int) bool { return h[a].at.Before(h[b].at) }
func (h happenings) Swap(a, b int)      { h[a], h[b] = h[b], h[a] }
func (h *happenings) Push(x any)        { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

func newSimulation(m *hop.Member, concurrency, retries int) *simulation {
	s := &simulation{names: topics.Names{Prefix: "sim"}, free: concurrency, began: time.Now(),
		done: map[int]int{}, attempts: map[int]int{}, dead: map[int]time.Duration{}, first: map[int]time.Duration{}}
	a := &spec.Agent{Topic: "orders", Name: "biller", Version: "1", Runtime: spec.SDK, Partitions: 1, Config: spec.NewConfig(spec.SDK), Process: spec.NewProcess()}
	a.Config.MaxRetries = retries
	s.e = New(Config{Spec: a, Names: s.names, Node: "n", Tiers: []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 5 * time.Minute}})
	s.e.cfg.Alert = func(a Alert) {
		if a.Kind == "outage" {
			s.alerts = append(s.alerts, !a.Resolved)
		}
	}
	s.e.member = m
	(*ownership)(s.e).Assigned(context.Background(), []hop.Assignment{{}})
	return s
}

func (s *simulation) in(d time.Duration, what func()) {
	heap.Push(&s.events, happening{time.Now().Add(d), what})
}

// publish makes an event come in.
func (s *simulation) publish(id int) {
	s.admit(&kgo.Record{Headers: []kgo.RecordHeader{
		{Key: task.HeaderOrigin, Value: task.Origin{Topic: "orders", Offset: int64(id)}.AppendHeader(nil)}, {Key: task.HeaderAttempt, Value: []byte("1")}}})
}

func (s *simulation) admit(r *kgo.Record) {
	r.Topic, r.Partition, r.Offset, r.Timestamp = "tasks", 0, s.log, time.Now()
	s.log++
	s.e.admit(kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "tasks", Partitions: []kgo.FetchPartition{{Records: []*kgo.Record{r}}}}}}})
}

// run lets time pass.
func (s *simulation) run(d time.Duration) {
	end := s.began.Add(d)
	var every func(time.Duration, func())
	every = func(pause time.Duration, what func()) {
		s.in(pause, func() { what(); every(pause, what) })
	}
	every(tick, func() {
		if s.e.hasReady() {
			s.start()
		}
	})
	every(tidyPause, func() {
		if s.e.untidy() {
			s.commitSoon(tidyUp)
		}
	})
	for len(s.events) > 0 && !s.events[0].at.After(end) {
		if wait := time.Until(s.events[0].at); wait > 0 {
			<-time.After(wait)
		}
		heap.Pop(&s.events).(happening).what()
		select {
		case <-s.e.wakeSchedule:
			s.start()
		default:
		}
		select {
		case <-s.e.wakeCommit:
			s.commitSoon(groupCommit)
		default:
		}
	}
}

// start runs what may start.
func (s *simulation) start() {
	for s.free > 0 {
		batch := s.e.pick(s.free)
		if len(batch) == 0 {
			return
		}
		for _, a := range batch {
			s.free--
			id := s.id(a.Record)
			s.attempts[id]++
			r, takes := s.attempt(id, time.Since(s.began))
			s.in(takes, func() {
				if _, failed := s.first[id]; !failed && r.Outcome != task.Completed {
					s.first[id] = time.Since(s.began)
				}
				s.free++
				a.Finish(r)
			})
		}
	}
}

func (s *simulation) commitSoon(why purpose) {
	if !s.commits {
		s.commits = true
		s.in(2*time.Millisecond, func() { s.commits = false; s.commit(why) })
	}
}

func (s *simulation) commit(why purpose) {
	t := s.e.prepare(why)
	if t == nil {
		return
	}
	out := writer{names: s.names, agent: s.e.spec, node: "n", outcomes: s.names.Outcomes(), dlq: s.e.dlq()}
	records, owners := out.records(t.batch)
	for i, r := range records {
		id := s.id(owners[i].attempt.Record)
		switch {
		case r.Topic == s.e.dlq():
			s.dead[id] = time.Since(s.began)
		case strings.Contains(r.Topic, "retry"):
			again := *r
			s.in(owners[i].verdict.Delay, func() { s.admit(&again) })
		case owners[i].verdict.Settled == task.SettledFailed:
			s.dead[id] = time.Since(s.began)
		case owners[i].verdict.Settled == task.SettledDone:
			s.done[id]++
		}
	}
	s.e.committed(t)
	s.e.wakeCommit <- struct{}{}
}

func (s *simulation) id(r *kgo.Record) int {
	o, err := task.ParseOrigin(value(r, task.HeaderOrigin))
	if err != nil {
		panic(err)
	}
	return int(o.Offset)
}

// away is a dependency that can't be reached from one time to another.
type away struct{ from, to time.Duration }

func (a away) at(t time.Duration) bool { return t >= a.from && t < a.to }

// simulated is one scenario.
type simulated struct {
	name        string
	concurrency int
	retries     int
	noDLQ       bool
	class       task.Class
	takes       time.Duration // an attempt that succeeds
	fails       time.Duration // one that fails
	pace        time.Duration // between two events
	events      int
	out         []away
	poison      func(id int) bool
	lasts       time.Duration

	dead  int           // at most so many events without poison are dead-lettered
	late  time.Duration // at the latest so long after their first failure all poison is
	tries int           // so often at most each poison was tried
	// told is how often an outage is told at most; -1: at least once.
	told int
}

func (c simulated) run(m *hop.Member) *simulation {
	s := newSimulation(m, c.concurrency, c.retries)
	s.e.policy.DLQ = !c.noDLQ
	s.attempt = func(id int, at time.Duration) (Result, time.Duration) {
		for _, o := range c.out {
			if o.at(at) {
				return Result{Outcome: task.Failed, Class: c.class, Message: "it is away"}, c.fails
			}
		}
		if c.poison != nil && c.poison(id) {
			return Result{Outcome: task.Failed, Class: c.class, Message: "it is away"}, c.fails
		}
		return Result{Outcome: task.Completed}, c.takes
	}
	for id := range c.events {
		s.in(time.Duration(id)*c.pace, func() { s.publish(id) })
	}
	s.run(c.lasts)
	return s
}

func only(ids ...int) func(int) bool {
	return func(id int) bool {
		for _, x := range ids {
			if x == id {
				return true
			}
		}
		return false
	}
}

// However slow or fast an agent is, with and without retries: an outage that the failures' class tells costs no event, but for
// the first ones where an event comes so seldom that they are alone, and any other costs a few; an event that always fails
// is dead-lettered in reasonable time, and a handful of events that an agent can't handle as soon as their retries are over.
func TestOutagesAndPoisonAreToldApart(t *testing.T) {
	const ms, s, min, h = time.Millisecond, time.Second, time.Minute, time.Hour
	const few = sampleAlike - 1 // by then nearly all have failed alike
	m := loneMember(t)
	for _, c := range []simulated{
		// outages
		{name: "one every 10 s, network", concurrency: 4, retries: 3, class: task.ClassNetwork, pace: 10 * s, events: 120, out: []away{{5 * min, 15 * min}}, lasts: h, told: -1},
		{name: "one every 10 s, internal", concurrency: 4, retries: 3, class: task.ClassInternal, pace: 10 * s, events: 120, out: []away{{5 * min, 15 * min}}, dead: few, lasts: h, told: -1},
		{name: "one every 10 s, dependency", concurrency: 4, retries: 3, class: task.ClassDependency, pace: 10 * s, events: 120, out: []away{{5 * min, 15 * min}}, lasts: h, told: -1},
		{name: "one every 10 s, timeout", concurrency: 4, retries: 3, class: task.ClassTimeout, pace: 10 * s, events: 120, out: []away{{5 * min, 15 * min}}, lasts: h, told: -1},
		{name: "one a minute, network", concurrency: 4, retries: 3, class: task.ClassNetwork, pace: min, events: 120, out: []away{{20 * min, 80 * min}}, lasts: 3 * h, told: -1},
		{name: "one a minute, dependency", concurrency: 4, retries: 3, class: task.ClassDependency, pace: min, events: 120, out: []away{{20 * min, 80 * min}}, lasts: 3 * h, told: -1},
		{name: "one a minute, internal", concurrency: 4, retries: 3, class: task.ClassInternal, pace: min, events: 120, out: []away{{20 * min, 80 * min}}, lasts: 3 * h, dead: few, told: -1},
		{name: "one every 10 min, network", concurrency: 4, retries: 3, class: task.ClassNetwork, pace: 10 * min, events: 60, out: []away{{h, 5 * h}}, lasts: 12 * h, dead: 1, told: -1},
		{name: "one every 10 s, network, no retry", concurrency: 4, class: task.ClassNetwork, pace: 10 * s, events: 120, out: []away{{5 * min, 15 * min}}, lasts: h, dead: 1, told: -1},
		{name: "one every 10 s, internal, no retry", concurrency: 4, class: task.ClassInternal, pace: 10 * s, events: 120, out: []away{{5 * min, 15 * min}}, lasts: h, dead: few, told: -1},
		{name: "10 a second, network, no retry", concurrency: 4, class: task.ClassNetwork, takes: 20 * ms, fails: 5 * ms, pace: 100 * ms, events: 1200, out: []away{{30 * s, 90 * s}}, lasts: 10 * min, told: -1},
		{name: "10 a second, internal, no retry", concurrency: 4, class: task.ClassInternal, takes: 20 * ms, fails: 5 * ms, pace: 100 * ms, events: 1200, out: []away{{30 * s, 90 * s}}, dead: few, lasts: 10 * min, told: -1},
		{name: "slow work, quick failures, no retry", concurrency: 16, class: task.ClassInternal, takes: 20 * s, fails: 5 * ms, pace: 1500 * ms, events: 200, out: []away{{100 * s, 200 * s}}, lasts: h, dead: 30, told: -1},
		{name: "as fast as it goes, network, no retry", concurrency: 64, class: task.ClassNetwork, takes: 2 * ms, fails: 2 * ms, events: 8000, out: []away{{0, 60 * s}}, lasts: 10 * min, told: -1},
		{name: "as fast as it goes, internal, no retry", concurrency: 64, class: task.ClassInternal, takes: 2 * ms, fails: 2 * ms, events: 8000, out: []away{{100 * ms, 60 * s}}, dead: few, lasts: 10 * min, told: -1},
		{name: "a burst, no retry", concurrency: 64, class: task.ClassNetwork, takes: 2 * ms, fails: 2 * ms, events: 900, out: []away{{0, 500 * ms}}, lasts: 5 * min, told: 1},
		{name: "a burst, internal, no retry", concurrency: 64, class: task.ClassInternal, takes: 2 * ms, fails: 2 * ms, events: 900, out: []away{{0, 500 * ms}}, dead: few, lasts: 5 * min, told: 1},
		{name: "a burst, no retry, and no DLQ", concurrency: 64, noDLQ: true, class: task.ClassInternal, takes: 2 * ms, fails: 2 * ms, events: 60, out: []away{{0, 500 * ms}}, dead: few, lasts: 5 * min},
		{name: "a burst in a stream, no retry", concurrency: 64, class: task.ClassNetwork, takes: 2 * ms, fails: 2 * ms, pace: ms, events: 5000, out: []away{{s, 1900 * ms}}, lasts: 5 * min, told: 1},
		{name: "it comes and goes, no retry", concurrency: 16, class: task.ClassNetwork, takes: 5 * ms, fails: 2 * ms, pace: 10 * ms, events: 6000,
			out: []away{{5 * s, 8 * s}, {10 * s, 13 * s}, {15 * s, 16 * s}, {17 * s, 30 * s}, {40 * s, 55 * s}}, lasts: 10 * min, told: -1},

		// poison
		{name: "one of many, busy", concurrency: 16, retries: 3, class: task.ClassNetwork, takes: 5 * ms, fails: 5 * ms, pace: 10 * ms, events: 6000, poison: only(500), lasts: 5 * min, late: 38 * s, tries: 4},
		{name: "one of many, busy, no retry", concurrency: 16, class: task.ClassNetwork, takes: 5 * ms, fails: 5 * ms, pace: 10 * ms, events: 1000, poison: only(500), lasts: 5 * min, late: s, tries: 1},
		{name: "one of many, one a second", concurrency: 16, retries: 3, class: task.ClassInternal, takes: 5 * ms, fails: 5 * ms, pace: s, events: 100, poison: only(50), lasts: 5 * min, late: 38 * s, tries: 4},
		{name: "one alone", concurrency: 4, retries: 3, class: task.ClassNetwork, fails: 5 * ms, events: 1, poison: only(0), lasts: h, late: 75 * s, tries: 4},
		{name: "one alone, no retry", concurrency: 4, class: task.ClassInternal, fails: 5 * ms, events: 1, poison: only(0), lasts: h, late: 2 * s, tries: 1},
		{name: "ten events that it can't handle", concurrency: 4, retries: 3, class: task.ClassInternal, fails: 5 * ms, events: 10, poison: func(int) bool { return true }, lasts: h, late: 38 * s, tries: 4},
		{name: "one an hour, all of them", concurrency: 4, retries: 3, class: task.ClassInternal, fails: 5 * ms, pace: h, events: 24, poison: func(int) bool { return true }, lasts: 25 * h, late: 75 * s, tries: 4},
		{name: "ten at the end of a batch", concurrency: 8, retries: 3, class: task.ClassInternal, takes: 5 * ms, fails: 5 * ms, events: 400, poison: func(id int) bool { return id%40 == 20 }, lasts: 10 * min, late: 40 * s, tries: 4},
		{name: "one per cent of a batch", concurrency: 16, retries: 3, class: task.ClassInternal, takes: 5 * ms, fails: 5 * ms, events: 3000, poison: func(id int) bool { return id%100 == 50 }, lasts: h, late: 40 * s, tries: 4},
		{name: "half a per cent of a batch", concurrency: 64, retries: 2, class: task.ClassNetwork, takes: 10 * ms, fails: 2 * ms, events: 12000, poison: func(id int) bool { return id%200 == 50 }, lasts: h, late: 15 * s, tries: 3},
		{name: "two in a row, then good ones", concurrency: 4, retries: 3, class: task.ClassNetwork, takes: 5 * ms, fails: 5 * ms, pace: min, events: 120, poison: only(10, 11), lasts: 3 * h, late: 15 * min, tries: 100, told: 2},
		{name: "every fifth one", concurrency: 4, retries: 3, class: task.ClassDependency, takes: 5 * ms, fails: 5 * ms, pace: 200 * ms, events: 400, poison: func(id int) bool { return id%5 == 0 }, lasts: h, late: 45 * s, tries: 6},
		{name: "every third one, slow work, no retry", concurrency: 16, class: task.ClassNetwork, takes: s, fails: 5 * ms, pace: 100 * ms, events: 400, poison: func(id int) bool { return id%3 == 0 }, lasts: h, late: 10 * s, tries: 3},
		{name: "thirty in a row among good ones, no retry", concurrency: 8, class: task.ClassInternal, takes: 5 * ms, fails: 5 * ms, pace: 50 * ms, events: 600, poison: func(id int) bool { return id >= 100 && id < 130 }, lasts: h, late: 30 * s, tries: 12},
		{name: "one after an outage", concurrency: 8, retries: 3, class: task.ClassNetwork, takes: 5 * ms, fails: 5 * ms, pace: 100 * ms, events: 1800, out: []away{{20 * s, 60 * s}}, poison: only(210), lasts: h, late: 3 * min, tries: 40, told: -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.check(t, c.run(m)) })
		})
	}
}

func (c simulated) check(t *testing.T, s *simulation) {
	dead, poison, tries := 0, 0, 0
	late := time.Duration(0)
	for id := range c.events {
		at, isDead := s.dead[id]
		switch bad := c.poison != nil && c.poison(id); {
		case bad && !isDead:
			t.Errorf("event %d isn't dead-lettered after %d attempts", id, s.attempts[id])
		case bad:
			poison++
			late, tries = max(late, at-s.first[id]), max(tries, s.attempts[id])
		case isDead:
			dead++
		case s.done[id] != 1:
			t.Errorf("event %d was done %d times, after %d attempts", id, s.done[id], s.attempts[id])
		}
	}
	told := 0
	for _, begun := range s.alerts {
		if begun {
			told++
		}
	}
	t.Logf("%d of %d dead-lettered; %d that always fail: the last %v after its first failure, %d attempts at most; an outage was told %d times", dead, c.events-poison, poison, late, tries, told)
	if dead > c.dead {
		t.Errorf("%d events were dead-lettered, at most %d may be", dead, c.dead)
	}
	if late > c.late || tries > c.tries {
		t.Errorf("events that always fail were dead-lettered within %v and %d attempts, it may be %v and %d", late, tries, c.late, c.tries)
	}
	if told > c.told && c.told >= 0 || told == 0 && c.told < 0 {
		t.Errorf("an outage was told %d times", told)
	}
	if n := len(s.alerts); n > 0 && s.alerts[n-1] {
		t.Error("the outage isn't over")
	}
}
