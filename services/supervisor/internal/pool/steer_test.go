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

func steered(a *spec.Agent) { a.Callback = "agent:steered" }

// awaitFile waits for a file of at least a size.
func awaitFile(t *testing.T, path string, size int64) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		if s, err := os.Stat(path); err == nil && s.Size() >= size {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s wasn't written", path)
		}
	}
}

func TestATaskThatEndsWhenItIsCancelledLeavesItsProcessAlone(t *testing.T) {
	f := start(t, agent(nil), nil)
	f.awaitSlots(16)
	a := attempt(`{"do":"sleep","seconds":60}`, time.Minute, false)
	f.run(a)
	pid := f.pid()
	f.pool.Interrupt(a.Attempt)
	f.pool.Interrupt(a.Attempt) // twice is once
	if res := a.wait(t); res.Outcome != task.Failed || res.CutShort || !strings.Contains(res.Type, "Cancelled") {
		t.Errorf("got %+v", res)
	}
	if f.pid() != pid {
		t.Error("the process was replaced")
	}
}

func TestATaskThatIgnoresItsCancelTakesItsProcessWithIt(t *testing.T) {
	f := start(t, agent(steered), nil)
	f.awaitSlots(16)
	trace := filepath.Join(t.TempDir(), "trace")
	neighbor := attempt(`{"seconds":1.2}`, time.Minute, false)
	f.run(neighbor)
	pid := f.pid()
	stuck := attempt(`{"stubborn":true,"children":"`+trace+`"}`, time.Minute, false)
	stuck.Attempt = worker.NewAttempt(stuck.Record, 1, time.Minute, false, func(r worker.Result) {
		if alive(pid) {
			t.Error("the attempt was finished while its process ran")
		}
		stuck.result <- r
	})
	f.run(stuck)
	awaitFile(t, trace, 1)
	f.pool.Interrupt(stuck.Attempt)
	if res := stuck.wait(t); !res.CutShort {
		t.Errorf("got %+v", res)
	}
	// A child that goes on writing would be work that goes on in the background.
	before, err := os.Stat(trace)
	if err != nil {
		t.Fatal(err)
	}
	value(t, neighbor.wait(t)) // it had the grace, and ended within it
	f.awaitChange("n-2 RUNNING")
	f.pid()
	if after, err := os.Stat(trace); err != nil || after.Size() != before.Size() {
		t.Errorf("a child of the ended process still writes: %v", err)
	}
}

func TestACancelEndsTheProcessOfAProgramThatKnowsNone(t *testing.T) {
	f := start(t, agent(func(a *spec.Agent) {
		a.Runtime, a.Command, a.Callback = spec.Command, []string{"python3", "base.py"}, ""
		a.Process.GracefulTimeoutSec = 60 // it isn't asked, so it isn't waited for
	}), nil)
	f.awaitSlots(16)
	begun := filepath.Join(t.TempDir(), "begun")
	stuck := attempt(`{"touch":"`+begun+`"}`, time.Minute, false)
	f.run(stuck)
	awaitFile(t, begun, 0)
	f.pool.Interrupt(stuck.Attempt)
	if res := stuck.wait(t); !res.CutShort {
		t.Errorf("got %+v", res)
	}
}

func TestSignsOfProgressKeepAnAttemptWithoutAnotherLimit(t *testing.T) {
	f := start(t, agent(steered), nil)
	f.awaitSlots(16)
	const idle = 400 * time.Millisecond
	busy := attempt(`{"steps":12}`, idle, false)
	busy.Idle = true
	f.run(busy)
	value(t, busy.wait(t))
	limited := attempt(`{"steps":12}`, idle, false) // whose time is limited anyway
	silent := attempt(`{"seconds":60}`, idle, false)
	silent.Idle = true
	f.run(limited, silent)
	if res := limited.wait(t); res.Outcome != task.TimedOut || !strings.Contains(res.Message, "longer than its timeout") {
		t.Errorf("got %+v", res)
	}
	if res := silent.wait(t); res.Outcome != task.TimedOut || res.Class != task.ClassTimeout || !strings.Contains(res.Message, "sign of progress") {
		t.Errorf("got %+v", res)
	}
}

func TestWhatAPythonAgentPublishesGoesWithItsResult(t *testing.T) {
	f := start(t, agent(steered), nil)
	f.awaitSlots(16)
	a := attempt(`{"publish":["news","more"]}`, time.Minute, false)
	f.run(a)
	res := a.wait(t)
	value(t, res)
	if len(res.Publish) != 2 || res.Publish[0].Topic != "news" || string(res.Publish[0].Key) != "k" || !strings.Contains(string(res.Publish[0].Value), `"content":{"n":1}`) ||
		!strings.Contains(string(res.Publish[0].Value), `"source":"t/a"`) {
		t.Errorf("published %+v", res.Publish)
	}
	reserved := attempt(`{"publish":["reeve.control"]}`, time.Minute, false)
	f.run(reserved)
	if res := reserved.wait(t); res.Outcome != task.Failed || res.Class != task.ClassPermanent || len(res.Publish) != 0 || !strings.Contains(res.Message, "one of Reeve's own") {
		t.Errorf("got %+v", res)
	}
}
