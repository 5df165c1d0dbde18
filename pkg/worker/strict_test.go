package worker_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// diary notes what a test's function was called with.
type diary struct {
	mu    sync.Mutex
	calls []call
}

type call struct {
	key, value   string
	number       int
	timeout      time.Duration
	began, ended time.Time
}

// keep makes a function that notes its calls and ends as said.
func (d *diary) keep(end func(c call) worker.Result) func(context.Context, *worker.Attempt) worker.Result {
	return func(_ context.Context, a *worker.Attempt) worker.Result {
		c := call{key: string(a.Record.Key), value: string(a.Record.Value), number: a.Number, timeout: a.Timeout, began: time.Now()}
		r := end(c)
		c.ended = time.Now()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.calls = append(d.calls, c)
		return r
	}
}

// of gives the calls of a key, as "value/attempt".
func (d *diary) of(key string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, c := range d.calls {
		if c.key == key {
			all = append(all, c.value+"/"+strconv.Itoa(c.number))
		}
	}
	return strings.Join(all, " ")
}

func strictStand(t *testing.T) *stand {
	s := newStand(t)
	s.spec.Config.Ordering = spec.OrderingStrict
	return s
}

// settledAs gives the outcomes of a task, as "attempt outcome settled final".
func (s *stand) settledAs(rs []*kgo.Record, origin string) []string {
	var all []string
	for _, r := range rs {
		if h := header(r); string(r.Key) == origin {
			all = append(all, h[task.HeaderAttempt]+" "+h[task.HeaderOutcome]+" "+h[task.HeaderSettled]+" "+h[task.HeaderFinal])
		}
	}
	return all
}

func failed(class task.Class) worker.Result {
	return worker.Result{Outcome: task.Failed, Class: class, Message: "said so"}
}

// A failed task runs again in its place, and the next of its key begins when it is settled for good: completed, or
// dead-lettered. Other keys go on meanwhile, nothing goes to a retry topic, and each attempt has its outcome.
func TestAStrictKeyWaitsForItsTask(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := strictStand(t)
		var d diary
		s.publish(0, 60) // ten keys of six
		s.engine("a", runner(t, 16, d.keep(func(c call) worker.Result {
			switch {
			case c.value == "10" && c.number < 4:
				return failed(task.ClassNetwork)
			case c.value == "20":
				return failed(task.ClassPermanent)
			case c.value == "30": // for as long as there are retries
				return failed("")
			case c.value == "40" && c.number == 1:
				return worker.Result{Outcome: task.TimedOut, Class: task.ClassTimeout}
			}
			return worker.Result{Outcome: task.Completed}
		})))
		rs := s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= 67 })
		if got, want := d.of("k0"), "0/1 10/1 10/2 10/3 10/4 20/1 30/1 30/2 30/3 30/4 40/1 40/2 50/1"; got != want {
			t.Errorf("k0 ran %s, want %s", got, want)
		}
		if got, want := d.of("k1"), "1/1 11/1 21/1 31/1 41/1 51/1"; got != want {
			t.Errorf("k1 ran %s, want %s", got, want)
		}
		for origin, want := range map[string][]string{
			"orders/0/10": {"1 failed retry false", "2 failed retry false", "3 failed retry false", "4 completed done true"},
			"orders/0/20": {"1 failed dlq true"},
			"orders/0/30": {"1 failed retry false", "2 failed retry false", "3 failed retry false", "4 failed dlq true"},
			"orders/0/40": {"1 timed_out retry false", "2 completed done true"},
		} {
			if got := s.settledAs(rs, origin); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", origin, got, want)
			}
		}
		dead := s.read(s.names.DLQ("orders", "biller"), func(rs []*kgo.Record) bool { return len(rs) == 2 })[1]
		if h := header(dead); h[task.HeaderAttempts] != "4" || h[task.HeaderErrorClass] != "internal" || h[task.HeaderFirstFailedAt] >= h[task.HeaderLastFailedAt] {
			t.Errorf("dead letter %v", h)
		}
		ends, err := s.adm.ListEndOffsets(t.Context(), s.names.Retry(tiers[0]), s.names.Retry(tiers[1]))
		if err != nil {
			t.Fatal(err)
		}
		for _, tier := range tiers {
			if end, _ := ends.Lookup(s.names.Retry(tier), 0); end.Offset != 0 {
				t.Errorf("%d records went to %s", end.Offset, s.names.Retry(tier))
			}
		}
		for _, c := range d.calls {
			if c.value == "40" && c.timeout != s.spec.Process.RequestTimeout.Duration()<<(c.number-1) {
				t.Errorf("attempt %d of a task that timed out had %v", c.number, c.timeout)
			}
		}
		s.awaitLag(0)
	})
}

