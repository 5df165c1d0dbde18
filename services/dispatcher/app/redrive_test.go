package app

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// morgue is an agent's dead letters with all that is around them: somebody asks for redrives, and somebody runs the tasks.
type morgue struct {
	*world
	a      *spec.Agent
	dlq    string
	manual *kgo.Client
	states *reader

	mu      sync.Mutex
	runs    map[string]int // by value: how often the task was seen
	failing func(value string) bool
	gate    chan struct{} // where not nil, the worker goes on behind the first gateAt tasks once it is closed
}

const gateAt = 600

func newMorgue(w *world, letters int) *morgue {
	w.t.Helper()
	a := agent("orders", "bill")
	m := &morgue{world: w, a: a, dlq: w.names.DLQ("orders", "bill"), runs: map[string]int{}, failing: func(string) bool { return false }}
	w.create(kafka.Topic{Name: "orders", Partitions: 1}, kafka.DLQTopic(w.names, a, kafka.DefaultMaxBytes), kafka.CommandsTopic(w.names), kafka.OutcomesTopic(w.names), kafka.StatusTopic(w.names), kafka.TasksTopic(w.names, a, kafka.DefaultMaxBytes))
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cl.Close)
	m.manual = cl
	m.states = w.read(w.names.Status())
	m.bury(0, letters)
	w.desire(a)
	return m
}

// failure is that of an event: three different ones.
func failure(n int) string { return fmt.Sprintf("failure %c of %d", 'a'+n%3, n) }

// bury dead-letters events, each in a transaction of its own: a marker stands behind each.
func (m *morgue) bury(from, to int) {
	m.t.Helper()
	txn, err := kgo.NewClient(kgo.SeedBrokers(m.cfg.Kafka.Brokers...), kgo.TransactionalID("grave"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer txn.Close()
	const chunk = 7
	for ; from < to; from += chunk {
		if err := txn.BeginTransaction(); err != nil {
			m.t.Fatal(err)
		}
		for n := from; n < min(from+chunk, to); n++ {
			txn.Produce(m.t.Context(), m.letter(n, 0), nil)
		}
		if err := txn.Flush(m.t.Context()); err != nil {
			m.t.Fatal(err)
		}
		if err := txn.EndTransaction(m.t.Context(), kgo.TryCommit); err != nil {
			m.t.Fatal(err)
		}
	}
}

func print(n int) string { return fmt.Sprintf("print-%c", 'a'+n%3) }

func (m *morgue) letter(n, redrives int) *kgo.Record {
	r := &kgo.Record{Topic: m.dlq, Key: fmt.Appendf(nil, "k%d", n%7), Value: fmt.Appendf(nil, `{"n":%d}`, n)}
	for _, h := range [][2]string{{"mine", "\xff"}, {task.HeaderAgent, "orders/bill"}, {task.HeaderOrigin, fmt.Sprintf("orders/0/%d/u", n)}, {task.HeaderEvent, "17 e"},
		{task.HeaderErrorClass, "network"}, {task.HeaderErrorMessage, failure(n)}, {task.HeaderErrorFingerprint, print(n)}, {task.HeaderAttempts, "4"},
		{task.HeaderRedrives, fmt.Sprint(redrives)}} {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return r
}

// ask orders something of all dead letters that there are now.
func (m *morgue) ask(id string, verb command.Verb, change func(*command.Command)) command.Command {
	m.t.Helper()
	ends, err := m.adm.ListCommittedOffsets(m.t.Context(), m.dlq)
	if err != nil {
		m.t.Fatal(err)
	}
	topics, err := m.adm.ListTopics(m.t.Context(), m.dlq)
	if err != nil {
		m.t.Fatal(err)
	}
	topicID := topics[m.dlq].ID
	c := command.Command{ID: id, Verb: verb, Topic: "orders", Agent: "bill", Actor: "ann", At: time.Now(), Expires: time.Now().Add(time.Hour),
		Dead: &command.Dead{Ends: map[int32]int64{0: ends[m.dlq][0].Offset}, TopicID: base64.RawURLEncoding.EncodeToString(topicID[:])}}
	change(&c)
	m.send(c)
	return c
}

func (m *morgue) send(c command.Command) {
	m.t.Helper()
	r, err := c.Record(m.names)
	if err != nil {
		m.t.Fatal(err)
	}
	m.produce(r)
}

func all(c *command.Command) { c.Dead.All = true }

// report waits until an order is in a state.
func (m *morgue) report(id string, states ...string) status.DLQOrder {
	m.t.Helper()
	for began := time.Now(); ; {
		for _, r := range m.states.next(1) {
			if time.Since(began) > time.Minute {
				m.t.Fatalf("waited in vain for the order %s to be %v", id, states)
			}
			var o status.DLQOrder
			if json.Unmarshal(r.Value, &o) == nil && o.Event == status.EventDLQOrder && o.ID == id {
				for _, s := range states {
					if o.State == s {
						return o
					}
				}
			}
		}
	}
}

// run is a worker that settles what comes, until stop is called.
func (m *morgue) run() (stop func()) {
	tasks := m.read(m.names.Tasks("orders", "bill"))
	ctx, cancel := context.WithCancel(m.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			var outs []*kgo.Record
			tasks.cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { outs = append(outs, m.settle(r)...) })
			m.mu.Lock()
			gate, n := m.gate, len(m.runs)
			m.mu.Unlock()
			if gate != nil && n >= gateAt {
				select {
				case <-gate:
				case <-ctx.Done():
				}
			}
			if len(outs) > 0 {
				_ = m.manual.ProduceSync(context.Background(), outs...)
			}
		}
	})
	stop = func() { cancel(); running.Wait() }
	m.t.Cleanup(stop)
	return stop
}

