package sweep

import (
	"testing"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// A first, short sweep; `make sweep` is the long one.
func TestKilledServicesLoseAndRepeatNothing(t *testing.T) {
	dir := t.TempDir()
	if err := harness.Build(t.Context(), dir+"/bin", "sweep/agent"); err != nil {
		t.Fatal(err)
	}
	sys, err := harness.New(harness.Config{
		Brokers: testenv.Brokers(t), Prefix: testenv.Prefix(t), Database: testenv.Schema(t), Bin: dir + "/bin", Dir: dir + "/sys",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sys.Close(); err != nil {
			t.Error(err)
		}
	})
	report, err := Run(t.Context(), sys, Config{Seed: 1, Kills: 3, Takeover: true, Say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	if err := report.Err(); err != nil {
		t.Error(err)
	}
}
