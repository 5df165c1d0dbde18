package worker

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/task"
)

// script drives the rule: each letter is a result, 10 ms after the one before. d, n, i: a failed dependency, network, an
// internal error; j: another internal error; s: the same task's dependency fails again; a dot: a success. Capitals are those
// of a probe, ! one that succeeds. A space passes a second, m an hour, _ lets the rule look.
func script(o *outage, text string) (now time.Time) {
	now = time.UnixMilli(1_700_000_000_000)
	id := uint64(0)
	for _, c := range text {
		now = now.Add(10 * time.Millisecond)
		id++
		var f failure
		switch c {
		case 'd', 'D':
			f = failure{1, task.ClassDependency, "d"}
		case 'n', 'N':
			f = failure{2, task.ClassNetwork, "n"}
		case 'i', 'I':
			f = failure{3, task.ClassInternal, "i"}
		case 'j':
			f = failure{4, task.ClassInternal, "j"}
		case 's': // the same task fails again
			id--
			f = failure{1, task.ClassDependency, "d"}
		case ' ':
			now = now.Add(time.Second)
			continue
		case 'm':
			now = now.Add(time.Hour)
			continue
		case 'h': // a final failure waits
			o.held++
			continue
		case '_':
			o.look(now)
			continue
		}
		probe := c >= 'A' && c <= 'Z' || c == '!'
		if probe {
			o.started(now)
			o.probing--
		}
		o.observe(now, result{failure: f, task: id, began: now, first: now, probe: probe})
	}
	return now
}

func TestTheOutageRule(t *testing.T) {
	const nineteen = "iiiiiiiiiiiiiiiiiii"
	for _, c := range []struct {
		name, script string
		stage        stage
		believed     bool
		spells       int
	}{
		{"nothing fails", "......", calm, false, 0},
		{"four dependencies in a row", "....dddd", calm, false, 0},
		{"five in a row are checked at once", "....ddddd", checking, false, 0},
		{"one task over and over is that task", "dsssssssssssssss", calm, false, 0},
		{"others succeed in between", "dd.dd.dd.dd.dd.dd.dd.dd.dd.dd.dd", calm, false, 0},
		{"another class takes more", "iiiiiiiiiiiiiiiiiii", calm, false, 0},
		{"and longer than a moment", nineteen + "iiiiiiiiiii", calm, false, 0},
		{"nineteen of twenty, for two seconds", "." + nineteen + "  i", checking, false, 0},
		{"eighteen of twenty are not enough", "i.i." + "iiiiiiiiiiiiiiii" + "  ", calm, false, 0},
		{"a success begins it anew", nineteen + "  ..i", calm, false, 0},
		{"unlike errors are none", "ijijijijijijijijijijij  i", calm, false, 0},
		{"few, but slowly", "i i i i i i i i i i i i i i i i i i i i", checking, false, 0},
		{"two probes fail", "dddddDD", checking, false, 0},
		{"three probes fail: believed", "dddddDDD", out, true, 1},
		{"what began before says nothing", "dddddddddd......dddd", checking, false, 0},
		{"a probe succeeds: it may be that event", "dddddDD!", recovering, false, 0},
		{"it was those events", "dddddDD!!!!!!!!", calm, false, 0},
		{"the outage may be over", "dddddDDD!", recovering, true, 1},
		{"it is over", "dddddDDD!!!!!!!!", calm, false, 1},
		{"it isn't", "dddddDDD!DDDD", out, true, 1},
		{"a poison among those who succeed", "dddddDDD!D!!!D!!!!", calm, false, 1},
		{"as many fail as succeed", "dddddDDD!D!D!D!D", recovering, true, 1},
		{"and so it's those events", "dddddDDD!D!D!D!D!D!D!D!D", calm, false, 1},
		{"nothing is left to try, and most succeeded", "dddddDDD!! _", calm, false, 1},
		{"nothing is left to try, and as many failed", "dddddDDD!D _", out, true, 1},
		{"nothing is there to try yet", "ddddd   _", checking, false, 0},
		{"nothing is there to try, and a final failure waits", "dddddh _", checking, false, 0},
		{"it is tried again", "dddddh   _", checking, false, 0},
		{"nothing is there to try in an outage", "dddddDDD _", out, true, 1},
		{"the next outage", "dddddDDD!!!!!!!!dddddDDD", out, true, 2},
		{"a probe that fails otherwise fails", "dddddDIN", out, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o outage
			script(&o, c.script)
			if o.stage != c.stage || o.believed != c.believed || len(o.spells) != c.spells {
				t.Errorf("stage %d, believed %t, %d outages; want %d, %t, %d", o.stage, o.believed, len(o.spells), c.stage, c.believed, c.spells)
			}
		})
	}
}

