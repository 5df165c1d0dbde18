package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
)

// What is known of others when a failure comes that would be its task's last one, and what becomes of it: as in script, the
// final failure comes with the last letter, of a task that began to fail so long before.
func TestAFinalFailureIsSettledOnlyAgainstItsTask(t *testing.T) {
	const ms, never = time.Millisecond, -1
	for _, c := range []struct {
		name, script string
		failing      time.Duration
		waits        bool
		alone        time.Duration // so long it waits if nothing else happens; never: it's for the rule to say
	}{
		{"alone, at once", "n", 0, true, time.Second},
		{"alone, after half a minute", "n", 30 * time.Second, true, 30 * time.Second},
		{"alone, after an hour", "n", time.Hour, true, time.Minute},
		{"others succeeded while it failed", "n..n", 35 * ms, false, 0},
		{"others succeeded before", "...n", 5 * ms, true, time.Second},
		{"two whose network fails", "...nn", 0, true, never},
		{"two dependencies", "...dd", 0, true, never},
		{"internal errors may be the events' own", "...iiiiiiiiii", 0, false, 0},
		{"nearly all have the same one", "...iiiiiiiiiiiiiiiiiii", 0, true, never},
		{"unlike ones", "...ijijijijijijijijijijij", 0, false, 0},
		{"one that differs, among many", "...iiiiiiiiiiiiiiiiiiij", 0, true, never},
		{"others succeeded in between", "...nn.n", 0, true, time.Second},
		{"it is checked", "...ddddd", 0, true, never},
		{"it is believed", "...dddddDDD", 0, false, 0},
		{"one of an hour ago tells nothing", "...n" + hourly + "n", 0, true, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o outage
			now := script(&o, c.script)
			f := final{failure: failure{2, task.ClassNetwork, "n"}, first: now.Add(-c.failing), at: now}
			if strings.HasSuffix(c.script, "i") || strings.HasSuffix(c.script, "j") {
				f.class = task.ClassInternal
			}
			waits, until := o.outlook().waits(f, now)
			if want := (c.alone == never); waits != c.waits || waits && until.IsZero() != want || waits && !want && until.Sub(now) != c.alone {
				t.Errorf("waits %t, for %v; want %t, %v", waits, until.Sub(now), c.waits, c.alone)
			}
			if after, _ := o.outlook().waits(f, now.Add(c.alone)); c.alone > 0 && after {
				t.Error("it waits for longer")
			}
		})
	}
}

// hourly lets an hour pass in a script.
const hourly = "m"

// Who has been given another attempt in two doubts isn't given one in a third, unless nearly all failed.
func TestAnotherAttemptIsGivenSoOften(t *testing.T) {
	at := func(n int) time.Time { return time.UnixMilli(1_700_000_000_000 + int64(n)) }
	for _, c := range []struct {
		wide bool
		most int
	}{{false, doubts}, {true, maxSpared}} {
		a := account{}
		given := 0
		for n := range 20 {
			d := reprieve{since: at(n), wide: c.wide}
			if d.spare(&a) {
				given++
			}
			if d.spare(&a) != (given == n+1) {
				t.Errorf("doubt %d: once more in the same one", n)
			}
		}
		if given != c.most {
			t.Errorf("%d times, want %d", given, c.most)
		}
	}
}