func (m *morgue) settle(r *kgo.Record) []*kgo.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs[string(r.Value)]++
	dead := m.failing(string(r.Value))
	out := &kgo.Record{Topic: m.names.Outcomes(), Partition: hop.Among(hop.PartitionOf([]byte("orders/bill")), 8)}
	add := func(key, value string) {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	for _, h := range []string{task.HeaderAgent, task.HeaderOrigin, task.HeaderRedrives} {
		add(h, route.Header(r, h))
	}
	add(task.HeaderFinal, "true")
	if !dead {
		add(task.HeaderSettled, "done")
		return []*kgo.Record{out}
	}
	var v struct{ N int }
	_ = json.Unmarshal(r.Value, &v)
	add(task.HeaderSettled, "dlq")
	add(task.HeaderErrorClass, "network")
	add(task.HeaderErrorMessage, failure(v.N))
	return []*kgo.Record{out, m.letter(v.N, route.Redrives(r))}
}

// open gives the values of the dead letters that aren't settled.
func (m *morgue) open() []string {
	m.t.Helper()
	ledger := m.ledger()
	ends, err := m.adm.ListEndOffsets(m.t.Context(), m.dlq)
	if err != nil {
		m.t.Fatal(err)
	}
	from, to := max(m.first(), ledger.Low), ends[m.dlq][0].Offset
	if from >= to {
		return nil
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(m.cfg.Kafka.Brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{m.dlq: {0: kgo.NewOffset().At(from)}}))
	if err != nil {
		m.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(m.t.Context(), 60*time.Second)
	defer cancel()
	var out []string
	for from < to {
		poll, stop := context.WithTimeout(ctx, time.Second)
		cl.PollFetches(poll).EachRecord(func(r *kgo.Record) {
			from = r.Offset + 1
			if !r.Attrs.IsControl() && ledger.Open(r.Offset) {
				out = append(out, string(r.Value))
			}
		})
		stop()
		if ctx.Err() != nil {
			m.t.Fatalf("of %s offsets %d to %d don't come", m.dlq, from, to)
		}
		from = max(from, m.first()) // a desk that trims the topic meanwhile takes what it has settled away
	}
	return out
}

// first is where the dead-letter topic begins.
func (m *morgue) first() int64 {
	m.t.Helper()
	starts, err := m.adm.ListStartOffsets(m.t.Context(), m.dlq)
	if err != nil {
		m.t.Fatal(err)
	}
	return starts[m.dlq][0].Offset
}

func (m *morgue) ledger() offsets.Ledger {
	m.t.Helper()
	os, err := m.adm.FetchOffsets(kadm.RequireStable(m.t.Context()), m.names.DLQGroup("orders", "bill"))
	if err != nil {
		return offsets.Ledger{}
	}
	o, ok := os.Lookup(m.dlq, 0)
	if !ok {
		return offsets.Ledger{}
	}
	md, err := offsets.Decode(o.At, o.Metadata)
	if err != nil {
		m.t.Fatal(err)
	}
	return offsets.LedgerAt(o.At, md)
}

// times checks how often the tasks of events were run.
func (m *morgue) times(from, to int, want func(n int) int) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := from; n < to; n++ {
		if got := m.runs[fmt.Sprintf(`{"n":%d}`, n)]; got != want(n) {
			m.t.Errorf("event %d was run %d times, want %d", n, got, want(n))
		}
	}
}