// An outage begins with the first failure of the row, and what burnt before is not given back.
func TestAnOutageBeginsWithItsFirstFailure(t *testing.T) {
	var o outage
	now := script(&o, ".d.dddddddDDD")
	first := time.UnixMilli(1_700_000_000_000 + 40)
	if got := time.UnixMilli(o.spells[0].Since); !got.Equal(first) {
		t.Errorf("since %v, want %v", got, first)
	}
	at := func(d time.Duration) int64 { return first.Add(d).UnixMilli() }
	a := account{burnt: 3, burntAt: []int64{at(-20 * time.Millisecond), at(0), at(time.Second)}}
	a.giveBack(&o)
	if a.burnt != 1 || len(a.burntAt) != 1 || a.outages != 1 {
		t.Errorf("%+v", a)
	}
	for range 8 {
		o.started(now)
		o.probing--
		o.observe(now, result{task: 99, began: now, probe: true})
	}
	after := now.Add(time.Minute).UnixMilli()
	if _, spared := o.spares(after, after); spared {
		t.Error("the outage is over, and it spares")
	}
	if _, spared := o.spares(now.UnixMilli(), after); !spared {
		t.Error("what began in the outage is its")
	}
}

// One probe at a time, rarer as the outage lasts, never rarer than every half a minute; a change makes the next one due.
func TestProbesGetRarer(t *testing.T) {
	var o outage
	now := script(&o, "ddddd")
	began := now
	var pauses []time.Duration
	for now.Sub(began) < time.Hour {
		if o.allow(16, now) != 1 {
			t.Fatal("no probe where one is due")
		}
		o.started(now)
		if o.allow(16, now) != 0 {
			t.Fatal("two probes at a time")
		}
		o.probing--
		o.observe(now, result{failure: failure{1, task.ClassDependency, "d"}, task: uint64(now.UnixNano()), began: now, first: now, probe: true})
		if o.stage == out {
			if now.Before(o.next) && o.allow(16, o.next.Add(-1)) != 0 {
				t.Fatal("a probe before its time")
			}
			pauses = append(pauses, o.next.Sub(now))
			now = o.next
		}
	}
	if pauses[0] != probeMin || pauses[len(pauses)-1] != probeMax {
		t.Errorf("from %v to %v", pauses[0], pauses[len(pauses)-1])
	}
	for i, p := range pauses {
		if p < probeMin || p > probeMax || i > 0 && p < pauses[i-1] {
			t.Errorf("pause %d is %v", i, p)
		}
	}
	o.hurry(now)
	if o.allow(16, now) != 1 || o.pause(now) != probeMin {
		t.Error("a changed agent isn't tried at once")
	}
}

// A task is spared in so many outages and no more.
func TestATaskIsntSparedForEver(t *testing.T) {
	var o outage
	a := account{}
	for n := range int64(30) {
		at := 1000 * (n + 1)
		o.spells = []offsets.Outage{{Since: at, Until: at + 10}}
		a.burnt, a.burntAt = a.burnt+1, append(a.burntAt, at+5)
		a.giveBack(&o)
		a.giveBack(&o)
	}
	if a.outages != maxSpared || a.burnt != 30-maxSpared {
		t.Errorf("%+v", a)
	}
}

// Whatever comes: while nothing has failed for long nothing is held back; probes are bounded; believed outages are apart
// and in order; and once all succeed, it is calm again within few results.
func TestTheOutageRuleHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o outage
		now := time.UnixMilli(1_700_000_000_000)
		var flying []bool
		n := rapid.IntRange(1, 400).Draw(t, "steps")
		result := func(i int, f failure) {
			probe := flying[i]
			flying = append(flying[:i], flying[i+1:]...)
			if probe {
				o.probing--
			}
			o.observe(now, result{failure: f, task: uint64(rapid.IntRange(0, 60).Draw(t, "task")), began: now, first: now, probe: probe})
		}
		start := func() bool {
			if o.allow(1, now) == 0 {
				return false
			}
			if o.stage != calm {
				o.started(now)
			}
			flying = append(flying, o.stage != calm)
			return true
		}
		for range n {
			now = now.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond)
			o.look(now)
			if len(flying) < 16 {
				start()
			}
			if len(flying) > 0 && rapid.Bool().Draw(t, "ends") {
				kind := rapid.IntRange(0, 3).Draw(t, "kind")
				f := []failure{{}, {1, task.ClassDependency, ""}, {2, task.ClassNetwork, ""}, {3, task.ClassInternal, ""}}[kind]
				result(rapid.IntRange(0, len(flying)-1).Draw(t, "which"), f)
			}
			if (o.stage == checking || o.stage == out) && o.allow(16, now) > 1 {
				t.Fatal("more than one probe at a time")
			}
			if o.believed != (len(o.spells) > 0 && o.spells[len(o.spells)-1].Until == 0) || len(o.spells) > offsets.MaxOutages {
				t.Fatalf("believed %t, outages %v", o.believed, o.spells)
			}
			for i, s := range o.spells[:max(len(o.spells)-1, 0)] {
				if s.Until < s.Since || s.Until > o.spells[i+1].Since {
					t.Fatalf("outages %v", o.spells)
				}
			}
		}
		for range 100 {
			for len(flying) > 0 {
				result(0, failure{})
			}
			if o.stage == calm {
				break
			}
			if now = now.Add(probeMax); o.allow(1, now) == 0 {
				t.Fatal("no probe although one is long due")
			}
			start()
		}
		if o.stage != calm {
			t.Fatal("all succeed, and it doesn't go on")
		}
	})
}

