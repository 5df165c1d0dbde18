package pool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

func timedOut(t *testing.T, r ran) {
	t.Helper()
	if res := r.wait(t); res.Outcome != task.TimedOut || res.Class != task.ClassTimeout || res.CutShort || !strings.Contains(res.Message, "longer than its timeout") {
		t.Errorf("got %+v", res)
	}
}

// unmoved fails the test if anything but the first instance was ever started.
func (f *fixture) unmoved(pid int) {
	f.t.Helper()
	if other := f.pid(); other != pid {
		f.t.Errorf("the process %d was replaced by %d", pid, other)
	}
	if seen := strings.Join(f.seen(), ","); strings.Contains(seen, "n-2") || strings.Contains(seen, "STOPPING") {
		f.t.Errorf("the instances' states were %s", seen)
	}
}

func TestATimedOutAttemptThatEndsWhenItIsAskedLeavesItsProcessAndItsNeighborsAlone(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) { a.Process.GracefulTimeoutSec, a.Process.DrainTimeout = 20, 0.01 }), nil)
	f.awaitSlots(16)
	pid := f.pid()
	neighbor := attempt(`{"do":"sleep","seconds":1.5}`, time.Minute, false)
	first, second := attempt(`{"do":"sleep","seconds":60}`, 100*time.Millisecond, false), attempt(`{"do":"sleep","seconds":60}`, 300*time.Millisecond, false)
	f.run(neighbor, first, second)
	timedOut(t, first)
	timedOut(t, second)
	if v := value(t, neighbor.wait(t)); int(v["pid"].(float64)) != pid {
		t.Errorf("the neighbor ended as %v", v)
	}
	f.unmoved(pid)
	f.awaitSlots(16)
}

func TestWhatATimedOutAttemptAnswersItIsTimedOut(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) {
		steered(a)
		a.Process.GracefulTimeoutSec = 20
	}), nil)
	f.awaitSlots(16)
	pid := f.pid()
	late := attempt(`{"seconds":60,"finishes":0.2,"publish":["news"]}`, 100*time.Millisecond, false)
	f.run(late)
	res := late.wait(t)
	if res.Outcome != task.TimedOut || res.Class != task.ClassTimeout || len(res.Publish) != 0 || res.Value != nil {
		t.Errorf("got %+v", res)
	}
	f.unmoved(pid)
}

func TestSomebodyMayCancelATaskWhoseAttemptHasTimedOut(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) {
		steered(a)
		a.Process.GracefulTimeoutSec = 20
	}), nil)
	f.awaitSlots(16)
	pid := f.pid()
	late := attempt(`{"seconds":60,"finishes":1}`, 100*time.Millisecond, false)
	f.run(late)
	f.awaitLine("told to end")
	f.pool.Interrupt(late.Attempt) // a second cancel message would end what finishes
	timedOut(t, late)
	f.unmoved(pid)
}

// A function in a thread can't be ended, nor can one that holds up the loop which would hear of it.
func TestATimedOutAttemptThatCantBeEndedEndsOnlyWithItsProcess(t *testing.T) {
	for name, tt := range map[string]struct {
		callback, content string
	}{
		"loop":   {"agent:handle", `{"do":"block","seconds":60}`},
		"thread": {"agent:blocking", `{"seconds":60}`},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, agent(func(a *spec.Agent) { a.Callback = tt.callback }), nil)
			f.awaitSlots(16)
			pid := f.pid()
			stuck := attempt(tt.content, 200*time.Millisecond, false)
			stuck.Attempt = worker.NewAttempt(stuck.Record, 1, 200*time.Millisecond, false, func(r worker.Result) {
				if alive(pid) {
					t.Error("the attempt was finished while its process ran")
				}
				stuck.result <- r
			})
			neighbor := attempt(strings.Replace(tt.content, "60", "61", 1), time.Minute, false)
			f.run(stuck, neighbor)
			timedOut(t, stuck)
			if res := neighbor.wait(t); !res.CutShort {
				t.Errorf("the neighbor ended as %+v", res)
			}
			f.awaitChange("n-1 STOPPED")
			f.awaitChange("n-2 RUNNING")
			if other := f.pid(); other == pid {
				t.Error("the process wasn't replaced")
			}
		})
	}
}

// What an attempt has started is part of it, whatever the attempt answers.
func TestATimedOutAttemptThatLeavesAProcessBehindEndsOnlyWithIt(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) {
		steered(a)
		a.Process.GracefulTimeoutSec = 20
	}), nil)
	f.awaitSlots(16)
	pid := f.pid()
	trace := filepath.Join(t.TempDir(), "trace")
	left := attempt(`{"children":"`+trace+`","seconds":60}`, 500*time.Millisecond, false)
	left.Attempt = worker.NewAttempt(left.Record, 1, 500*time.Millisecond, false, func(r worker.Result) {
		if alive(pid) {
			t.Error("the attempt was finished while its process ran")
		}
		left.result <- r
	})
	f.run(left)
	awaitFile(t, trace, 1)
	timedOut(t, left)
	before, err := os.Stat(trace)
	if err != nil {
		t.Fatal(err)
	}
	f.awaitChange("n-2 RUNNING")
	f.pid()
	if after, err := os.Stat(trace); err != nil || after.Size() != before.Size() {
		t.Errorf("a child of the attempt still writes: %v", err)
	}
}

func TestNeighboursOfATimedOutAttemptMayFinish(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) {
		steered(a)
		a.Process.GracefulTimeoutSec, a.Process.DrainTimeout = 0.2, 10
	}), nil)
	f.awaitSlots(16)
	pid := f.pid()
	stuck := attempt(`{"stubborn":true}`, 100*time.Millisecond, false)
	neighbor := attempt(`{"seconds":1}`, time.Minute, false)
	f.run(stuck, neighbor)
	f.awaitChange("n-1 STOPPING")
	// The pool works on with another instance while the old one drains.
	if other := f.pid(); other == pid {
		t.Error("an attempt went to an instance that drains")
	}
	value(t, neighbor.wait(t))
	f.pool.Close(0, "enough")
	timedOut(t, stuck)
}

// The base protocol knows no cancel: the process drains at once, and a late answer ends the attempt then.
func TestALateAnswerEndsATimedOutAttemptAtOnce(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) {
		a.Runtime, a.Command, a.Callback = spec.Command, []string{"python3", "base.py"}, ""
		a.Process.DrainTimeout, a.Process.GracefulTimeoutSec = 30, 30
	}), nil)
	f.awaitSlots(16)
	late := attempt(`{"sleep":0.5}`, 100*time.Millisecond, false)
	f.run(late)
	timedOut(t, late)
	f.awaitChange("n-1 STOPPED")
}
