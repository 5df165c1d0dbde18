package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// Events flow without the registry, and the history catches up when it is back.
func TestWithoutTheRegistryEventsFlowAndHistoryCatchesUp(t *testing.T) {
	onEachKafka(t, flowsWithoutTheRegistry)
}

func flowsWithoutTheRegistry(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	ps := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)
	publish(t, sys, topic, 10)
	awaitMetric(t, sys, topic, "completed", 10)

	if err := ps[0].End(); err != nil {
		t.Fatal(err)
	}
	seen := outcomes(t, sys)
	publish(t, sys, topic, 20)
	eventually(t, time.Minute, func() string { return differ(seen(), 30) })

	start(t, sys, "registry.r0")
	awaitMetric(t, sys, topic, "completed", 30)
	awaitMetric(t, sys, topic, "received", 30)
}

// A paused agent gets nothing and loses nothing; a deleted one is gone.
func TestPausedResumedDeleted(t *testing.T) {
	onEachKafka(t, pausedResumedDeleted)
}

func pausedResumedDeleted(t *testing.T, sys *harness.System) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	publish(t, sys, topic, 5) // before the first registration: not skipped
	registerStock(t, sys, topic)
	awaitMetric(t, sys, topic, "completed", 5)

	agent := "/v1/agents/" + topic + "/stock"
	for _, want := range []bool{true, false} {
		var a struct{ Changed bool }
		call(t, sys, http.MethodPost, agent+"/unsubscribe", map[string]any{}, &a)
		if a.Changed != want {
			t.Errorf("unsubscribe: changed is %t, not %t", a.Changed, want)
		}
	}
	eventually(t, time.Minute, func() string { return differ(marked(t, sys), 0) })
	publish(t, sys, topic, 7)
	call(t, sys, http.MethodPost, agent+"/resume", nil, nil)
	awaitMetric(t, sys, topic, "completed", 12)

	call(t, sys, http.MethodDelete, agent, nil, nil)
	err := sys.Call(t.Context(), http.MethodGet, agent, nil, nil)
	var status *harness.StatusError
	if !errors.As(err, &status) || status.Code != http.StatusNotFound {
		t.Errorf("get after delete: %v", err)
	}
	eventually(t, time.Minute, func() string { return differ(marked(t, sys), 0) })
}

// Of two processes with one node name the newer wins; the older ends with code 1 and says why.
func TestOfTwoProcessesOfOneNodeTheNewerWins(t *testing.T) {
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic := sys.Prefix + "-in"
		if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
			t.Fatal(err)
		}
		ps := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
		registerStock(t, sys, topic)
		publish(t, sys, topic, 5)
		awaitMetric(t, sys, topic, "completed", 5)

		for _, older := range ps[1:] {
			succeed(t, sys, older)
		}
		publish(t, sys, topic, 5)
		awaitMetric(t, sys, topic, "completed", 10)
	})
}

// That holds before there is any agent as well.
func TestOfTwoProcessesOfOneNodeTheNewerWinsWithoutAgents(t *testing.T) {
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		for _, older := range start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")[1:] {
			succeed(t, sys, older)
		}
	})
}

// succeed starts a second process of a node and waits for the end of the first, which names both.
func succeed(t *testing.T, sys *harness.System, older *harness.Process) {
	t.Helper()
	service, node, _ := strings.Cut(older.Name, ".")
	if _, err := sys.LaunchAt(service, node, freeAddr(t)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-older.Ended():
	case <-time.After(time.Minute):
		t.Fatalf("the older %s goes on", service)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	says := []string{"node name " + node + " was taken over by the process ", "this process, ", " on host " + host}
	for _, want := range says {
		if !strings.Contains(older.Log(), want) {
			t.Errorf("the older %s doesn't say %q", service, want)
		}
	}
	if older.Exit() != 1 || t.Failed() {
		t.Errorf("the older %s ended with %d:\n%s", service, older.Exit(), older.Log())
	}
}

// What a service can't start with is an error that says what, where and what to do.
func TestAServiceThatCantStartSaysWhatToDo(t *testing.T) {
	kafka := testenv.Kfake(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // when the parallel subtests have ended
	free := freeAddr(t)
	tests := []struct {
		name, brokers, addr, env string
		says                     []string
		exit                     int
	}{
		{name: "no Kafka", brokers: free, addr: "127.0.0.1:0", says: []string{free, "REEVE_KAFKA_BROKERS"}, exit: 5},
		{name: "a port in use", addr: taken.Addr().String(), says: []string{taken.Addr().String(), "REEVE_HTTP_ADDR"}, exit: 1},
		{name: "a variable that isn't carried out", addr: "127.0.0.1:0", env: "REEVE_LABELS=gpu", says: []string{"REEVE_LABELS", "unset"}, exit: 1},
		{name: "a variable that is no duration", addr: "127.0.0.1:0", env: "REEVE_RETRY_TIERS=soon", says: []string{"REEVE_RETRY_TIERS", "soon"}, exit: 1},
	}
	for _, service := range []string{"registry", "dispatcher", "supervisor"} {
		for _, tt := range tests {
			t.Run(service+": "+tt.name, func(t *testing.T) {
				t.Parallel()
				sys := system(t, kafka, testenv.Unique())
				if tt.brokers != "" {
					sys.Brokers = []string{tt.brokers}
				}
				if tt.env != "" {
					sys.Env = append(sys.Env, tt.env)
				}
				p, err := sys.LaunchAt(service, "n0", tt.addr)
				if err != nil {
					t.Fatal(err)
				}
				select {
				case <-p.Ended():
				case <-time.After(time.Minute):
					t.Fatalf("it goes on:\n%s", p.Log())
				}
				for _, want := range tt.says {
					if !strings.Contains(p.Log(), want) {
						t.Errorf("it doesn't say %q:\n%s", want, p.Log())
					}
				}
				if p.Exit() != tt.exit {
					t.Errorf("exit code %d, not %d", p.Exit(), tt.exit)
				}
			})
		}
	}
}

// A supervisor that is killed, guard and all, leaves no process of an agent, even while it is starting them.
func TestAKilledSupervisorLeavesNoProcess(t *testing.T) {
	t.Parallel()
	sys := system(t, testenv.Kfake(t), testenv.Unique())
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	ps := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)
	mark := "E2E_MARK=" + sys.Prefix
	eventually(t, time.Minute, func() string {
		if len(harness.Marked(mark)) == 0 {
			return "no process of the agent runs"
		}
		return ""
	})
	for _, pid := range append(harness.Children(ps[2].PID), ps[2].PID) {
		if harness.SameProgram(pid, ps[2].PID) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	eventually(t, time.Minute, func() string { return differ(len(harness.Marked(mark)), 0) })
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addrs, err := testenv.FreeAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}

func publish(t *testing.T, sys *harness.System, topic string, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range n {
		r := &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, `{"n": %d}`, i)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func call(t *testing.T, sys *harness.System, method, path string, in, out any) {
	t.Helper()
	if err := sys.Call(t.Context(), method, path, in, out); err != nil {
		t.Fatal(err)
	}
}

func awaitMetric(t *testing.T, sys *harness.System, topic, name string, want float64) {
	t.Helper()
	eventually(t, time.Minute, func() string {
		var m map[string]any
		if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/stock/metrics", nil, &m); err != nil {
			return err.Error()
		}
		if m[name] != want {
			return fmt.Sprintf("%s is %v, not %v", name, m[name], want)
		}
		return ""
	})
}

func differ(got, want int) string {
	if got != want {
		return fmt.Sprintf("%d, not %d", got, want)
	}
	return ""
}