func TestDeadLettersAreRedrivenOneByFingerprintAndAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newMorgue(w, 30)
	w.start()
	m.run()
	m.ask("one", command.Redrive, func(c *command.Command) { c.Task = "orders/0/7" })
	if o := m.report("one", status.OrderDone, status.OrderStopped); o.State != status.OrderDone || o.Moved != 1 || o.Completed != 1 {
		t.Errorf("%+v", o)
	}
	if got := m.open(); len(got) != 29 {
		t.Errorf("%d are left", len(got))
	}
	first := m.ask("print", command.Redrive, func(c *command.Command) { c.Dead.Fingerprint = "print-b" })
	if o := m.report("print", status.OrderDone); o.Moved != 9 || o.Completed != 9 { // 1 4 7 … 28, without the 7
		t.Errorf("%+v", o)
	}
	m.times(0, 30, func(n int) int {
		if n%3 == 1 {
			return 1
		}
		return 0
	})
	again := first // two clicks
	again.ID = "click"
	m.send(again)
	if o := m.report("click", status.OrderDone); o.Moved != 0 {
		t.Errorf("%+v", o)
	}
	m.ask("all", command.Redrive, all)
	if o := m.report("all", status.OrderDone); o.Moved != 20 || o.Completed != 20 {
		t.Errorf("%+v", o)
	}
	m.times(0, 30, func(int) int { return 1 })
	if got := m.open(); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
	w.until("Kafka's tools show no lag", func() bool { return w.lag(w.names.DLQGroup("orders", "bill"), m.dlq) == 0 })
	w.until("what is redriven is deleted", func() bool {
		starts, err := w.adm.ListStartOffsets(t.Context(), m.dlq)
		return err == nil && starts[m.dlq][0].Offset >= 30
	})
}

func TestARedriveStopsByItselfWhereTasksComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newMorgue(w, 60)
	m.failing = func(value string) bool {
		var v struct{ N int }
		_ = json.Unmarshal([]byte(value), &v)
		return v.N%3 == 2
	}
	w.start()
	m.run()
	m.ask("1", command.Redrive, all)
	o := m.report("1", status.OrderDone, status.OrderStopped)
	if o.State != status.OrderStopped || o.Moved != 45 || o.Completed != 40 || o.CameBack != 5 || o.Kept != 15 || !strings.Contains(o.Reason, "5 of 5 redriven tasks came back dead with the failure that they had (network: failure c of") {
		t.Errorf("%+v", o)
	}
	if got := m.open(); len(got) != 20 {
		t.Errorf("%d are left", len(got))
	}
	m.mu.Lock()
	m.failing = func(string) bool { return false } // mended
	m.mu.Unlock()
	m.ask("2", command.Redrive, all)
	if o = m.report("2", status.OrderDone, status.OrderStopped); o.State != status.OrderDone || o.Moved != 20 || o.Completed != 20 {
		t.Errorf("%+v", o)
	}
	if got := m.open(); len(got) != 0 {
		t.Errorf("%d are left", len(got))
	}
}

