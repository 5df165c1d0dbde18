package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// binaries are what the tests start.
var binaries = harness.NewBinaries("e2e/goworker", "sweep/agent")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testenv.Main{M: m}, goleak.Cleanup(func(code int) {
		binaries.Remove()
		os.Exit(code)
	}))
}

// onEachKafka runs a body on kfake and on the test run's Kafka where that is another.
func onEachKafka(t *testing.T, body func(t *testing.T, sys *harness.System)) {
	t.Parallel()
	t.Run("kfake", func(t *testing.T) {
		t.Parallel()
		body(t, system(t, testenv.Kfake(t), testenv.Unique()))
	})
	t.Run("shared", func(t *testing.T) {
		t.Parallel()
		body(t, onShared(t))
	})
}

// onShared is an installation on the test run's Kafka; where that is a kfake, the test is skipped.
func onShared(t *testing.T) *harness.System {
	t.Helper()
	kafka := testenv.Kafka(t)
	if strings.HasPrefix(kafka.About, "kfake") {
		t.Skip("the test run's Kafka is kfake")
	}
	return system(t, kafka, testenv.Prefix(t))
}

func system(t *testing.T, kafka *testenv.Server, prefix string) *harness.System {
	t.Helper()
	sys, err := harness.New(harness.Config{
		Brokers: strings.Split(kafka.Address, ","), Prefix: prefix, Database: testenv.Schema(t), Bin: binaries.Dir(t), Dir: t.TempDir(),
		Env: []string{"REEVE_LOG_LEVEL=debug"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sys.Close(); err != nil {
			t.Error(err)
		}
	})
	return sys
}

// start starts services named service.node and gives them in that order.
func start(t *testing.T, sys *harness.System, names ...string) []*harness.Process {
	t.Helper()
	var ps []*harness.Process
	for _, name := range names {
		service, node, _ := strings.Cut(name, ".")
		p, err := sys.Start(t.Context(), service, node)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s:\n%s", p.Name, p.Log())
			}
		})
		ps = append(ps, p)
	}
	return ps
}

func stop(t *testing.T, ps ...*harness.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, p := range ps {
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
}

// eventually waits until check returns "", and else fails with the last of what it returned.
func eventually(t *testing.T, limit time.Duration, check func() string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for {
		wrong := check()
		if wrong == "" {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not in %s: %s", limit, wrong)
		}
	}
}
