package worker_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// retries stands in for the dispatcher: it moves retries that are due to the task topic.
func (s *stand) retries() { s.tier(tiers[0]) }

func (s *stand) tier(delay time.Duration) {
	s.t.Helper()
	cl, err := kgo.NewClient(append(s.opts(), kgo.ConsumeTopics(s.names.Retry(delay)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				<-time.After(time.Until(r.Timestamp.Add(delay)))
				n, _ := strconv.Atoi(string(r.Value))
				cl.Produce(ctx, &kgo.Record{Topic: s.names.Tasks("orders", "biller"), Partition: int32(n % 2), Key: r.Key, Value: r.Value, Headers: r.Headers}, nil)
			})
		}
	})
	s.t.Cleanup(func() {
		cancel()
		loop.Wait()
		cl.Close()
	})
}

// dependent is an agent whose work needs something that may be away.
type dependent struct {
	mu      sync.Mutex
	down    bool
	class   task.Class
	poison  string
	flaky   int // how often every tenth task that failed in the outage fails for other reasons afterwards
	tries   map[string]int
	failed  map[string]int // tasks that failed while it was away
	started atomic.Int64
}

func newDependent(class task.Class) *dependent {
	return &dependent{class: class, tries: map[string]int{}, failed: map[string]int{}}
}

func (d *dependent) set(down bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = down
}

func (d *dependent) handle(ctx context.Context, a *worker.Attempt) worker.Result {
	d.started.Add(1)
	<-time.After(2 * time.Millisecond)
	d.mu.Lock()
	defer d.mu.Unlock()
	id := string(a.Record.Value)
	switch {
	case d.down:
		if n, _ := strconv.Atoi(id); n%10 == 0 {
			d.failed[id] = d.flaky
		}
		return worker.Result{Outcome: task.Failed, Class: d.class, Message: "connection refused by 10.0.0." + id}
	case id == d.poison, d.failed[id] > 0:
		d.failed[id]--
		d.tries[id]++
		return worker.Result{Outcome: task.Failed, Class: d.class, Message: "connection refused by 10.0.0." + id}
	}
	return ok(ctx, a)
}

// alerts collects those of one kind.
type alerts struct {
	mu  sync.Mutex
	all []worker.Alert
}

func (c *alerts) add(a worker.Alert) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.Kind == "outage" {
		c.all = append(c.all, a)
	}
}

func (c *alerts) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, a := range c.all {
		fmt.Fprintf(&b, "%t ", a.Resolved)
	}
	return b.String()
}

// stream publishes n tasks, one every 5 ms.
func (s *stand) stream(from, n int) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := range n {
		<-tick.C
		s.publish(from+i, 1)
	}
}

// In an outage of a dependency the agent is paused; nothing is dead-lettered for it; afterwards every task that failed in it
// has all its retries, but an event that always fails goes to the DLQ once it has failed so often among those that succeed.
func TestAnOutageCostsNoEvent(t *testing.T) {
	for _, class := range []task.Class{task.ClassDependency, task.ClassNetwork} {
		for _, workers := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d workers", class, workers), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					s := newStand(t)
					s.retries()
					d := newDependent(class)
					d.poison, d.flaky = "301", s.spec.Config.MaxRetries
					told := &alerts{}
					var es []*worker.Engine
					for i := range workers {
						e, _ := s.engine(fmt.Sprintf("w%d", i), runner(t, 8, d.handle), func(c *worker.Config) { c.Alert = told.add })
						es = append(es, e)
					}
					out := func(want int) func() bool {
						return func() bool {
							n := 0
							for _, e := range es {
								if e.Figures().Outage != nil {
									n++
								}
							}
							return n == want
						}
					}
					s.until("the partitions are shared", func() bool {
						for _, e := range es {
							if e.Figures().Partitions != 2/workers {
								return false
							}
						}
						return true
					})
					s.publish(0, 300)
					s.outcomes(300)
					d.set(true)
					s.stream(300, 500) // the poison is among the first
					s.until("an outage is seen", out(workers))
					before := d.started.Load()
					s.stream(800, 300)
					if n := d.started.Load() - before; n > int64(8*workers) {
						t.Errorf("%d attempts were started in 1.5 s of an outage", n)
					}
					if !out(workers)() {
						t.Error("it isn't seen any more")
					}
					d.set(false)
					s.publish(1100, 400)
					s.until("the outage is over", out(0))
					finals := map[string]outcome{}
					defer func() {
						if len(finals) < 1500 {
							for i, e := range es {
								t.Logf("worker %d: %+v", i, e.Figures())
							}
							for i := range 1500 {
								if id := fmt.Sprintf("orders/%d/%d", i%2, i); finals[id].settled == "" {
									t.Logf("%s isn't finished", id)
								}
							}
						}
					}()
					seen := 0
					s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool {
						unseen := rs[seen:]
						seen = len(rs)
						for _, r := range unseen {
							if h := header(r); h[task.HeaderFinal] == "true" {
								finals[string(r.Key)] = outcome{settled: h[task.HeaderSettled]}
							}
						}
						return len(finals) == 1500
					})
					for id, o := range finals {
						if dead := strings.HasSuffix(id, "/301"); dead != (o.settled == "dlq") {
							t.Errorf("%s: %s", id, o.settled)
						}
					}
					d.mu.Lock()
					defer d.mu.Unlock()
					if n := d.tries["301"]; n < 4 || n > 6 {
						t.Errorf("the poison failed %d times among those that succeeded", n)
					}
					if got, want := told.text(), strings.Repeat("false ", workers)+strings.Repeat("true ", workers); got != want {
						t.Errorf("alerts resolved: %s, want %s", got, want)
					}
				})
			})
		}
	}
}

