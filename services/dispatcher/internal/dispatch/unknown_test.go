package dispatch

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// The alert that retries wait for an agent that nobody knows stands from one round of their tier to the next, and is taken back
// once the agent is known or no retry was met for a round.
func TestRetriesOfAnUnknownAgentAreToldOfAsLongAsTheyGoRound(t *testing.T) {
	now := time.UnixMilli(1_000_000_000)
	known := map[string]*spec.Agent{}
	var told []string
	tier := &Tier{
		delay: time.Hour, now: func() time.Time { return now }, logger: quiet(), alert: func(kind, _ string) { t.Errorf("%s is told as a notice", kind) },
		stands: func(a status.Alert) {
			state := map[bool]string{false: " stands", true: " ends"}[a.Resolved]
			if told = append(told, a.Subject+state); a.Kind != kindUnknownAgent || a.Message == "" || a.Severity != "critical" {
				t.Errorf("%+v", a)
			}
		},
		agents: func(ref string) *spec.Agent { return known[ref] },
	}
	round := func(after time.Duration, agents ...string) {
		t.Helper()
		now = now.Add(after)
		for i, ref := range agents {
			outs, _ := tier.Take(0, []*kgo.Record{{Topic: "reeve.retry.1h", Offset: int64(i), Timestamp: now.Add(-time.Hour), Headers: []kgo.RecordHeader{{Key: task.HeaderAgent, Value: []byte(ref)}}}}, 10)
			if len(outs) != 1 || outs[0].Topic != "reeve.retry.1h" {
				t.Errorf("%+v", outs)
			}
		}
		tier.Ended(true)
	}
	expect := func(want ...string) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Errorf("told %q, not %q", told, want)
		}
		told = nil
	}
	round(0, "orders/a", "orders/b", "orders/a", "orders/c")
	expect("reeve.retry.1h/orders/a stands", "reeve.retry.1h/orders/b stands", "reeve.retry.1h/orders/c stands")
	round(30 * time.Minute) // nothing is due
	round(30*time.Minute+time.Second, "orders/a", "orders/b")
	expect()
	round(time.Minute)
	expect("reeve.retry.1h/orders/c ends")
	known["orders/b"] = &spec.Agent{}
	round(time.Second)
	expect("reeve.retry.1h/orders/b ends")
	round(time.Hour)
	expect("reeve.retry.1h/orders/a ends")
	round(0, "orders/a")
	expect("reeve.retry.1h/orders/a stands")
}