func TestWhatCameBackTooOftenIsRedrivenByForceOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newMorgue(w, 3)
	w.start()
	m.run()
	w.produce(m.letter(3, 5), m.letter(4, 4))
	m.ask("1", command.Redrive, all)
	if o := m.report("1", status.OrderDone); o.Moved != 4 || o.Guarded != 1 {
		t.Errorf("%+v", o)
	}
	if got := m.open(); len(got) != 1 || got[0] != `{"n":3}` {
		t.Errorf("%v", got)
	}
	m.ask("2", command.Redrive, func(c *command.Command) { c.Dead.All, c.Dead.Force = true, true })
	if o := m.report("2", status.OrderDone); o.Moved != 1 {
		t.Errorf("%+v", o)
	}
}

func TestARedriveWaitsWhileTheAgentIsPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newMorgue(w, 10)
	m.a.Phase, m.a.Generation = spec.Paused, 2
	w.desire(m.a)
	w.start()
	m.run()
	m.ask("1", command.Redrive, all)
	if o := m.report("1", status.OrderWaiting); !strings.Contains(o.Reason, "paused") {
		t.Errorf("%+v", o)
	}
	if got := m.open(); len(got) != 10 {
		t.Errorf("%d are left", len(got))
	}
	m.a.Phase, m.a.Generation = spec.Active, 3
	w.desire(m.a)
	if o := m.report("1", status.OrderDone); o.Moved != 10 {
		t.Errorf("%+v", o)
	}
	m.a.Phase, m.a.Generation = spec.Terminated, 4
	w.desire(m.a)
	m.ask("2", command.Redrive, all)
	if o := m.report("2", status.OrderRefused); !strings.Contains(o.Reason, "register it again") {
		t.Errorf("%+v", o)
	}
}

// What is redriven goes by the agent as it is now, as any event does.
func TestAForcedRedriveRejectsWhatItsAgentTakesNoMoreAndTellsWhoAsked(t *testing.T) {
	w := newWorld(t)
	m := newMorgue(w, 20)
	w.create(kafka.Topic{Name: "answers", Partitions: 1}, kafka.WebhooksTopic(w.names))
	asks := m.letter(20, 0)
	asks.Headers = append(asks.Headers, asking(20, "answers")...)
	w.produce(asks)
	m.a.Filter, m.a.Generation = "data.n < 15", 2
	w.desire(m.a)
	w.start()
	m.run()
	outcomes := w.read(w.names.Outcomes())
	m.ask("1", command.Redrive, func(c *command.Command) { c.Dead.All, c.Dead.Force = true, true })
	if o := m.report("1", status.OrderDone, status.OrderStopped); o.State != status.OrderDone || o.Moved != 21 || o.Completed != 15 || o.Reason != "6 are rejected, since the agent doesn't take them any more" {
		t.Errorf("%+v", o)
	}
	m.times(0, 21, func(n int) int {
		if n < 15 {
			return 1
		}
		return 0
	})
	if got := m.open(); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
	rejected := 0
	for _, o := range outcomes.next(21) {
		if route.Header(o, task.HeaderOutcome) == "rejected" && route.Header(o, task.HeaderRedrives) == "1" && route.Header(o, task.HeaderSettled) == "dropped" &&
			strings.Contains(route.Header(o, task.HeaderErrorMessage), "filter") {
			rejected++
		}
	}
	if rejected != 6 {
		t.Errorf("%d are rejected", rejected)
	}
	if got := readReply(t, w.read("answers").next(1)[0]); got.ID != "orders/0/20/bill/1" || got.Correlation != "c20" {
		t.Errorf("%+v", got)
	}
	w.read(w.names.Webhooks()).next(1)
}

