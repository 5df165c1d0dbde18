package instance

import (
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

func TestDecide(t *testing.T) {
	policy := func(p string) spec.Process {
		s := spec.NewProcess()
		s.RestartPolicy = p
		return s
	}
	const short, long = time.Second, healthySpell
	tests := []struct {
		name     string
		policy   string
		end      End
		ran      time.Duration
		restarts int
		jitter   float64
		act      Action
		delay    time.Duration
		count    int
	}{
		{"a stop that was asked for", spec.RestartImmediate, EndAsked, short, 2, 0, ActStop, 0, 2},
		{"a first crash waits the base", spec.RestartDelayed, EndCrashed, short, 0, 0, ActRestart, 5 * time.Second, 1},
		{"the second twice that", spec.RestartDelayed, EndCrashed, short, 1, 0, ActRestart, 10 * time.Second, 2},
		{"the third four times", spec.RestartDelayed, EndCrashed, short, 2, 0, ActRestart, 20 * time.Second, 3},
		{"jitter only adds", spec.RestartDelayed, EndCrashed, short, 0, 0.5, ActRestart, 5250 * time.Millisecond, 1},
		{"one too many opens the circuit", spec.RestartDelayed, EndCrashed, short, 3, 0, ActOpen, 0, 3},
		{"also where restarts are immediate", spec.RestartImmediate, EndCrashed, short, 3, 0, ActOpen, 0, 3},
		{"a healthy spell forgets", spec.RestartDelayed, EndCrashed, long, 3, 0, ActRestart, 5 * time.Second, 1},
		{"immediate is a second", spec.RestartImmediate, EndCrashed, short, 0, 0, ActRestart, time.Second, 1},
		{"a culprit's crash counts for its task", spec.RestartDelayed, EndCulprit, short, 0, 0, ActRestart, 0, 0},
		{"and so does the one before, when others ran beside it", spec.RestartDelayed, EndCulprit, short, 3, 0, ActRestart, 0, 2},
		{"exit 0 is no crash", spec.RestartDelayed, EndDone, short, 3, 0, ActRestart, time.Second, 3},
		{"manual asks", spec.RestartManual, EndCrashed, short, 0, 0, ActAsk, 0, 0},
		{"also for a culprit", spec.RestartManual, EndCulprit, short, 0, 0, ActAsk, 0, 0},
		{"never stays down", spec.RestartNever, EndDone, short, 0, 0, ActLeave, 0, 0},
		{"what can't start isn't tried again", spec.RestartImmediate, EndHopeless, short, 0, 0, ActOpen, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			act, delay, count := Decide(policy(tt.policy), tt.end, tt.ran, tt.restarts, tt.jitter)
			if act != tt.act || delay != tt.delay || count != tt.count {
				t.Errorf("got %v after %s, %d restarts", act, delay, count)
			}
		})
	}
}

func TestWhatFollowsWhenAnAttemptsTimeIsOver(t *testing.T) {
	now := time.Unix(1000, 0)
	const grace = 5 * time.Second
	tests := []struct {
		name  string
		call  call
		able  bool
		ask   bool
		stuck string
		after call
	}{
		{"one that can be asked is", call{}, true, true, "", call{timedOut: true, deadline: now.Add(grace)}},
		{"one that can't takes its process", call{}, false, false, tookTooLong, call{timedOut: true, forced: true}},
		{"and so does one that goes on", call{timedOut: true}, true, false, tookTooLong, call{timedOut: true, forced: true}},
		{"which is said once", call{timedOut: true, forced: true}, true, false, "", call{timedOut: true, forced: true}},
		{"somebody has asked before", call{interrupted: true}, true, false, wontBeEnded, call{interrupted: true, cancelled: true}},
		{"also while it had its grace", call{interrupted: true, timedOut: true}, true, false, wontBeEnded, call{interrupted: true, timedOut: true, cancelled: true}},
		{"which is said once, too", call{interrupted: true, cancelled: true}, true, false, "", call{interrupted: true, cancelled: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.call
			ask, stuck := c.expire(now, tt.able, grace)
			if ask != tt.ask || stuck != tt.stuck || c.timedOut != tt.after.timedOut || c.forced != tt.after.forced || c.cancelled != tt.after.cancelled || !c.deadline.Equal(tt.after.deadline) {
				t.Errorf("ask %t, stuck %q, %+v", ask, stuck, c)
			}
		})
	}
	c := call{}
	if c.expire(now, true, 1<<63-1); !c.deadline.Equal(now.Add(forever)) {
		t.Errorf("an infinite grace ends at %s", c.deadline)
	}
}

func TestBackoffHasACap(t *testing.T) {
	p := spec.NewProcess()
	for n := range 200 {
		if d := backoff(p, n, 0.999); d > 66*time.Second || d < 5*time.Second {
			t.Fatalf("%s after %d restarts", d, n)
		}
	}
}

func TestTheStatesThatMayFollow(t *testing.T) {
	all := []State{Idle, Starting, Running, Stopping, Stopped, Crashed, Restarting}
	legal := map[[2]State]bool{
		{Idle, Starting}: true, {Idle, Stopped}: true, {Starting, Running}: true, {Starting, Stopping}: true, {Starting, Crashed}: true,
		{Running, Stopping}: true, {Running, Crashed}: true, {Stopping, Stopped}: true, {Stopped, Starting}: true,
		{Crashed, Restarting}: true, {Crashed, Stopping}: true, {Restarting, Starting}: true, {Restarting, Stopping}: true,
	}
	for _, from := range all {
		for _, to := range all {
			if from.May(to) != legal[[2]State{from, to}] {
				t.Errorf("%s to %s: %t", from, to, from.May(to))
			}
		}
	}
}

func TestMissedPongs(t *testing.T) {
	sent := time.Unix(1000, 0)
	h := heartbeat{sent: sent}
	h.overdue(sent.Add(-time.Second))
	h.overdue(sent.Add(-time.Second))
	if h.health(0) != Healthy {
		t.Error("two misses are forgiven")
	}
	h.overdue(sent.Add(-time.Second))
	if h.health(0) != Unresponsive || h.health(1) != Stalled {
		t.Error("three misses: idle is unresponsive, busy is stalled")
	}
	h.overdue(sent.Add(time.Second))
	if h.health(1) != Healthy {
		t.Error("an answer to something else is life, too")
	}
}

func TestTheLogIsBoundedAndItsPublishingLimited(t *testing.T) {
	var l Log
	now := time.Unix(0, 0)
	published, held := 0, 0
	for range 5000 {
		ok, h := l.add("a line of some length", now)
		if ok {
			published++
		}
		held += h
	}
	if published != publishedBurst || len(l.Tail(1<<20)) > logLines {
		t.Errorf("%d published at once, %d kept", published, len(l.Tail(1<<20)))
	}
	if ok, h := l.add("later", now.Add(time.Second)); !ok || h != 5000-publishedBurst {
		t.Errorf("published %t, %d held back", ok, h)
	}
	if tail := l.Tail(2); len(tail) != 2 || tail[1] != "later" {
		t.Errorf("the tail is %q", tail)
	}
}
