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

// short is a bench for one short round. What it measures says little on a busy machine, so that only what would be wrong on
// any is checked; `make bench` holds the figures against their bounds.
func short(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{dir: dir, bin: binaries.Dir(t), Config: Config{During: 4 * time.Second, Dir: dir, Out: os.Stderr, Say: t.Logf}}
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

// Retries come when they are due, never before by the broker's clock, and those of a long delay hold up none of a short one.
func TestRetriesAreNeverEarlyAndHoldUpNobody(t *testing.T) {
	t.Parallel()
	b := short(t)
	p, err := b.retryRound(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", p)
	if p.Early > 0 {
		t.Errorf("%d of %d retries came before their time", p.Early, p.Retries)
	}
	if p.Retries < retryRate*3 || p.P50 > 2*shortTier {
		t.Errorf("%d retries, half of them more than %s late", p.Retries, 2*shortTier)
	}
}

// Agents in trouble delay no other of their supervisor: a DLQ that can't be written is tried for ten seconds at a time, and
// nobody else may wait for that.
func TestAgentsInTroubleHoldUpNobody(t *testing.T) {
	t.Parallel()
	b := short(t)
	c, err := b.companyRound(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", c)
	if c.Beside > c.Alone+3*time.Second {
		t.Errorf("the healthy agent's p99 is %s alone and %s beside agents in trouble", c.Alone, c.Beside)
	}
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
		{10 * time.Millisecond, 35 * time.Millisecond}: true, {10 * time.Millisecond, 36 * time.Millisecond}: false,
		{time.Second, 1500 * time.Millisecond}: true, {time.Second, 1501 * time.Millisecond}: false,
	} {
		if err := c.judge(); (err == nil) != fits {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