// A dependency that fails for one event while others succeed is that event's failure.
func TestADependencyOfOneEventIsNoOutage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.retries()
		d := newDependent(task.ClassDependency)
		d.poison = "7"
		told := &alerts{}
		s.engine("a", runner(t, 8, d.handle), func(c *worker.Config) { c.Alert = told.add })
		s.publish(0, 50)
		for range 4 {
			s.stream(50, 10)
		}
		dead := s.read(s.names.DLQ("orders", "biller"), func(rs []*kgo.Record) bool { return len(rs) == 1 })[0]
		if h := header(dead); string(dead.Value) != "7" || h[task.HeaderAttempts] != "4" || h[task.HeaderBurntAt] != "" || h[task.HeaderBurnt] != "" {
			t.Errorf("%s %v", dead.Value, h)
		}
		if got := told.text(); got != "" {
			t.Errorf("alerts: %s", got)
		}
	})
}

// A batch of bad events that hides good ones behind it holds them up for a moment only: newer events are tried as well.
func TestABadBatchDoesNotHoldUpWhatComesAfterIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.retries()
		s.spec.Config.Ordering = spec.OrderingNone
		const bad, good = 3000, 200
		s.engine("a", runner(t, 4, func(ctx context.Context, a *worker.Attempt) worker.Result {
			n, _ := strconv.Atoi(string(a.Record.Value))
			<-time.After(4 * time.Millisecond)
			if n < bad {
				return worker.Result{Outcome: task.Failed, Class: task.ClassInternal, Message: "KeyError: 'total'"}
			}
			return ok(ctx, a)
		}))
		s.publish(0, bad)
		s.publish(bad, good)
		done := 0
		began := time.Now()
		s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool {
			done = 0
			for _, r := range rs {
				if header(r)[task.HeaderSettled] == "done" {
					done++
				}
			}
			return done == good
		})
		if d := time.Since(began); d > 15*time.Second {
			t.Errorf("the good ones were done after %v", d)
		}
	})
}

// Where no retry is allowed, an outage dead-letters nothing either.
func TestAnOutageDeadLettersNothingWithoutRetries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		s.spec.Config.MaxRetries = 0
		s.retries()
		d := newDependent(task.ClassDependency)
		e, _ := s.engine("a", runner(t, 4, d.handle))
		s.publish(0, 100)
		s.outcomes(100)
		d.set(true)
		s.publish(100, 100)
		s.until("an outage is seen", func() bool { return e.Figures().Outage != nil })
		d.set(false)
		done := map[string]bool{}
		s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool {
			for _, r := range rs {
				switch header(r)[task.HeaderSettled] {
				case "done":
					done[string(r.Key)] = true
				case "dlq":
					t.Fatalf("%s was dead-lettered", r.Key)
				}
			}
			return len(done) == 200
		})
	})
}

// A restart in the middle of an outage, clean or not, costs a few attempts; and what was burnt before it is given back by
// whoever runs the task after it.
func TestAnOutageIsKnownToTheNextOwner(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean %t", clean), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStand(t)
				s.spec.Config.MaxRetries = 1
				s.spec.Config.RetryDelays = []string{"5s"} // they are on their way back while the owner changes
				d := newDependent(task.ClassDependency)
				d.flaky = 1
				e, stop := s.engine("a", runner(t, 4, d.handle))
				s.publish(0, 100)
				s.outcomes(100)
				d.set(true)
				s.publish(100, 40)
				s.until("an outage is seen", func() bool { return e.Figures().Outage != nil })
				s.until("the commits say so", func() bool { return s.outages() == 2 })
				if clean {
					stop()
				} // else the newer of one name takes the older one's place, as it would a dead one's
				before := d.started.Load()
				next, _ := s.engine("a", runner(t, 4, d.handle))
				s.until("the next one sees it", func() bool { return next.Figures().Outage != nil })
				if n := d.started.Load() - before; n > 4 {
					t.Errorf("it took the next one %d attempts", n)
				}
				d.set(false)
				s.tier(tiers[1])
				s.retries()
				finals := map[string]string{}
				s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool {
					for _, r := range rs {
						if h := header(r); h[task.HeaderFinal] == "true" {
							finals[string(r.Key)] = h[task.HeaderSettled]
						}
					}
					return len(finals) == 140
				})
				for id, settled := range finals {
					if settled != "done" {
						t.Errorf("%s: %s", id, settled)
					}
				}
			})
		})
	}
}

// outages counts the partitions whose committed metadata knows of one that lasts.
func (s *stand) outages() (n int) {
	s.t.Helper()
	all, err := s.adm.FetchOffsets(s.t.Context(), s.names.WorkGroup("orders", "biller"))
	if err != nil {
		s.t.Fatal(err)
	}
	all.Each(func(o kadm.OffsetResponse) {
		m, err := offsets.Decode(o.At, o.Metadata)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(m.Outages) > 0 && m.Outages[len(m.Outages)-1].Until == 0 {
			n++
		}
	})
	return n
}