// A key that is held is held by its next owner too, with the retries it has used up: after a restart, after a rebalance,
// and after the owner has died.
func TestAHeldKeyStaysHeldWhoeverOwnsIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := strictStand(t)
		s.spec.Config.RetryDelays = []string{"300ms"}
		var d diary
		fails := d.keep(func(c call) worker.Result {
			if c.value == "0" {
				return failed(task.ClassNetwork)
			}
			return worker.Result{Outcome: task.Completed}
		})
		s.publish(0, 1)
		s.publish(10, 1) // the same key
		_, stop := s.engine("a", runner(t, 4, fails))
		s.outcomes(1)
		stop() // a restart
		_, stop = s.engine("a", runner(t, 4, fails))
		s.outcomes(2)
		b, _ := s.engine("b", runner(t, 4, fails)) // a rebalance
		s.until("b owns a partition", func() bool { return b.Figures().Partitions == 1 })
		s.outcomes(3)
		stop()
		rs := s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= 5 })
		want := []string{"1 failed retry false", "2 failed retry false", "3 failed retry false", "4 failed dlq true"}
		if got := s.settledAs(rs, "orders/0/0"); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if got, want := d.of("k0"), "0/1 0/2 0/3 0/4 10/1"; got != want {
			t.Errorf("k0 ran %s, want %s", got, want)
		}
		d.punctual(t, 300*time.Millisecond)
	})
}

// punctual checks that no second attempt came before its delay was over, and says how late they were.
func (d *diary) punctual(t *testing.T, delay time.Duration) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	ended := map[string]time.Time{}
	var late []time.Duration
	slices.SortFunc(d.calls, func(a, b call) int { return a.began.Compare(b.began) })
	for _, c := range d.calls {
		if before, ok := ended[c.value]; ok {
			late = append(late, c.began.Sub(before)-delay)
		}
		ended[c.value] = c.ended
	}
	slices.Sort(late)
	if len(late) == 0 || late[0] < 0 {
		t.Fatalf("attempts came early: %v", late)
	}
	t.Logf("%d attempts were %v late (p50), %v at most", len(late), late[len(late)/2], late[len(late)-1])
}

// The delays of a strict agent are its worker's own: never early, and hardly late.
func TestAStrictRetryIsPunctual(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := strictStand(t)
		s.spec.Config.RetryDelays = []string{"200ms"}
		var d diary
		end := d.keep(func(c call) worker.Result {
			if c.number == 1 {
				return failed(task.ClassNetwork)
			}
			return worker.Result{Outcome: task.Completed}
		})
		s.engine("a", runner(t, 16, end))
		for i := range 60 {
			s.publish(i, 1)
		}
		s.outcomes(120)
		d.punctual(t, 200*time.Millisecond)
	})
}

// An agent that isn't strict any more lets go of the keys that it holds; the retries that were held come when due.
func TestAKeyIsLetGoWhenTheAgentIsStrictNoMore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := strictStand(t)
		s.spec.Config.RetryDelays = []string{"5s"}
		var d diary
		s.publish(0, 1)
		s.publish(10, 2)
		e, _ := s.engine("a", runner(t, 4, d.keep(func(c call) worker.Result {
			if c.value == "0" && c.number == 1 {
				return failed(task.ClassNetwork)
			}
			return worker.Result{Outcome: task.Completed}
		})))
		s.outcomes(2) // task 0, and task 11 of another key
		if got := d.of("k0"); got != "0/1" {
			t.Fatalf("k0 ran %s", got)
		}
		now := *s.spec
		now.Config.Ordering = spec.OrderingKey
		e.Update(&now)
		s.outcomes(3)
		if got := d.of("k0"); got != "0/1 10/1" {
			t.Fatalf("k0 ran %s", got)
		}
		s.outcomes(4)
		if got := d.of("k0"); got != "0/1 10/1 0/2" {
			t.Errorf("k0 ran %s", got)
		}
	})
}

