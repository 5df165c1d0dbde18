package e2e

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/control"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/tests/harness"
)

// An installation is killed whole in the middle of its work, and stands still until Kafka has forgotten where its groups
// stood. Everything goes on where it was: nothing is skipped, and nothing that had ended is run again.
func TestAStandstillOfWeeksSkipsNothingAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	t.Run("kfake", func(t *testing.T) {
		t.Parallel()
		standstill(t, system(t, testenv.Kfake(t), testenv.Unique()), true)
	})
	t.Run("apache", func(t *testing.T) {
		t.Parallel()
		kafka, err := testenv.StartApacheKafka(t.Context(), t.Logf, "offsets.retention.minutes=1", "offsets.retention.check.interval.ms=500")
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() {
			if err := kafka.Stop(); err != nil {
				t.Error(err)
			}
		})
		standstill(t, system(t, kafka, testenv.Unique()), false)
	})
}

// standstill is the body. With force the groups are deleted by hand, where the broker forgets nothing by itself.
func standstill(t *testing.T, sys *harness.System, force bool) {
	const before, during = 400, 60
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	l := followLedger(t, sys)
	ps := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)
	second(t, sys, topic)
	publish(t, sys, topic, 10)
	l.await(t, 20)
	call(t, sys, http.MethodPost, "/v1/agents/"+topic+"/second/unsubscribe", map[string]any{}, nil)
	eventually(t, time.Minute, func() string { return differ(marked(t, sys), 1) })
	awaitKept(t, sys, topic)

	want := publishMixed(t, sys, topic, before)
	l.await(t, 20+before/2)
	for _, p := range []*harness.Process{ps[1], ps[2], ps[0]} {
		if err := p.End(); err != nil {
			t.Fatal(err)
		}
	}
	forget(t, sys, force, sys.Names().Group(topic, "stock"), sys.Names().WorkGroup(topic, "stock"), sys.Names().Group(topic, "second"),
		sys.Names().WorkGroup(topic, "second"), sys.Names().RetryGroup(time.Second))
	publish(t, sys, topic, during)

	// Dispatchers and workers wait for the registry, however long it takes.
	start(t, sys, "dispatcher.d0", "supervisor.s0")
	l.drain()
	if done := l.done; done >= 20+before {
		t.Errorf("%d tasks are finished though nobody has put the positions back", done)
	}
	start(t, sys, "registry.r0")
	l.await(t, 20+before+during)
	call(t, sys, http.MethodPost, "/v1/agents/"+topic+"/second/resume", nil, nil)
	l.await(t, 20+2*(before+during))
	for origin, settled := range want {
		if got := l.settled(topic+"/stock", origin); got != settled {
			t.Errorf("%s is settled as %q, not %q", origin, got, settled)
		}
	}
	l.check(t)
	var m struct {
		Received, Completed, Waiting int
		DeadLettered                 int `json:"dead_lettered"`
	}
	eventually(t, time.Minute, func() string {
		call(t, sys, http.MethodGet, "/v1/agents/"+topic+"/stock/metrics", nil, &m)
		return differ(m.Received, 10+before+during) + differ(m.Waiting, 0) + differ(m.DeadLettered, before/50) + differ(m.Completed, 10+during+before-before/50)
	})
}

// second registers another agent of the topic, which has the same program.
func second(t *testing.T, sys *harness.System, topic string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(sys.AgentsDir(), "second"), os.DirFS("testdata/stock")); err != nil {
		t.Fatal(err)
	}
	err := sys.Register(t.Context(), map[string]any{
		"topic": topic, "name": "second", "runtime": "command", "dir": "second", "command": []string{"python3", "adapter.py"},
		"env": map[string]string{"E2E_MARK": sys.Prefix}, "config": map[string]any{"max_retries": 1, "retry_delays": []string{"1s"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitKept waits until the records of both agents say that their positions are kept.
func awaitKept(t *testing.T, sys *harness.System, topic string) {
	t.Helper()
	eventually(t, time.Minute, func() string {
		kept := 0
		for _, a := range controlRecords(t, sys) {
			if a.Topic == topic && a.Kept.Topic != "" && a.Kept.Tasks != "" {
				kept++
			}
		}
		return differ(kept, 2)
	})
}

// forget waits until Kafka has forgotten where groups stand; with force it is told to.
func forget(t *testing.T, sys *harness.System, force bool, groups ...string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	eventually(t, 3*time.Minute, func() string {
		if force { // refused while the members that were killed count
			if _, err := adm.DeleteGroups(t.Context(), groups...); err != nil {
				return err.Error()
			}
		}
		for group, r := range adm.FetchManyOffsets(t.Context(), groups...) {
			if r.Err != nil && !errors.Is(r.Err, kerr.GroupIDNotFound) {
				return r.Err.Error()
			}
			if len(r.Fetched) > 0 {
				return group + " has positions"
			}
		}
		return ""
	})
}

// controlRecords are the agents as the control topic has them.
func controlRecords(t *testing.T, sys *harness.System) map[string]*spec.Agent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := snapshot{cancel: cancel, all: make(chan map[string]*spec.Agent, 1)}
	err := control.Follow(ctx, []kgo.Opt{kgo.SeedBrokers(sys.Brokers...)}, sys.Names(), slog.New(slog.DiscardHandler), h)
	select {
	case all := <-h.all:
		return all
	default:
		t.Fatal(err)
		return nil
	}
}

// snapshot takes the control topic as it stands.
type snapshot struct {
	cancel context.CancelFunc
	all    chan map[string]*spec.Agent
}

func (s snapshot) Ready(all map[string]*spec.Agent) { s.all <- all; s.cancel() }

func (snapshot) Changed(string, *spec.Agent) {}
