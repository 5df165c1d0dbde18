package bench

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// binaries are what the tests start.
var binaries = harness.NewBinaries("sweep/agent")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testenv.Main{M: m}, goleak.Cleanup(func(code int) {
		binaries.Remove()
		os.Exit(code)
	}))
}

func TestAContestantThatThereIsNotIsRefused(t *testing.T) {
	err := Run(t.Context(), Config{Only: "nobody"})
	if err == nil || !strings.Contains(err.Error(), "nobody") || !strings.Contains(err.Error(), "Reeve, in-process") {
		t.Error(err)
	}
}

// short is a bench for one short round at a quarter of the rates. What it measures says little on a busy machine, so that
// only what would be wrong on any is checked; `make bench` holds the figures against their bounds.
func short(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{slower: 4, dir: dir, bin: binaries.Dir(t), Config: Config{During: 4 * time.Second, Dir: dir, Out: os.Stderr, Say: t.Logf}}
	b.kafka = testenv.Kafka(t)
	var err error
	if b.postgres, err = testenv.StartPostgres(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.postgres.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Retries come when they are due, never before by the broker's clock, and those of a long delay hold up none of a short one:
// if they did, they would in every round; a busy machine spoils one.
func TestRetriesAreNeverEarlyAndHoldUpNobody(t *testing.T) {
	t.Parallel()
	b := short(t)
	for range 3 {
		p, err := b.retryRound(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", p)
		if p.Early > 0 || p.Retries < b.rate(retryRate)*3 {
			t.Fatalf("of %d retries %d came before their time", p.Retries, p.Early)
		}
		if p.P50 <= 2*shortTier {
			return
		}
	}
	t.Errorf("half of the retries are more than %s late in every round", 2*shortTier)
}

// Agents in trouble delay no other of their supervisor: a DLQ that can't be written is tried for ten seconds at a time, again
// and again, and nobody else may wait for that. Where others did, they would in every round; a busy machine spoils one.
func TestAgentsInTroubleHoldUpNobody(t *testing.T) {
	t.Parallel()
	b := short(t)
	for range 3 {
		c, err := b.companyRound(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("the healthy agent's p99 is %s alone and %s beside agents in trouble", c.Alone, c.Beside)
		if c.Beside <= c.Alone+3*time.Second {
			return
		}
	}
	t.Error("it was held up in every round")
}

func TestWhatIsBeyondItsBoundIsSaid(t *testing.T) {
	good := punctuality{P50: 19 * time.Millisecond, P99: 249 * time.Millisecond, Healthy: 30 * time.Millisecond, Calm: 20 * time.Millisecond}
	if err := good.judge(); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]func(*punctuality){
		"early": func(p *punctuality) { p.Early = 1 }, "p50": func(p *punctuality) { p.P50 = 21 * time.Millisecond },
		"p99": func(p *punctuality) { p.P99 = 251 * time.Millisecond }, "healthy": func(p *punctuality) { p.Healthy = 31 * time.Millisecond },
	} {
		p := good
		if bad(&p); p.judge() == nil {
			t.Errorf("%s: %+v passes", name, p)
		}
	}
	for c, fits := range map[company]bool{
		{Alone: 10 * time.Millisecond, Beside: 35 * time.Millisecond}: true, {Alone: 10 * time.Millisecond, Beside: 36 * time.Millisecond}: false,
		{Alone: time.Second, Beside: 1500 * time.Millisecond}: true, {Alone: time.Second, Beside: 1501 * time.Millisecond}: false,
	} {
		if err := c.judge(); (err == nil) != fits {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