// A task that holds up its partition is named: the window is full, or its queue is of its own key.
func TestWhoHoldsUpAPartitionIsTold(t *testing.T) {
	for name, key := range map[string]func(i int) string{
		"the window":               func(i int) string { return "k" + strconv.Itoa(i) },
		"the queue":                func(int) string { return "k0" },
		"a queue of a busy worker": func(int) string { return "k0" },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := strictStand(t)
				s.spec.Config.RetryDelays = []string{"5s"}
				n := 17_000
				if name != "the window" {
					n = 4096
				}
				rs := make([]*kgo.Record, n)
				for i := range rs {
					rs[i] = &kgo.Record{Topic: s.names.Tasks("orders", "biller"), Key: []byte(key(i)), Value: []byte(strconv.Itoa(i)),
						Headers: []kgo.RecordHeader{{Key: task.HeaderOrigin, Value: fmt.Appendf(nil, "orders/0/%d", i)}}}
				}
				if err := s.cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if name == "a queue of a busy worker" {
					s.trickle()
				}
				alerts := make(chan worker.Alert, 10)
				_, stop := s.engine("a", runner(t, 16, func(ctx context.Context, a *worker.Attempt) worker.Result {
					if string(a.Record.Value) == "0" && a.Number == 1 {
						return failed(task.ClassNetwork)
					}
					return ok(ctx, a)
				}), func(c *worker.Config) { c.Alert = func(a worker.Alert) { alerts <- a } })
				for _, resolved := range []bool{false, true} {
					if resolved && name == "a queue of a busy worker" { // which stops meanwhile
						if stop(); len(alerts) != 1 {
							t.Fatalf("%d alerts", len(alerts))
						}
					}
					a := <-alerts
					if a.Kind != worker.KindQueueHeld || a.Resolved != resolved || !resolved && !strings.Contains(a.Message, `the task orders/0/0 (key "k0") keeps its key: its attempt 1 failed`) {
						t.Errorf("%+v", a)
					}
				}
			})
		})
	}
}

// trickle publishes a task every few milliseconds, each with a key of its own, until the test ends.
func (s *stand) trickle() {
	var loop sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	loop.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 100_000; ctx.Err() == nil; i++ {
			s.cl.Produce(ctx, &kgo.Record{Topic: s.names.Tasks("orders", "biller"), Key: fmt.Appendf(nil, "busy%d", i), Value: []byte(strconv.Itoa(i)),
				Headers: []kgo.RecordHeader{{Key: task.HeaderOrigin, Value: fmt.Appendf(nil, "orders/0/%d", i)}}}, nil)
			<-tick.C
		}
	})
	s.t.Cleanup(func() {
		cancel()
		loop.Wait()
	})
}

// A task that keeps its key can be cancelled, and then the key goes on.
func TestAHeldTaskThatIsCancelledLetsItsKeyGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := strictStand(t)
		s.spec.Config.RetryDelays = []string{"1h"}
		var d diary
		s.publish(0, 1)
		s.publish(10, 1)
		e, _ := s.engine("a", runner(t, 4, d.keep(func(c call) worker.Result {
			if c.value == "0" {
				return failed(task.ClassNetwork)
			}
			return worker.Result{Outcome: task.Completed}
		})))
		s.outcomes(1)
		told := make(chan string, 1)
		e.CancelTask(worker.Cancellation{Origin: task.Origin{Topic: "orders", Offset: 0}, Message: "cancelled by a test", Expires: time.Now().Add(time.Minute),
			Tell: func(state, _ string) { told <- state }})
		rs := s.read(s.names.Outcomes(), func(rs []*kgo.Record) bool { return len(rs) >= 3 })
		if got, want := s.settledAs(rs, "orders/0/0"), []string{"1 failed retry false", "1 cancelled dropped true"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if got := d.of("k0"); got != "0/1 10/1" {
			t.Errorf("k0 ran %s", got)
		}
		if state := <-told; state != "done" {
			t.Error(state)
		}
	})
}
