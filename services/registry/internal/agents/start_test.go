package agents

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

// ends is a Kafka whose topics grow by one event with each look.
func ends(s *Store) *int64 {
	end := new(int64)
	s.rules.Start = func(context.Context, *spec.Agent) (*spec.StartAt, error) {
		*end++
		return &spec.StartAt{TopicID: "id", Offsets: map[int32]int64{0: *end}}, nil
	}
	return end
}

const latest = `{"topic":"t","name":"n","command":"x","start":"latest"}`

func TestWhereAnAgentStartsIsDecidedOnce(t *testing.T) {
	again := `{"topic":"t","name":"n","command":"y","start":"latest"}`
	for name, c := range map[string]struct {
		do   func(t *testing.T, s *Store)
		want int64 // 0: at the topic's beginning
	}{
		"at the first registration": {func(t *testing.T, s *Store) { must(t, s, latest) }, 1},
		"not at a later one":        {func(t *testing.T, s *Store) { must(t, s, latest); must(t, s, again) }, 1},
		"not once it has begun":     {func(t *testing.T, s *Store) { must(t, s, entry); must(t, s, latest) }, 0},
		"earliest needs no look":    {func(t *testing.T, s *Store) { must(t, s, `{"topic":"t","name":"n","command":"x","start":"earliest"}`) }, 0},
		"after a pause it goes on": {func(t *testing.T, s *Store) {
			must(t, s, latest)
			if _, _, err := s.Unsubscribe(t.Context(), "t", "n", false, 0, Actor{}); err != nil {
				t.Fatal(err)
			}
			must(t, s, again)
		}, 1},
		"after a simple deletion its group is still there": {func(t *testing.T, s *Store) {
			must(t, s, latest)
			remove(t, s, DeleteOptions{})
			must(t, s, latest)
		}, 1},
		"after a complete deletion it begins anew": {func(t *testing.T, s *Store) {
			must(t, s, latest)
			remove(t, s, DeleteOptions{Group: true})
			must(t, s, latest)
		}, 2},
		"one that was only stored starts when it is initialized": {func(t *testing.T, s *Store) {
			must(t, s, `{"topic":"t","name":"n","command":"x","start":"latest","activate":false}`)
			s.rules.Start = func(context.Context, *spec.Agent) (*spec.StartAt, error) {
				return &spec.StartAt{Offsets: map[int32]int64{0: 77}}, nil
			}
			if _, _, err := s.Initialize(t.Context(), "t", "n", 0, Actor{}); err != nil {
				t.Fatal(err)
			}
		}, 77},
		"a dry run looks and decides nothing": {func(t *testing.T, s *Store) {
			if _, err := apply(t, s, ApplyOptions{DryRun: true}, latest); err != nil {
				t.Fatal(err)
			}
			must(t, s, latest)
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := store(t)
			ends(s)
			c.do(t, s)
			row, err := s.Get(t.Context(), "t", "n")
			if err != nil {
				t.Fatal(err)
			}
			got := int64(0)
			if row.StartAt != nil {
				got = row.StartAt.Offsets[0]
			}
			if got != c.want {
				t.Errorf("it starts at %d, not at %d", got, c.want)
			}
		})
	}
}