// What its agent doesn't take would only come back: it stays, and is counted. By force it comes back, which says nothing of the
// failure that others had too.
func TestARedriveLeavesWhatItsAgentTakesNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newMorgue(w, 40)
	m.failing = func(value string) bool { return !strings.Contains(value, "taken") }
	m.a.Accepts, m.a.Generation = []string{"taken"}, 2
	w.desire(m.a)
	for n := 40; n < 44; n++ { // with the failures that the others have
		r := m.letter(n, 0)
		r.Value = fmt.Appendf(nil, `{"n":%d,"type":"taken"}`, n)
		w.produce(r)
	}
	w.start()
	m.run()
	m.ask("1", command.Redrive, all)
	if o := m.report("1", status.OrderDone, status.OrderStopped); o.State != status.OrderDone || o.Moved != 4 || o.Completed != 4 || o.CameBack != 0 || o.Unfit != 40 || o.Kept != 0 || o.Reason != "" {
		t.Errorf("%+v", o)
	}
	if got := m.open(); len(got) != 40 {
		t.Errorf("%d are left", len(got))
	}
	m.ask("2", command.Redrive, func(c *command.Command) { c.Task = "orders/0/7" }) // who names a task means it
	if o := m.report("2", status.OrderDone, status.OrderStopped); o.State != status.OrderDone || o.Moved != 1 || o.CameBack != 1 || o.Unfit != 0 {
		t.Errorf("%+v", o)
	}
	w.until("it is back", func() bool { return len(m.open()) == 40 })
	m.ask("3", command.Redrive, func(c *command.Command) { c.Dead.All, c.Dead.Force = true, true })
	if o := m.report("3", status.OrderDone, status.OrderStopped); o.State != status.OrderDone || o.Moved != 40 || o.Completed != 0 || o.CameBack != 40 || o.Unfit != 0 ||
		o.Reason != "40 are rejected, since the agent doesn't take them any more" {
		t.Errorf("%+v", o)
	}
}

// takeBack cancels an order.
func (m *morgue) takeBack(order string) {
	m.t.Helper()
	m.send(command.Command{ID: "cancel " + order, Verb: command.CancelOrder, Order: order, Topic: "orders", Agent: "bill", Actor: "ann", Reason: "not yet", At: time.Now(), Expires: time.Now().Add(time.Hour)})
}

func TestAnOrderThatWaitsIsTakenBack(t *testing.T) {
	w := newWorld(t)
	m := newMorgue(w, 10)
	m.a.Phase, m.a.Generation = spec.Paused, 2
	w.desire(m.a)
	stop := w.start()
	m.run()
	m.ask("1", command.Redrive, all)
	m.report("1", status.OrderWaiting)
	m.ask("2", command.Redrive, func(c *command.Command) { c.Task = "orders/0/7" })
	m.takeBack("2") // it is behind one that waits
	for _, id := range []string{"2", "of which nobody has heard"} {
		m.takeBack(id)
		if o := m.report(id, status.OrderCancelled); o.Moved != 0 || o.Reason != "cancelled by ann: not yet" {
			t.Errorf("%+v", o)
		}
	}
	m.takeBack("1")
	if o := m.report("1", status.OrderCancelled); o.Moved != 0 {
		t.Errorf("%+v", o)
	}
	// It is for good, also for those who come later and read all that was asked.
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	m.a.Phase, m.a.Generation = spec.Active, 3
	w.desire(m.a)
	w.cfg.Node = "n2"
	w.start()
	m.ask("3", command.Redrive, func(c *command.Command) { c.Task = "orders/0/3" })
	m.report("3", status.OrderDone)
	m.times(0, 10, func(n int) int {
		if n == 3 {
			return 1
		}
		return 0
	})
	if got := m.open(); len(got) != 9 {
		t.Errorf("%d are left", len(got))
	}
}

func TestAnOrderThatIsUnderWayIsTakenBack(t *testing.T) {
	w := newWorld(t)
	const letters = 2000
	m := newMorgue(w, letters)
	m.gate = make(chan struct{})
	w.start()
	m.run()
	m.ask("1", command.Redrive, all)
	w.until("it is under way", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.runs) >= gateAt })
	m.takeBack("1")
	o := m.report("1", status.OrderCancelled, status.OrderDone)
	if o.State != status.OrderCancelled || o.Moved < gateAt || o.Moved == letters {
		t.Errorf("%+v", o)
	}
	if got := m.open(); len(got) != letters-int(o.Moved) {
		t.Errorf("%d are left, %d were moved", len(got), o.Moved)
	}
	close(m.gate)
	m.ask("2", command.Redrive, all) // the rest may be redriven later
	if again := m.report("2", status.OrderDone); again.Moved != letters-o.Moved {
		t.Errorf("%+v", again)
	}
	w.until("all are run", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.runs) == letters })
	m.times(0, letters, func(int) int { return 1 })
}

