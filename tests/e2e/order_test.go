package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/tests/harness"
)

const (
	orderKeys = 20
	orderEach = 500
)

// numbered is an event of the test of order.
type numbered struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

// The events of a key run in order, with ordering key and with ordering strict, while dispatchers and supervisors are
// killed. A strict key waits for the event that fails in its middle: it runs again in its place, or is dead-lettered, and
// then the key goes on.
func TestKeysStayInOrderWhoeverIsKilled(t *testing.T) {
	t.Parallel()
	sys := system(t, testenv.Kafka(t), testenv.Prefix(t))
	sys.Env = append(sys.Env, "REEVE_RETRY_TIERS=200ms,1s")
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 6, nil); err != nil {
		t.Fatal(err)
	}
	ps := start(t, sys, "registry.r0", "dispatcher.d0", "dispatcher.d1", "supervisor.s0", "supervisor.s1")
	logs := map[string]string{}
	for _, ordering := range []string{"key", "strict"} {
		logs[ordering] = registerOrdered(t, sys, topic, ordering)
	}
	o := &ordered{events: map[string]numbered{}, finals: map[string]map[string][]int{}, retries: map[string]int{}, done: map[string]int{}}
	follow(t, sys, o)

	const chunk = orderEach / 5
	for i := range 5 {
		o.publish(t, sys, topic, i*chunk, chunk)
		if i == 4 {
			break
		}
		p := ps[1+i] // d0, d1, s0, s1: killed when the faster agent is in the middle of the chunk
		o.await(t, orderKeys*(i*chunk+chunk/3), topic+"/key")
		if err := p.End(); err != nil {
			t.Fatal(err)
		}
		service, node := p.Name[:len(p.Name)-3], p.Name[len(p.Name)-2:]
		start(t, sys, service+"."+node)
	}
	o.await(t, orderKeys*orderEach, topic+"/key", topic+"/strict")
	o.check(t, topic)
	for ordering, log := range logs {
		checkCalls(t, ordering, log)
	}
}

func registerOrdered(t *testing.T, sys *harness.System, topic, ordering string) (log string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(sys.AgentsDir(), ordering), os.DirFS("testdata/order")); err != nil {
		t.Fatal(err)
	}
	log = filepath.Join(sys.Dir, ordering+".calls")
	moody := map[bool]string{true: "1"}[ordering == "strict"]
	err := sys.Register(t.Context(), map[string]any{"topic": topic, "name": ordering, "runtime": "python", "dir": ordering, "callback": "callback:handle",
		"env": map[string]string{"ORDER_LOG": log, "MOODY": moody}, "pool": map[string]any{"min": 2},
		"config": map[string]any{"ordering": ordering, "max_retries": 1, "retry_delays": []string{"200ms"}}})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// ordered is what the outcomes say of the test's events, in their order.
type ordered struct {
	lines   chan harness.Outcome
	events  map[string]numbered
	finals  map[string]map[string][]int // agent → key → numbers, as they were finished
	retries map[string]int
	dead    int
	done    map[string]int // by agent
}

func follow(t *testing.T, sys *harness.System, o *ordered) {
	t.Helper()
	o.lines = make(chan harness.Outcome, 1024)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- harness.Follow(ctx, sys.Brokers, []string{sys.Names().Outcomes()}, func(r *kgo.Record) {
			out, err := harness.ParseOutcome(r)
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case o.lines <- out:
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
}

// publish publishes numbers of all keys, one after the other.
func (o *ordered) publish(t *testing.T, sys *harness.System, topic string, from, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var records []*kgo.Record
	var events []numbered
	for i := from; i < from+n; i++ {
		for k := range orderKeys {
			e := numbered{Key: fmt.Sprint("k", k), N: i}
			value, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			records, events = append(records, &kgo.Record{Topic: topic, Key: []byte(e.Key), Value: value}), append(events, e)
		}
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		o.events[task.Origin{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}.ID()] = events[i]
	}
}

// await reads until each of the agents has finished n tasks.
func (o *ordered) await(t *testing.T, n int, agents ...string) {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for slices.ContainsFunc(agents, func(agent string) bool { return o.done[agent] < n }) {
		select {
		case out := <-o.lines:
			o.add(out)
		case <-limit:
			t.Fatalf("%v tasks are finished, not %d", o.done, n)
		}
	}
}

func (o *ordered) add(out harness.Outcome) {
	e := o.events[out.Origin]
	if !out.Final {
		o.retries[out.Agent]++
		return
	}
	if out.Settled == task.SettledDLQ {
		o.dead++
	}
	if o.finals[out.Agent] == nil {
		o.finals[out.Agent] = map[string][]int{}
	}
	o.finals[out.Agent][e.Key] = append(o.finals[out.Agent][e.Key], e.N)
	o.done[out.Agent]++
}

// check finds what was finished out of order, twice or never, and counts the failures in the middle.
func (o *ordered) check(t *testing.T, topic string) {
	t.Helper()
	for _, ordering := range []string{"key", "strict"} {
		agent := topic + "/" + ordering
		for k := range orderKeys {
			key := fmt.Sprint("k", k)
			got := o.finals[agent][key]
			if len(got) != orderEach {
				t.Errorf("%s, %s: %d events were finished", ordering, key, len(got))
			}
			for i, n := range got {
				if n != i {
					t.Errorf("%s, %s: event %d was finished in the place of %d", ordering, key, n, i)
					break
				}
			}
		}
	}
	dead, once := orderKeys*((orderEach+99)/200), orderKeys*((orderEach+49)/100)
	if o.dead != dead || o.retries[topic+"/key"] != 0 || o.retries[topic+"/strict"] > dead+once || o.retries[topic+"/strict"] < dead+once-4*16*2 {
		t.Errorf("%d dead letters, want %d; %d retries of key, want 0; %d of strict, want %d but for those that a kill cut short", o.dead, dead, o.retries[topic+"/key"], o.retries[topic+"/strict"], dead+once)
	}
}

// checkCalls looks at the calls that the agent's processes noted: those of a key follow one another. What was under way
// when a supervisor died is called again, and then in order again: with ordering strict it is the last one, with ordering
// key those that weren't settled.
func checkCalls(t *testing.T, ordering, log string) {
	t.Helper()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	last, again, calls := map[string]int{}, 0, 0
	for sc := bufio.NewScanner(f); sc.Scan(); calls++ {
		var key string
		var n, attempt int
		if _, err := fmt.Sscan(sc.Text(), &key, &n, &attempt); err != nil {
			t.Fatalf("%q: %v", sc.Text(), err)
		}
		before, ok := last[key]
		if !ok {
			before = -1
		}
		switch {
		case n == before+1:
		case n <= before && attempt > 1 && (ordering == "key" || n == before):
			again++
		default:
			t.Errorf("%s, %s: event %d (attempt %d) was called after event %d", ordering, key, n, attempt, before)
		}
		last[key] = n
	}
	t.Logf("%s: %d calls, %d of them again", ordering, calls, again)
}
