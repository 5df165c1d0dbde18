package history

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/reeve-run/reeve/pkg/task"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		outcome task.Outcome
		settled task.Settled
		want    Status
	}{
		{task.Completed, task.SettledDone, Completed},
		{task.Failed, task.SettledRetry, Retrying},
		{task.TimedOut, task.SettledRetry, Retrying},
		{task.Crashed, task.SettledDLQ, DeadLettered},
		{task.Rejected, task.SettledDLQ, DeadLettered},
		{task.Failed, task.SettledFailed, Failed},
		{task.Rejected, task.SettledFailed, Rejected},
		{task.Rejected, task.SettledDropped, Rejected},
		{task.Cancelled, task.SettledDropped, Cancelled},
		{task.Discarded, task.SettledDropped, Discarded},
	} {
		if got := statusName(judge(outcomeNumber([]byte(c.outcome)), []byte(c.settled))); got != c.want {
			t.Errorf("%s settled %s: got %s, want %s", c.outcome, c.settled, got, c.want)
		}
	}
}

// run folds the attempts of one task, written version:status, and gives the counters of the versions.
func run(attempts ...string) map[string]*delta {
	versions := map[string]*delta{}
	of := func(version []byte) *delta {
		v := string(version)
		if versions[v] == nil {
			versions[v] = &delta{}
		}
		return versions[v]
	}
	var p prior
	for _, s := range attempts {
		version, status, _ := strings.Cut(s, ":")
		p = p.fold(&attempt{version: []byte(version), status: statusNumber(Status(status)), published: 1, settled: 11}, of)
	}
	return versions
}

func TestATaskCountsOnceByItsLatestFinal(t *testing.T) {
	v := run("1:retrying", "1:retrying", "1:completed")["1"]
	if v.Received != 1 || v.Retried != 2 || v.Completed != 1 || v.Between() != 0 {
		t.Errorf("%+v", v.Counters)
	}
	if v = run("1:retrying")["1"]; v.Received != 1 || v.Between() != 1 {
		t.Errorf("between attempts: %+v", v.Counters)
	}
	if v = run("1:dead_lettered", "1:completed")["1"]; v.Received != 1 || v.DeadLettered != 0 || v.Completed != 1 {
		t.Errorf("redriven: %+v", v.Counters)
	}
	if v = run("1:dead_lettered", "1:retrying")["1"]; v.DeadLettered != 0 || v.Between() != 1 {
		t.Errorf("redriven and under way: %+v", v.Counters)
	}
	versions := run("1:retrying", "2:completed")
	if versions["1"].Received != 1 || versions["2"].Received != 0 || versions["2"].Completed != 1 {
		t.Errorf("a task counts as received by the version that had it first: %+v %+v", versions["1"].Counters, versions["2"].Counters)
	}
	if v = run("1:completed")["1"]; v.LatencyMS != 10 || v.latency.Count() != 1 {
		t.Errorf("latency: %+v", v)
	}
}

