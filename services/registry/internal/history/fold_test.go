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
