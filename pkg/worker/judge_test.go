package worker

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

func TestJudge(t *testing.T) {
	p := Policy{MaxRetries: 2, Delays: []time.Duration{time.Second, 5 * time.Second}, Tiers: []time.Duration{time.Second, 5 * time.Second, 30 * time.Second}, DLQ: true}
	once := p
	once.MaxRetries = 0
	bare := p
	bare.DLQ = false
	fail := func(c task.Class, message string) Result {
		return Result{Outcome: task.Failed, Class: c, Message: message}
	}
	for _, c := range []struct {
		name   string
		policy Policy
		tries  Tries
		result Result
		want   Verdict
	}{
		{"completed", p, Tries{Number: 1}, Result{Outcome: task.Completed}, Verdict{Outcome: task.Completed, Settled: task.SettledDone}},
		{"cancelled", p, Tries{Number: 1}, Result{Outcome: task.Cancelled}, Verdict{Outcome: task.Cancelled, Settled: task.SettledDropped}},
		{"network: first retry", p, Tries{Number: 1}, fail(task.ClassNetwork, ""), Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassNetwork, Delay: time.Second, Burns: true}},
		{"network: second retry", p, Tries{Number: 2, Burnt: 1}, fail(task.ClassNetwork, ""), Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassNetwork, Delay: 5 * time.Second, Burns: true}},
		{"network: retries used up", p, Tries{Number: 3, Burnt: 2}, fail(task.ClassNetwork, ""), Verdict{Outcome: task.Failed, Settled: task.SettledDLQ, Class: task.ClassNetwork}},
		{"a repeat after a crash of its host burns none", p, Tries{Number: 9, Burnt: 1}, fail(task.ClassNetwork, ""), Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassNetwork, Delay: 5 * time.Second, Burns: true}},
		{"without a DLQ it fails", bare, Tries{Number: 3, Burnt: 2}, fail(task.ClassNetwork, ""), Verdict{Outcome: task.Failed, Settled: task.SettledFailed, Class: task.ClassNetwork}},
		{"no class is internal", p, Tries{Number: 1}, fail("", "boom"), Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassInternal, Delay: time.Second, Burns: true}},
		{"an unknown class is internal", p, Tries{Number: 1}, fail("weird", "timeout"), Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassInternal, Delay: time.Second, Burns: true}},
		{"a guess is marked", p, Tries{Number: 1}, fail("", "Timeout on read"), Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassTimeout, Derived: true, Delay: time.Second, Burns: true}},
		{"resource waits and burns nothing", p, Tries{Number: 7, Burnt: 2}, fail(task.ClassResource, ""), Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassResource, Delay: 5 * time.Second}},
		{"a guessed resource burns", p, Tries{Number: 3, Burnt: 2}, fail("", "resource gone"), Verdict{Outcome: task.Failed, Settled: task.SettledDLQ, Class: task.ClassResource, Derived: true}},
		{"rate limited: as long as it asked, rounded up to a tier", p, Tries{Number: 1, Burnt: 2}, Result{Outcome: task.Failed, Class: task.ClassRateLimited, RetryAfter: 6 * time.Second}, Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassRateLimited, Delay: 30 * time.Second}},
		{"rate limited for longer than any tier", p, Tries{Number: 1}, Result{Outcome: task.Failed, Class: task.ClassRateLimited, RetryAfter: time.Hour}, Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassRateLimited, Delay: 30 * time.Second}},
		{"invalid input", p, Tries{Number: 1}, fail(task.ClassInvalidInput, ""), Verdict{Outcome: task.Failed, Settled: task.SettledDLQ, Class: task.ClassInvalidInput}},
		{"permanent", p, Tries{Number: 1}, fail(task.ClassPermanent, ""), Verdict{Outcome: task.Failed, Settled: task.SettledDLQ, Class: task.ClassPermanent}},
		{"incompatible", p, Tries{Number: 1}, fail(task.ClassIncompatibleTask, ""), Verdict{Outcome: task.Failed, Settled: task.SettledDLQ, Class: task.ClassIncompatibleTask}},
		{"result too large", p, Tries{Number: 1}, fail(task.ClassResultTooLarge, ""), Verdict{Outcome: task.Failed, Settled: task.SettledDLQ, Class: task.ClassResultTooLarge}},
		{"no retries: one attempt", once, Tries{Number: 1}, fail(task.ClassNetwork, ""), Verdict{Outcome: task.Failed, Settled: task.SettledDLQ, Class: task.ClassNetwork}},
		{"no retries: an attempt cut short isn't it", once, Tries{Number: 2}, fail("", ""), Verdict{Outcome: task.Failed, Settled: task.SettledDLQ, Class: task.ClassInternal}},
		{"no retries: what waits goes on", once, Tries{Number: 5}, fail(task.ClassRateLimited, ""), Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassRateLimited, Delay: 5 * time.Second}},
		{"the last delay repeats", p, Tries{Number: 9, Burnt: 1}, fail(task.ClassCrash, ""), Verdict{Outcome: task.Failed, Settled: task.SettledRetry, Class: task.ClassCrash, Delay: 5 * time.Second, Burns: true}},
		{"crashed", p, Tries{Number: 1}, Result{Outcome: task.Crashed, Class: task.ClassCrash}, Verdict{Outcome: task.Crashed, Settled: task.SettledRetry, Class: task.ClassCrash, Delay: time.Second, Burns: true}},
		{"timed out", p, Tries{Number: 3, Burnt: 2, Timeouts: 2}, Result{Outcome: task.TimedOut, Class: task.ClassTimeout}, Verdict{Outcome: task.TimedOut, Settled: task.SettledDLQ, Class: task.ClassTimeout}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Judge(c.policy, c.tries, c.result); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestAttemptTimeout(t *testing.T) {
	a := &spec.Agent{Process: spec.Process{RequestTimeout: 10}, Config: spec.Config{ReclaimIdleMS: 1500}}
	for timeouts, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 40 * time.Second} {
		if got := AttemptTimeout(a, timeouts); got != want {
			t.Errorf("after %d timeouts %v, want %v", timeouts, got, want)
		}
	}
	a.Process.RequestTimeout = spec.Seconds(math.Inf(1))
	if got := AttemptTimeout(a, 0); got != 1500*time.Millisecond {
		t.Errorf("without a limit %v", got)
	}
}

