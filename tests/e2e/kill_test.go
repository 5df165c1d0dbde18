package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/task"
)

// Dispatchers and supervisors that are killed, one to come back and one for good, lose no event and finish none twice.
func TestKilledServicesLoseAndFinishNothingTwice(t *testing.T) {
	t.Parallel()
	killedServicesLoseNothing(t, system(t, testenv.Kafka(t), testenv.Prefix(t)))
}

func killedServicesLoseNothing(t *testing.T, sys *harness.System) {
	const tasks = 1200
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 6, nil); err != nil {
		t.Fatal(err)
	}
	ps := start(t, sys, "registry.r0", "dispatcher.d0", "dispatcher.d1", "supervisor.s0", "supervisor.s1")
	registerStock(t, sys, topic)
	publish(t, sys, topic, 5)
	awaitMetric(t, sys, topic, "completed", 5)

	l := followLedger(t, sys)
	want := publishMixed(t, sys, topic, tasks)
	for i, p := range []*harness.Process{ps[1], ps[3]} { // d0 and s0, which come back
		l.await(t, (i+1)*tasks/6)
		if err := p.End(); err != nil {
			t.Fatal(err)
		}
		service, node, _ := strings.Cut(p.Name, ".")
		start(t, sys, service+"."+node)
	}
	l.await(t, tasks/2)
	for _, p := range []*harness.Process{ps[2], ps[4]} { // d1 and s1, for good
		if err := p.End(); err != nil {
			t.Fatal(err)
		}
	}
	l.await(t, tasks+5)
	for origin, settled := range want {
		if got := l.settled(topic+"/stock", origin); got != settled {
			t.Errorf("%s is settled as %q, not %q", origin, got, settled)
		}
	}
	l.check(t)
	awaitMetric(t, sys, topic, "received", tasks+5)
	awaitMetric(t, sys, topic, "completed", float64(tasks+5-tasks/50))
	awaitMetric(t, sys, topic, "dead_lettered", tasks/50)
}

// publishMixed publishes events of which some fail once and some for good, and says how each has to be settled.
func publishMixed(t *testing.T, sys *harness.System, topic string, n int) map[string]task.Settled {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	want := map[string]task.Settled{}
	var records []*kgo.Record
	for i := range n {
		value, _ := mixed(i)
		records = append(records, &kgo.Record{Topic: topic, Key: fmt.Append(nil, i%100), Value: []byte(value)})
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		_, settled := mixed(i)
		want[task.Origin{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}.ID()] = settled
	}
	return want
}

func mixed(i int) (value string, settled task.Settled) {
	switch {
	case i%50 == 49:
		return `{"do":"fail"}`, task.SettledDLQ
	case i%20 == 7:
		return `{"do":"flaky"}`, task.SettledDone
	}
	return `{"do":"work"}`, task.SettledDone
}

// A ledger is what the outcomes topic says of every task.
type ledger struct {
	lines chan harness.Outcome
	seen  map[taskKey][]harness.Outcome
	done  int // tasks with a final outcome
}

// taskKey names a task: one event for one agent.
type taskKey struct{ agent, origin string }

// followLedger reads the outcomes topic from its start until the test ends.
func followLedger(t *testing.T, sys *harness.System) *ledger {
	t.Helper()
	l := &ledger{lines: make(chan harness.Outcome, 1024), seen: map[taskKey][]harness.Outcome{}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- harness.Follow(ctx, sys.Brokers, []string{sys.Names().Outcomes()}, func(r *kgo.Record) {
			o, err := harness.ParseOutcome(r)
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case l.lines <- o:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

// await reads until n tasks are finished.
func (l *ledger) await(t *testing.T, n int) {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for l.done < n {
		select {
		case o := <-l.lines:
			l.add(o)
		case <-limit:
			t.Fatalf("%d of %d tasks are finished", l.done, n)
		}
	}
}

func (l *ledger) add(o harness.Outcome) {
	if l.settled(o.Agent, o.Origin) == "" && o.Final {
		l.done++
	}
	key := taskKey{o.Agent, o.Origin}
	l.seen[key] = append(l.seen[key], o)
}

// settled is how a task was settled for good, "" if it isn't yet.
func (l *ledger) settled(agent, origin string) task.Settled {
	for _, o := range l.seen[taskKey{agent, origin}] {
		if o.Final {
			return o.Settled
		}
	}
	return ""
}

// drain reads what comes until nothing has come for a little while.
func (l *ledger) drain() {
	const enough = 3 * time.Second
	quiet := time.NewTimer(enough)
	defer quiet.Stop()
	for {
		quiet.Reset(enough)
		select {
		case o := <-l.lines:
			l.add(o)
		case <-quiet.C:
			return
		}
	}
}

// check waits a little for what must not come, and finds what came twice.
func (l *ledger) check(t *testing.T) {
	t.Helper()
	l.drain()
	for key, outcomes := range l.seen {
		finals, attempts := 0, map[int]int{}
		for _, o := range outcomes {
			if o.Final {
				finals++
			}
			if attempts[o.Attempt]++; attempts[o.Attempt] > 1 {
				t.Errorf("%s: attempt %d was settled %d times", key, o.Attempt, attempts[o.Attempt])
			}
		}
		if finals != 1 {
			t.Errorf("%s was finished %d times", key, finals)
		}
	}
}