func TestWhatFailsAlike(t *testing.T) {
	fail := func(c task.Class, message string) failure {
		return failureOf(Result{Outcome: task.Failed, Class: c, Message: message})
	}
	for _, c := range []struct {
		name string
		a, b failure
		same bool
	}{
		{"a dependency, whatever it says", fail(task.ClassDependency, "no route"), fail(task.ClassDependency, "refused"), true},
		{"internal errors that differ in numbers", fail(task.ClassInternal, "order 12"), fail("", "order 4711"), true},
		{"internal errors that differ", fail(task.ClassInternal, "KeyError"), fail(task.ClassInternal, "ValueError"), false},
		{"network and dependency", fail(task.ClassNetwork, "x"), fail(task.ClassDependency, "x"), false},
	} {
		if (c.a.kind == c.b.kind) != c.same || c.a.kind == 0 || c.b.kind == 0 {
			t.Errorf("%s: %v", c.name, c.a.kind == c.b.kind)
		}
	}
	for _, c := range []task.Class{task.ClassPermanent, task.ClassInvalidInput, task.ClassRateLimited, task.ClassResource, task.ClassResultTooLarge, task.ClassIncompatibleTask} {
		if fail(c, "x").kind != 0 {
			t.Errorf("%s counts as an outage's", c)
		}
	}
	if failureOf(Result{Outcome: task.Completed}).kind != 0 {
		t.Error("a success is a failure")
	}
}

// A new owner knows the outages of the last one. It checks at once whether one that lasted goes on, unless it knows better.
func TestOutagesAreInherited(t *testing.T) {
	begin := time.UnixMilli(1_700_000_000_000)
	at := func(s int) int64 { return begin.Add(time.Duration(s) * time.Second).UnixMilli() }
	lasts := func(since int) offsets.Outage { return offsets.Outage{Since: at(since)} }
	over := func(since, until int) offsets.Outage { return offsets.Outage{Since: at(since), Until: at(until)} }
	fail := failure{1, task.ClassDependency, "d"}
	for _, c := range []struct {
		name     string
		informed bool
		known    [][]offsets.Outage // by partition
		probes   string             // as script has them, 100 s from the begin
		stage    stage
		want     []offsets.Outage
	}{
		{"none", false, [][]offsets.Outage{nil}, "", calm, nil},
		{"one that is over", false, [][]offsets.Outage{{over(1, 9)}}, "", calm, []offsets.Outage{over(1, 9)}},
		{"one that lasted is checked", false, [][]offsets.Outage{{lasts(50)}, {lasts(50)}}, "", checking, []offsets.Outage{over(50, 100)}},
		{"and goes on", false, [][]offsets.Outage{{over(1, 9), lasts(50)}}, "DDD", out, []offsets.Outage{over(1, 9), lasts(50)}},
		{"or doesn't", false, [][]offsets.Outage{{lasts(50)}}, "!!!!!!!!", calm, []offsets.Outage{over(50, 100)}},
		{"who has seen tasks end here doesn't doubt that", true, [][]offsets.Outage{{lasts(50)}}, "", calm, []offsets.Outage{over(50, 100)}},
		{"two workers' views of one outage are one", false, [][]offsets.Outage{{over(10, 30)}, {over(12, 31)}}, "", calm, []offsets.Outage{over(10, 31)}},
		{"a clock that is ahead", false, [][]offsets.Outage{{over(500, 600)}}, "", calm, []offsets.Outage{over(100, 100)}},
		{"the latest four", false, [][]offsets.Outage{{over(1, 2), over(3, 4), over(5, 6), over(7, 8)}, {over(20, 21)}}, "", calm,
			[]offsets.Outage{over(3, 4), over(5, 6), over(7, 8), over(20, 21)}},
	} {
		o := outage{informed: c.informed}
		now := begin.Add(100 * time.Second)
		for _, known := range c.known {
			o.inherit(now, known)
		}
		for i, r := range c.probes {
			o.started(now)
			o.probing--
			f := fail
			if r == '!' {
				f = failure{}
			}
			o.observe(now, result{failure: f, task: uint64(i), began: now, first: now, probe: true})
		}
		if o.stage != c.stage || !slices.Equal(o.spells, c.want) {
			t.Errorf("%s: stage %d, %v; want %d, %v", c.name, o.stage, o.spells, c.stage, c.want)
		}
	}
}