// While a former life of the agent is deleted its task topic goes, with all that is redriven there.
func TestNothingIsRedrivenIntoADeletion(t *testing.T) {
	w := newWorld(t)
	m := newMorgue(w, 10)
	w.start()
	stop := m.run()
	m.ask("1", command.Redrive, func(c *command.Command) { c.Task = "orders/0/7" })
	m.report("1", status.OrderDone) // the desk is still in its group
	m.a.CleanUp, m.a.CleanSince, m.a.Generation = true, 2, 3
	w.desire(m.a)
	m.ask("2", command.Redrive, all)
	if o := m.report("2", status.OrderWaiting, status.OrderDone); o.State != status.OrderWaiting || !strings.Contains(o.Reason, "former life") {
		t.Errorf("%+v", o)
	}
	states := w.read(w.names.Status()) // from the start: it may have come before the order's
	for cleaned := false; !cleaned; {
		for _, r := range states.next(1) {
			var a status.AgentReport
			cleaned = cleaned || json.Unmarshal(r.Value, &a) == nil && a.Event == status.EventAgent && a.Cleaned != nil && a.Cleaned.Since == 2
		}
	}
	if got := m.open(); len(got) != 9 {
		t.Errorf("%d are left", len(got))
	}
	stop()
	m.run() // on the next life's task topic
	m.a.Cleaned, m.a.Generation = true, 4
	w.desire(m.a)
	if o := m.report("2", status.OrderDone); o.Moved != 9 {
		t.Errorf("%+v", o)
	}
}

func TestAPurgeDeletesWhatItNamesAndNothingThatCameLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := newMorgue(w, 30)
	c := m.ask("1", command.Purge, func(c *command.Command) { c.Dead.Fingerprint = "print-a" })
	m.bury(30, 33) // before anybody carries it out
	w.start()
	if o := m.report("1", status.OrderDone); o.Moved != 10 {
		t.Errorf("%+v", o)
	}
	if got := m.open(); len(got) != 23 {
		t.Errorf("%d are left", len(got))
	}
	m.ask("2", command.Purge, all)
	if o := m.report("2", status.OrderDone); o.Moved != 23 {
		t.Errorf("%+v", o)
	}
	m.bury(33, 35)
	if got := m.open(); len(got) != 2 {
		t.Errorf("%d are left", len(got))
	}
	if _, err := w.adm.DeleteTopics(t.Context(), m.dlq); err != nil {
		t.Fatal(err)
	}
	w.create(kafka.DLQTopic(w.names, m.a, kafka.DefaultMaxBytes))
	m.bury(35, 38)
	c.ID = "3" // as if it came once more: its dead letters were those of another topic
	m.send(c)
	if o := m.report("3", status.OrderDone); o.Moved != 0 {
		t.Errorf("%+v", o)
	}
	if got := m.open(); len(got) != 3 {
		t.Errorf("%d are left", len(got))
	}
}

func TestARestartGoesOnWithARedrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const letters = 3000
	m := newMorgue(w, letters)
	m.gate = make(chan struct{})
	stop := w.start()
	m.run()
	m.ask("1", command.Redrive, all)
	w.until("it is under way", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.runs) >= gateAt })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	left := len(m.open())
	if left == 0 || left > letters-gateAt {
		t.Errorf("%d are left", left)
	}
	w.start()
	m.report("1", status.OrderRunning)
	close(m.gate)
	if o := m.report("1", status.OrderDone); o.Moved != letters {
		t.Errorf("%+v of %d, of which %d were left", o, letters, left)
	}
	w.until("all are run", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.runs) == letters })
	if got := m.open(); len(got) != 0 {
		t.Errorf("%d are left", len(got))
	}
	m.times(0, letters, func(int) int { return 1 })
}