func TestNoCounterThatIsExportedEverFalls(t *testing.T) {
	statuses := []int16{retrying, completed, failed, deadLettered, rejected, cancelled, discarded}
	rapid.Check(t, func(t *rapid.T) {
		versions := map[string]*delta{"1": {}, "2": {}}
		of := func(version []byte) *delta { return versions[string(version)] }
		before := map[string]Counters{}
		var p prior
		var finals int64
		for range rapid.IntRange(1, 12).Draw(t, "attempts") {
			a := &attempt{version: []byte(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version")), status: rapid.SampledFrom(statuses).Draw(t, "status")}
			p = p.fold(a, of)
			if a.final() {
				finals++
			}
			var all int64
			for version, d := range versions {
				was, is := before[version], d.Ever()
				if is.Received < was.Received || is.Retried < was.Retried || is.Completed < was.Completed || is.Failed < was.Failed || is.DeadLettered < was.DeadLettered ||
					is.Rejected < was.Rejected || is.Cancelled < was.Cancelled || is.Discarded < was.Discarded {
					t.Fatalf("version %s fell from %+v to %+v", version, was, is)
				}
				before[version], all = is, all+is.Finished()
			}
			if all != finals {
				t.Fatalf("%d rounds are finished, and %d count", finals, all)
			}
		}
	})
}

func TestARedrivenRoundsLatencyCountsFromItsRedrive(t *testing.T) {
	const redriven = 100_000
	for name, c := range map[string]struct {
		attempts []attempt
		want     []int64 // milliseconds, of the finals that count
	}{
		"at once": {[]attempt{
			{number: 1, status: deadLettered, published: 1000, dispatched: 1001, started: 1002, settled: 1010},
			{number: 1, redrives: 1, status: completed, published: 1000, dispatched: redriven, started: redriven + 5, settled: redriven + 30}}, []int64{10, 30}},
		"after a retry": {[]attempt{
			{number: 1, redrives: 1, status: retrying, published: 1000, dispatched: redriven, started: redriven + 5, settled: redriven + 10},
			{number: 2, redrives: 1, status: completed, published: 1000, dispatched: redriven + 500, started: redriven + 505, settled: redriven + 540}}, []int64{540}},
		"its first attempt is not known": {[]attempt{
			{number: 2, redrives: 1, status: completed, published: 1000, dispatched: redriven + 500, started: redriven + 505, settled: redriven + 540}}, nil},
		"it never ran": {[]attempt{
			{number: 0, redrives: 1, status: cancelled, published: 1000, dispatched: redriven + 500, settled: redriven + 500}}, nil},
		"a redrive of a redrive": {[]attempt{
			{number: 1, redrives: 1, status: deadLettered, published: 1000, dispatched: redriven, started: redriven + 5, settled: redriven + 10},
			{number: 1, redrives: 2, status: completed, published: 1000, dispatched: 2 * redriven, started: 2*redriven + 5, settled: 2*redriven + 20}}, []int64{10, 20}},
		"without a redrive the waits between attempts count": {[]attempt{
			{number: 1, status: retrying, published: 1000, dispatched: 1001, started: 1002, settled: 1010},
			{number: 2, status: completed, published: 1000, dispatched: 2001, started: 2002, settled: 2010}}, []int64{1010}},
	} {
		var got, want delta
		var p prior
		for i := range c.attempts {
			p = p.fold(&c.attempts[i], func([]byte) *delta { return &got })
		}
		for _, ms := range c.want {
			want.LatencyMS += ms
			want.LatencyMax = max(want.LatencyMax, ms)
			want.latency.Add(ms)
		}
		if got.LatencyMS != want.LatencyMS || got.LatencyMax != want.LatencyMax || !slices.Equal(got.latency, want.latency) {
			t.Errorf("%s: %d ms in %d finals, at most %d; want %d in %d, at most %d", name, got.LatencyMS, got.latency.Count(), got.LatencyMax,
				want.LatencyMS, want.latency.Count(), want.LatencyMax)
		}
	}
}

func TestHistogramIsAtMostFivePercentOff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, 1<<40), 1, 200).Draw(t, "values")
		q := rapid.Float64Range(0, 0.999).Draw(t, "q")
		var h, a, b Histogram
		for i, v := range values {
			h.Add(v)
			if i%2 == 0 {
				a.Add(v)
			} else {
				b.Add(v)
			}
		}
		a.Merge(b)
		slices.Sort(values)
		want := float64(values[int(q*float64(len(values)))])
		if got := h.Quantile(q); got < want*0.95 || got > want*1.05 {
			t.Fatalf("got %v, want %v", got, want)
		}
		if a.Quantile(q) != h.Quantile(q) || a.Count() != int64(len(values)) {
			t.Fatal("merged it is another")
		}
	})
}

func TestBucketsFollowOneAnother(t *testing.T) {
	last := -1
	for v := range int64(1 << 14) {
		if b := bucket(v); b != last {
			if b != last+1 {
				t.Fatalf("from bucket %d to %d at %d", last, b, v)
			}
			last = b
		}
	}
	if bucket(1<<62) != buckets-1 || bucket(-1) != 0 {
		t.Error("out of range")
	}
}
