package sweep

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// binaries are what the tests start.
var binaries = harness.NewBinaries("sweep/agent")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		binaries.Remove()
		os.Exit(code)
	}))
}

// A first, short sweep; `make sweep` is the long one.
func TestKilledServicesLoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	report, err := Run(t.Context(), system(t, testenv.Brokers(t), testenv.Prefix(t)), Config{Seed: 1, Kills: 3, Takeover: true, Say: t.Logf})
	check(t, report, err)
}

// A broker that stands still, dies and comes back, or can't be reached by the supervisor ends no attempt, and nobody has to
// mend anything after.
func TestABrokersOutageEndsNoAttempt(t *testing.T) {
	t.Parallel()
	b := testenv.OwnBroker(t, Gates)
	report, err := RunOutages(t.Context(), system(t, nil, testenv.Unique()), b, Config{Seed: 1, Say: t.Logf}, FreezeBroker, KillBroker, CutSupervisor)
	check(t, report, err)
}

// Workers that join and leave every second, explicitly, lose and repeat nothing, and cost no throughput once that is over.
func TestARebalanceStormLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	report, err := RunStorm(t.Context(), system(t, testenv.Brokers(t), testenv.Prefix(t)), StormConfig{
		Config: Config{Seed: 1, Say: t.Logf}, Rounds: 1, Lasts: 10 * time.Second, Calm: 8 * time.Second,
	})
	check(t, report, err)
}

func check(t *testing.T, report *Report, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	if err := report.Err(); err != nil {
		t.Error(err)
	}
}

func system(t *testing.T, brokers []string, prefix string) *harness.System {
	t.Helper()
	sys, err := harness.New(harness.Config{Brokers: brokers, Prefix: prefix, Database: testenv.Schema(t), Bin: binaries.Dir(t), Dir: t.TempDir()})
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
