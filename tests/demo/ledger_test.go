package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

func TestLedgerComparesEveryTaskWithItsFate(t *testing.T) {
	a := agent{"t", "a", func(delivery) fate { return recovers }}
	p := published{delivery: delivery{Event: "x", ID: "d"}, origin: "t/0/1", at: time.UnixMilli(1000)}
	a.Topic = p.topic()
	out := func(s task.Settled, final bool) outcome {
		return outcome{taskKey: taskKey{a.ref(), p.origin}, settled: s, final: final}
	}
	retry, done, dlq := out(task.SettledRetry, false), out(task.SettledDone, true), out(task.SettledDLQ, true)
	for name, tc := range map[string]struct {
		outcomes []outcome
		fault    string
	}{
		"as expected":     {[]outcome{retry, done}, ""},
		"lost":            {nil, "no outcome"},
		"still retrying":  {[]outcome{retry}, "not finished"},
		"finished twice":  {[]outcome{retry, done, done}, "finished 2 times"},
		"no retry":        {[]outcome{done}, "retried 0 times, expected 1"},
		"dead-lettered":   {[]outcome{retry, dlq}, "settled as dlq, expected done"},
		"one retry extra": {[]outcome{retry, retry, done}, "retried 2 times, expected 1"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			for _, o := range tc.outcomes {
				l.add(o, time.UnixMilli(1500))
			}
			_, faults := l.settle([]published{p}, []agent{a})
			if tc.fault == "" && len(faults) > 0 {
				t.Errorf("faults %q, want none", faults)
			}
			if tc.fault != "" && (len(faults) != 1 || !strings.Contains(faults[0], tc.fault)) {
				t.Errorf("faults %q, want one with %q", faults, tc.fault)
			}
		})
	}
}

func TestAnInterruptedRunIsHeldToEverythingButItsRetries(t *testing.T) {
	l := &ledger{interrupted: true}
	for name, tc := range map[string]struct {
		h     *history
		fault string
	}{
		"one retry less": {&history{finals: 1, settled: task.SettledDone}, ""},
		"lost":           {nil, "no outcome"},
		"finished twice": {&history{retries: 1, finals: 2, settled: task.SettledDone}, "finished 2 times"},
		"dead-lettered":  {&history{retries: 1, finals: 1, settled: task.SettledDLQ}, "settled as dlq"},
	} {
		if fault := l.compare(recovers, tc.h); !strings.HasPrefix(fault, tc.fault) || (fault == "") != (tc.fault == "") {
			t.Errorf("%s: %q, want %q", name, fault, tc.fault)
		}
	}
}

func TestReadOutcome(t *testing.T) {
	r := &kgo.Record{Key: []byte("t/0/7"), Value: []byte(`{"summary":"fine"}`), Headers: []kgo.RecordHeader{
		{Key: task.HeaderAgent, Value: []byte("t/a")}, {Key: task.HeaderOutcome, Value: []byte("completed")},
		{Key: task.HeaderSettled, Value: []byte("done")}, {Key: task.HeaderFinal, Value: []byte("true")},
		{Key: task.HeaderAttempt, Value: []byte("2")},
	}}
	o, err := readOutcome(r)
	want := outcome{taskKey: taskKey{"t/a", "t/0/7"}, outcome: task.Completed, settled: task.SettledDone, final: true, attempt: 2, summary: "fine"}
	if err != nil || o != want {
		t.Errorf("read %+v, %v; want %+v", o, err, want)
	}
	if _, err := readOutcome(&kgo.Record{}); err == nil {
		t.Error("a record without headers was taken for an outcome")
	}
}

func TestPercentile(t *testing.T) {
	ds := make([]time.Duration, 200)
	for i := range ds {
		ds[i] = time.Duration(i + 1)
	}
	for p, want := range map[int]time.Duration{50: 100, 99: 198, 100: 200} {
		if got := percentile(ds, p); got != want {
			t.Errorf("p%d is %d, want %d", p, got, want)
		}
	}
	if got := percentile(nil, 50); got != 0 {
		t.Errorf("p50 of nothing is %v", got)
	}
	if got := percentile(ds[:1], 99); got != 1 {
		t.Errorf("p99 of one value is %v", got)
	}
}

func TestTableShowsWhatWasExpectedWhereItDiffers(t *testing.T) {
	var b bytes.Buffer
	rows := []row{{agent: agent{Topic: "t", Name: "a"}, want: figures{Received: 3, Completed: 3}, got: figures{Received: 3, Completed: 2}}}
	if err := writeTable(&b, rows); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "2 (expected 3)") {
		t.Errorf("the table doesn't show the difference:\n%s", b.String())
	}
}