func TestFingerprintIgnoresNumbersAndIDs(t *testing.T) {
	a := Fingerprint(task.ClassNetwork, "order 4711 at 0xdeadbeef: 550e8400-e29b-41d4-a716-446655440000", "1")
	if b := Fingerprint(task.ClassNetwork, "order 12 at 0xcafe: 123e4567-e89b-12d3-a456-426614174000", "1"); a != b {
		t.Error("two errors that differ in their ids have two fingerprints")
	}
	for _, other := range []string{Fingerprint(task.ClassCrash, "order 1", "1"), Fingerprint(task.ClassNetwork, "order 1", "2")} {
		if a == other {
			t.Error("class and version make no difference")
		}
	}
}

func TestInherit(t *testing.T) {
	died := offsets.Metadata{Reserved: 110, Suspects: 105, Entries: []offsets.Entry{{Offset: 101, Attempt: 3}, {Offset: 102, Attempt: 2, Alone: true}}}
	handed := died
	handed.Clean = true
	strict := offsets.Metadata{Strict: true, Reserved: 110, Entries: []offsets.Entry{
		{Offset: 101, Attempt: 2, NotBefore: 9, Kept: true, Burnt: 2}, {Offset: 102, Attempt: 3, Kept: true, Burnt: 1}}}
	for _, c := range []struct {
		name   string
		m      offsets.Metadata
		offset int64
		want   inheritance
	}{
		{"strict: waits for its next attempt", strict, 101, inheritance{begun: 2, kept: &strict.Entries[0]}},
		{"strict: its next attempt may have begun", strict, 102, inheritance{begun: 3, suspect: true, solo: true, kept: &strict.Entries[1]}},
		{"strict: behind another of its key", strict, 109, inheritance{}},
		{"strict: the first of its key", strict, 103, inheritance{begun: 1, suspect: true}},
		{"was on trial with others", died, 101, inheritance{begun: 3, suspect: true, solo: true}},
		{"was on trial alone", died, 102, inheritance{begun: 2, suspect: true, solo: true, culprit: true}},
		{"may have been running", died, 109, inheritance{begun: 1, suspect: true}},
		{"can't have been running", died, 110, inheritance{}},
		{"handed over: cut short", handed, 101, inheritance{begun: 3}},
		{"handed over: begun under an owner before", handed, 104, inheritance{begun: 1}},
		{"handed over: not begun", handed, 109, inheritance{}},
	} {
		if got := inherit(&c.m, c.offset, 1, c.offset == 109); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestReserveTo(t *testing.T) {
	for _, c := range []struct {
		name                   string
		low, reserved, highest int64
		pace                   int
		want                   int64
	}{
		{"at first", 100, 0, 99, 0, 104},
		{"as fast as it goes", 100, 104, 103, 10, 148},
		{"never back", 100, 200, 103, 0, 200},
		{"never beyond the window", 100, 0, 99, 1 << 20, 100 + offsets.Window},
	} {
		if got := reserveTo(c.low, c.reserved, c.highest, c.pace); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestProbationGrows(t *testing.T) {
	for deaths, want := range []time.Duration{time.Second, 8 * time.Second, 64 * time.Second, 512 * time.Second, 4096 * time.Second, 4096 * time.Second} {
		if got := probation(1+deaths, 1); got != want {
			t.Errorf("after %d deaths %v, want %v", deaths, got, want)
		}
	}
}

// A spec can be older than the installation's tiers.
func TestDelaysAreTiersThatSomebodyReads(t *testing.T) {
	a := &spec.Agent{Config: spec.Config{RetryDelays: []string{"500ms", "5s", "90s"}}}
	p := NewPolicy(a, []time.Duration{time.Second, time.Minute})
	if want := []time.Duration{time.Second, time.Minute, time.Minute}; !slices.Equal(p.Delays, want) {
		t.Errorf("%v, want %v", p.Delays, want)
	}
}
