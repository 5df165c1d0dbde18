package agents

import (
	"errors"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

func wanted(t *testing.T, entry string) Wanted {
	t.Helper()
	a, faults := spec.ParseEntry([]byte(entry))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return Wanted{Spec: a, HasPartitions: gives([]byte(entry), "partitions")}
}

const entry = `{"topic":"t","name":"n","command":"x"}`

const dormant = `{"topic":"t","name":"n","command":"x","activate":false}`

func stored(t *testing.T, change func(a *spec.Agent)) *spec.Agent {
	t.Helper()
	c, err := register(nil, wanted(t, entry), func() string { return "id-1" }, time.Unix(1, 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(c.After)
	}
	return c.After
}

func TestRegister(t *testing.T) {
	for name, c := range map[string]struct {
		before     *spec.Agent
		entry      string
		action     Action
		phase      spec.Phase
		generation int64
		held       bool
	}{
		"a new agent is made active":                 {nil, entry, Created, spec.Active, 1, false},
		"the same again changes nothing":             {stored(t, nil), entry, Unchanged, spec.Active, 1, false},
		"a changed one is updated":                   {stored(t, nil), `{"topic":"t","name":"n","command":"y"}`, Updated, spec.Active, 2, false},
		"a paused one is resumed":                    {stored(t, func(a *spec.Agent) { a.Phase = spec.Paused }), entry, Resumed, spec.Active, 2, false},
		"a held one stays paused":                    {stored(t, func(a *spec.Agent) { a.Phase, a.Hold = spec.Paused, true }), entry, Unchanged, spec.Paused, 1, true},
		"a held one takes a change and stays paused": {stored(t, func(a *spec.Agent) { a.Phase, a.Hold = spec.Paused, true }), `{"topic":"t","name":"n","command":"y"}`, Updated, spec.Paused, 2, true},
		"one that is registered only stays created":  {nil, dormant, Created, spec.Created, 1, false},
		"and again":                                    {stored(t, func(a *spec.Agent) { a.Phase = spec.Created }), dormant, Unchanged, spec.Created, 1, false},
		"one that runs is not stopped by it":           {stored(t, nil), dormant, Unchanged, spec.Active, 1, false},
		"a paused one stays paused by it":              {stored(t, func(a *spec.Agent) { a.Phase = spec.Paused }), dormant, Unchanged, spec.Paused, 1, false},
		"a stopped one is started":                     {stored(t, func(a *spec.Agent) { a.Phase = spec.Initialized }), entry, Resumed, spec.Active, 2, false},
		"a created one is started":                     {stored(t, func(a *spec.Agent) { a.Phase = spec.Created }), entry, Resumed, spec.Active, 2, false},
		"one in error is tried again":                  {stored(t, func(a *spec.Agent) { a.Phase, a.Cause = spec.Error, &spec.Cause{} }), entry, Resumed, spec.Active, 2, false},
		"a deleted one begins anew, with a later life": {stored(t, func(a *spec.Agent) { a.Phase, a.Generation = spec.Terminated, 7 }), entry, Created, spec.Active, 8, false},
	} {
		got, err := register(c.before, wanted(t, c.entry), func() string { return "id-2" }, time.Unix(2, 0).UTC())
		if err != nil || got.Action != c.action || got.After.Phase != c.phase || got.After.Generation != c.generation || got.Held != c.held {
			t.Errorf("%s: got %+v (%v), %v", name, got, got.After, err)
		}
		if c.phase == spec.Active && got.After.Cause != nil {
			t.Errorf("%s: the cause stays", name)
		}
	}
}

func TestRegisterNeverChangesPartitions(t *testing.T) {
	four := stored(t, func(a *spec.Agent) { a.Partitions = 4 })
	gone := stored(t, func(a *spec.Agent) { a.Partitions, a.Phase = 4, spec.Terminated })
	cleaned := stored(t, func(a *spec.Agent) { a.Partitions, a.Phase, a.CleanUp = 4, spec.Terminated, true })
	for name, c := range map[string]struct {
		before *spec.Agent
		entry  string
		want   int32 // 0: refused
	}{
		"left out, they stay":                       {four, entry, 4},
		"another number is refused":                 {four, `{"topic":"t","name":"n","command":"x","partitions":5}`, 0},
		"the task topic of a deleted agent is kept": {gone, entry, 4},
		"and holds its number":                      {gone, `{"topic":"t","name":"n","command":"x","partitions":5}`, 0},
		"after a clean-up any number will do":       {cleaned, `{"topic":"t","name":"n","command":"x","partitions":5}`, 5},
	} {
		got, err := register(c.before, wanted(t, c.entry), func() string { return "" }, time.Unix(2, 0))
		var conflict *Conflict
		if c.want == 0 {
			if !errors.As(err, &conflict) {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || got.After.Partitions != c.want {
			t.Errorf("%s: %v, %v", name, got.After, err)
		}
	}
}

func TestUpdateNamesTheFieldsThatDiffer(t *testing.T) {
	c, err := register(stored(t, nil), wanted(t, `{"topic":"t","name":"n","command":"x","config":{"max_retries":1},"env":{"A":"b"}}`), nil, time.Unix(2, 0))
	if err != nil || len(c.Fields) != 2 {
		t.Fatalf("%+v, %v", c.Fields, err)
	}
	if f := c.Fields[0]; f.Field != "config.max_retries" || string(f.Old) != "3" || string(f.New) != "1" {
		t.Errorf("%+v", f)
	}
	if f := c.Fields[1]; f.Field != "env.A" && f.Field != "env" || f.Old != nil {
		t.Errorf("%+v", f)
	}
}

func TestPauseTwiceChangesNothingButTakesAHold(t *testing.T) {
	now := time.Unix(2, 0)
	paused, changed, err := pause(stored(t, nil), false, now)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	if _, changed, _ = pause(paused, false, now); changed {
		t.Error("the second pause changed something")
	}
	held, changed, _ := pause(paused, true, now)
	if !changed || !held.Hold {
		t.Error("the hold was not taken")
	}
	if resumed, changed, _ := resume(held, now); !changed || resumed.Hold || resumed.Phase != spec.Active {
		t.Errorf("%+v", resumed)
	}
}

func TestARestartReplacesTheProcessesAndMendsAnError(t *testing.T) {
	now := time.Unix(2, 0)
	broken := stored(t, func(a *spec.Agent) { a.Phase, a.Cause, a.RestartNonce = spec.Error, &spec.Cause{Type: "X"}, 3 })
	after, changed, err := restart(broken, now)
	if err != nil || !changed || after.RestartNonce != 4 || after.Phase != spec.Active || after.Cause != nil || after.Generation != broken.Generation+1 {
		t.Errorf("%+v, %t, %v", after, changed, err)
	}
	var illegal *IllegalMove
	if _, _, err := restart(stored(t, func(a *spec.Agent) { a.Phase = spec.Paused }), now); !errors.As(err, &illegal) {
		t.Errorf("a paused agent: %v", err)
	}
	var conflict *Conflict
	if _, _, err := restart(stored(t, func(a *spec.Agent) { a.Runtime = spec.SDK }), now); !errors.As(err, &conflict) || conflict.Code != "not_supervised" {
		t.Errorf("an agent of an SDK: %v", err)
	}
}

func TestAReportOfAnOldGenerationFailsNothing(t *testing.T) {
	a := stored(t, func(a *spec.Agent) { a.Generation = 3 })
	if _, changed := fail(a, 2, spec.Cause{}, time.Unix(2, 0)); changed {
		t.Error("an old report moved the agent")
	}
	if after, changed := fail(a, 3, spec.Cause{Type: "X"}, time.Unix(2, 0)); !changed || after.Phase != spec.Error || after.Cause.Type != "X" {
		t.Error("the report did not move the agent")
	}
}

func TestCollisionsOfDerivedNamesAreFound(t *testing.T) {
	rules := Rules{Tiers: []time.Duration{5 * time.Second}}
	for _, c := range []struct {
		topic, name string
		other       [2]string
		collides    bool
	}{
		{"a_b", "n", [2]string{"a--b", "n"}, true}, // task topics
		{"work.a", "n", [2]string{"a", "n"}, true}, // groups
		{"retry", "5s", [2]string{"x", "y"}, true}, // a tier's group
		{"a.b", "n", [2]string{"a", "n"}, false},
	} {
		if err := rules.collision(c.topic, c.name, [][2]string{c.other}); (err != nil) != c.collides {
			t.Errorf("%s/%s beside %v: %v", c.topic, c.name, c.other, err)
		}
	}
}