// What an entry asks of the start after the agent has begun has no effect: it says so, whether it is a dry run or not, and the
// record goes on saying what counted.
func TestAStartThatHasNoEffectIsToldOf(t *testing.T) {
	with := func(start string) string {
		if start != "" {
			start = `,"start":"` + start + `"`
		}
		return `{"topic":"t","name":"n","command":"x"` + start + `}`
	}
	for _, c := range []struct {
		name         string
		first, later string
		between      func(t *testing.T, s *Store)
		warned       bool
		action       Action
		want         string
	}{
		{name: "another", first: "earliest", later: "latest", warned: true, action: Unchanged, want: "earliest"},
		{name: "another than the default", later: "latest", warned: true, action: Unchanged},
		{name: "back to the beginning", first: "latest", later: "earliest", warned: true, action: Unchanged, want: "latest"},
		{name: "the same", first: "latest", later: "latest", action: Unchanged, want: "latest"},
		{name: "the default, said", later: "earliest", action: Unchanged},
		{name: "none", first: "latest", action: Unchanged, want: "latest"},
		{name: "after a simple deletion", first: "latest", later: "earliest", between: func(t *testing.T, s *Store) { remove(t, s, DeleteOptions{}) }, warned: true, action: Created, want: "latest"},
		{name: "after a complete deletion", first: "latest", later: "earliest", between: func(t *testing.T, s *Store) { remove(t, s, DeleteOptions{Group: true}) }, action: Created, want: "earliest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := store(t)
			ends(s)
			must(t, s, with(c.first))
			if c.between != nil {
				c.between(t, s)
			}
			for _, dry := range []bool{true, false} {
				changes, err := apply(t, s, ApplyOptions{DryRun: dry}, with(c.later))
				if err != nil {
					t.Fatal(err)
				}
				ch := changes[0]
				if ch.Action != c.action || (len(ch.Warnings) > 0) != c.warned || ch.After.Start != c.want || len(ch.Fields) > 0 {
					t.Errorf("dry run %t: %s, start %q, fields %v, warnings %q", dry, ch.Action, ch.After.Start, ch.Fields, ch.Warnings)
				}
			}
		})
	}
	s, _ := store(t)
	must(t, s, `{"topic":"t","name":"n","command":"x","activate":false}`)
	changes, err := apply(t, s, ApplyOptions{}, `{"topic":"t","name":"n","command":"x","start":"latest","activate":false}`)
	if err != nil || len(changes[0].Warnings) > 0 || changes[0].After.Start != "latest" {
		t.Errorf("before it is initialized: %+v, %v", changes, err)
	}
}

func must(t *testing.T, s *Store, entry string) {
	t.Helper()
	if _, err := apply(t, s, ApplyOptions{}, entry); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, s *Store, o DeleteOptions) {
	t.Helper()
	if _, err := s.Delete(t.Context(), "t", "n", o, 0, Actor{}); err != nil {
		t.Fatal(err)
	}
}

func TestAStartThatCantBeFoundChangesNothing(t *testing.T) {
	s, db := store(t)
	s.rules.Start = func(context.Context, *spec.Agent) (*spec.StartAt, error) { return nil, errors.New("no broker") }
	var start *StartError
	if _, err := apply(t, s, ApplyOptions{}, latest); !errors.As(err, &start) || start.Ref != "t/n" {
		t.Errorf("%v", err)
	}
	var invalid *Invalid
	future := `{"topic":"t","name":"n","command":"x","start":"` + time.Now().Add(time.Hour).Format(time.RFC3339) + `"}`
	if _, err := apply(t, s, ApplyOptions{}, future); !errors.As(err, &invalid) || invalid.Faults[0].Field != "start" {
		t.Errorf("a time that hasn't come: %v", err)
	}
	if n := count(t, db, `SELECT (SELECT count(*) FROM agents) + (SELECT count(*) FROM outbox)`); n != 0 {
		t.Errorf("%d rows", n)
	}
	must(t, s, entry) // which needs no look
}

func TestAFilterIsCompiledBeforeAnythingChanges(t *testing.T) {
	s, db := store(t)
	for _, filter := range []string{`data.a = 1`, `data.flag`, `datum == 1`} {
		var invalid *Invalid
		_, err := apply(t, s, ApplyOptions{List: true}, entry, `{"topic":"t","name":"m","command":"x","filter":"`+filter+`"}`)
		if !errors.As(err, &invalid) || len(invalid.Faults) != 1 || invalid.Faults[0].Field != "agents[1].filter" {
			t.Errorf("%s: %v", filter, err)
		}
	}
	if n := count(t, db, `SELECT count(*) FROM agents`); n != 0 {
		t.Errorf("%d agents", n)
	}
	must(t, s, `{"topic":"t","name":"m","command":"x","filter":"data.a == 1"}`)
}
