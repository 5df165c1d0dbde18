package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/tests/harness"
)

// An agent is deleted with everything in the middle of its work, and registered again at once. What it leaves is settled
// as discarded, each task once, also retries that fall due later; the new life begins at the start of the topic.
func TestACompleteDeletionDiscardsWhatIsLeftAndTheNextLifeBeginsAnew(t *testing.T) {
	onEachKafka(t, deletedWhole)
}

func deletedWhole(t *testing.T, sys *harness.System) {
	const events = 240
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	l := followLedger(t, sys)
	start(t, sys, "registry.r0", "dispatcher.d0", "dispatcher.d1", "supervisor.s0")
	publishFlaky(t, sys, topic, events)
	registerSlow(t, sys, topic)
	await(t, l, 10, func() bool { return l.outcomesOf(task.Completed) >= 60 && l.retries() >= 10 })

	agent := "/v1/agents/" + topic + "/stock"
	var would struct {
		Changed bool
		Cleanup struct {
			Discards int
		}
	}
	call(t, sys, http.MethodDelete, agent+"?delete_group=true&dry_run=true", nil, &would)
	if would.Changed || would.Cleanup.Discards < 1 {
		t.Errorf("the preview says %+v", would)
	}
	call(t, sys, http.MethodGet, agent, nil, nil) // it is still there
	call(t, sys, http.MethodDelete, agent+"?delete_group=true&reason=over", nil, nil)
	registerSlow(t, sys, topic)

	var m struct{ Received, Completed, Discarded, Waiting, Running, Lag int }
	eventually(t, 2*time.Minute, func() string {
		call(t, sys, http.MethodGet, agent+"/metrics", nil, &m)
		if m.Received <= events || m.Lag+m.Waiting+m.Running != 0 || m.Received != m.Completed+m.Discarded {
			return fmt.Sprintf("%+v", m)
		}
		return ""
	})
	l.drain()
	twice, discarded := 0, l.outcomesOf(task.Discarded)
	for key, outcomes := range l.seen {
		finals := 0
		for _, o := range outcomes {
			if o.Final {
				finals++
			}
		}
		if finals == 2 { // once in each life
			twice++
		} else if finals != 1 {
			t.Errorf("%s was finished %d times", key, finals)
		}
	}
	if len(l.seen) != events || m.Received != events+twice || m.Discarded != discarded {
		t.Errorf("%+v of %d events, %d of them in both lives; %d outcomes are discarded", m, len(l.seen), twice, discarded)
	}
	if discarded == 0 || discarded > twice || discarded > would.Cleanup.Discards {
		t.Errorf("%d discarded; the preview said %d", discarded, would.Cleanup.Discards)
	}
	var history struct {
		Items []struct{ Action, Reason string }
	}
	call(t, sys, http.MethodGet, agent+"/history", nil, &history)
	if len(history.Items) != 3 || history.Items[1].Action != "delete" || history.Items[1].Reason != "over" {
		t.Errorf("%+v", history)
	}
}

// An agent that is deleted while it is paused, and nothing else, goes on where it stopped when it is registered again.
func TestASimpleDeletionKeepsThePosition(t *testing.T) {
	onEachKafka(t, deletedAndBack)
}

func deletedAndBack(t *testing.T, sys *harness.System) {
	const events = 120
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	l := followLedger(t, sys)
	start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	publishFlaky(t, sys, topic, events)
	registerSlow(t, sys, topic)
	await(t, l, 10, func() bool { return l.outcomesOf(task.Completed) >= 30 && l.retries() >= 5 })
	agent := "/v1/agents/" + topic + "/stock"
	call(t, sys, http.MethodPost, agent+"/unsubscribe", map[string]any{}, nil)
	call(t, sys, http.MethodDelete, agent, nil, nil)
	eventually(t, time.Minute, func() string { return differ(marked(t, sys), 0) })
	l.drain()
	var all struct {
		Items []struct{ Name, Phase string }
	}
	call(t, sys, http.MethodGet, "/v1/agents?all=true", nil, &all)
	if len(all.Items) != 1 || all.Items[0].Phase != "terminated" {
		t.Errorf("%+v", all)
	}
	if l.done >= events {
		t.Fatal("it was faster than the deletion")
	}
	registerSlow(t, sys, topic)
	l.await(t, events)
	l.check(t)
	awaitMetric(t, sys, topic, "received", events)
	awaitMetric(t, sys, topic, "completed", events)
}

// registerSlow registers the stock agent with retries that wait for 5 s.
func registerSlow(t *testing.T, sys *harness.System, topic string) {
	t.Helper()
	dir := filepath.Join(sys.AgentsDir(), "stock")
	if _, err := os.Stat(dir); err != nil {
		if err := os.CopyFS(dir, os.DirFS("testdata/stock")); err != nil {
			t.Fatal(err)
		}
	}
	err := sys.Register(t.Context(), map[string]any{
		"topic": topic, "name": "stock", "runtime": "command", "dir": "stock", "command": []string{"python3", "adapter.py"},
		"env": map[string]string{"E2E_MARK": sys.Prefix}, "config": map[string]any{"max_retries": 2, "retry_delays": []string{"5s"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// publishFlaky publishes events of which every fourth fails once.
func publishFlaky(t *testing.T, sys *harness.System, topic string, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var records []*kgo.Record
	for i := range n {
		value := `{"do":"work"}`
		if i%4 == 0 {
			value = `{"do":"flaky"}`
		}
		records = append(records, &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: []byte(value)})
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// await reads outcomes until enough says so.
func await(t *testing.T, l *ledger, seconds int, enough func() bool) {
	t.Helper()
	for limit := time.After(time.Duration(seconds) * time.Second); !enough(); {
		select {
		case o := <-l.lines:
			l.add(o)
		case <-limit:
			t.Fatalf("not enough came: %d finished", l.done)
		}
	}
}

// outcomesOf counts the outcomes of a kind.
func (l *ledger) outcomesOf(kind task.Outcome) int {
	return l.count(func(o harness.Outcome) bool { return o.Outcome == kind })
}

// retries counts the attempts that sent their task to a retry.
func (l *ledger) retries() int {
	return l.count(func(o harness.Outcome) bool { return o.Settled == task.SettledRetry })
}

func (l *ledger) count(what func(harness.Outcome) bool) int {
	n := 0
	for _, outcomes := range l.seen {
		for _, o := range outcomes {
			if what(o) {
				n++
			}
		}
	}
	return n
}
