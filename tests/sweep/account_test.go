package sweep

import (
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/pkg/task"
)

func at(ms int64) time.Time { return time.UnixMilli(ms) }

func final(attempt int, settled task.Settled, seen int64) harness.Outcome {
	return harness.Outcome{Origin: "t/0/1", Attempt: attempt, Final: true, Settled: settled, Seen: at(seen)}
}

// Each case is one task, t/0/1, of which something is wrong, or nothing.
func TestTheAccountFindsEveryFault(t *testing.T) {
	const begunAt10 = "S t:0:1 1 10000000\nE t:0:1 1 20000000\n"
	retry := harness.Outcome{Origin: "t/0/1", Attempt: 1, Settled: task.SettledRetry, Seen: at(30)}
	tests := []struct {
		name     string
		content  Content
		outcomes []harness.Outcome
		log      string
		count    func(Verdict) int
	}{
		{name: "nothing", outcomes: []harness.Outcome{final(1, task.SettledDone, 30)}, log: begunAt10},
		{name: "a repeat after a kill is none", outcomes: []harness.Outcome{final(2, task.SettledDone, 60)},
			log: "S t:0:1 1 10000000\n|S t:0:1 2 20000000\nE t:0:1 2 30000000\n"},
		{name: "lost", log: begunAt10, count: func(v Verdict) int { return v.Lost }},
		{name: "lost after a retry", outcomes: []harness.Outcome{retry}, log: begunAt10, count: func(v Verdict) int { return v.Lost }},
		{name: "finished twice", outcomes: []harness.Outcome{final(1, task.SettledDone, 30), final(2, task.SettledDone, 40)}, log: begunAt10,
			count: func(v Verdict) int { return v.Twice }},
		{name: "an attempt settled twice", outcomes: []harness.Outcome{retry, retry, final(2, task.SettledDone, 40)}, log: begunAt10,
			count: func(v Verdict) int { return v.SettledTwice }},
		{name: "run again after its outcome", outcomes: []harness.Outcome{final(1, task.SettledDone, 30)}, log: begunAt10 + "S t:0:1 2 31000000\n",
			count: func(v Verdict) int { return v.AfterOutcome }},
		{name: "a poison that was done", content: Content{Poison: true}, outcomes: []harness.Outcome{final(1, task.SettledDone, 30)}, log: begunAt10,
			count: func(v Verdict) int { return v.Unexpected }},
		{name: "dead-lettered for nothing", outcomes: []harness.Outcome{final(1, task.SettledDLQ, 30)}, log: begunAt10,
			count: func(v Verdict) int { return v.Unexpected }},
		{name: "finished without a run", outcomes: []harness.Outcome{final(1, task.SettledDone, 30)},
			count: func(v Verdict) int { return v.UnstartedOutcomes }},
		{name: "never published", outcomes: []harness.Outcome{final(1, task.SettledDone, 30), {Origin: "t/0/2", Final: true}}, log: begunAt10,
			count: func(v Verdict) int { return v.Unknown }},
		{name: "overlapping runs", outcomes: []harness.Outcome{final(2, task.SettledDone, 60)},
			log:   "S t:0:1 1 10000000\nS t:0:1 2 15000000\nE t:0:1 1 20000000\nE t:0:1 2 30000000\n",
			count: func(v Verdict) int { return v.Overlaps }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := NewAccount()
			a.Published("t/0/1", "k", tt.content)
			for _, o := range tt.outcomes {
				a.Outcome(o)
			}
			for log := range strings.SplitSeq(tt.log, "|") { // one a process
				if err := a.Log(strings.NewReader(log)); err != nil {
					t.Fatal(err)
				}
			}
			v := a.Judge()
			want := 0
			if tt.count != nil {
				want = 1
				if got := tt.count(v); got != 1 {
					t.Errorf("counted %d", got)
				}
			}
			if v.Failures != want {
				t.Errorf("%d failures: %v", v.Failures, v.Details)
			}
		})
	}
}

func TestAPlanIsItsSeeds(t *testing.T) {
	one, two, other := Plan(1, 20, 5, 2), Plan(1, 20, 5, 2), Plan(2, 20, 5, 2)
	kinds := map[string]int{}
	same := true
	for i := range one {
		if one[i] != two[i] {
			t.Fatalf("blow %d: %v and %v", i, one[i], two[i])
		}
		same = same && one[i] == other[i]
		kinds[one[i].Service+" "+strings.Fields(string(one[i].Kind))[0]]++
	}
	if same {
		t.Error("another seed gave the same plan")
	}
	for what, n := range map[string]int{"dispatcher kill": 20, "supervisor kill": 20, "dispatcher stop": 5, "supervisor stop": 5} {
		if kinds[what] != n {
			t.Errorf("%d × %s", kinds[what], what)
		}
	}
}
