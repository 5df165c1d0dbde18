package agents

import (
	"errors"
	"slices"
	"testing"

	"github.com/reeve-run/reeve/pkg/spec"
)

func TestMovesLeadWhereTheDrawingSays(t *testing.T) {
	for _, c := range []struct {
		phase spec.Phase
		verb  Verb
		to    spec.Phase // "" is illegal
	}{
		{spec.Active, Unsubscribe, spec.Paused},
		{spec.Paused, Unsubscribe, spec.Paused},
		{spec.Error, Unsubscribe, ""},
		{spec.Created, Unsubscribe, ""},
		{spec.Created, Initialize, spec.Initialized},
		{spec.Created, Start, ""},
		{spec.Created, Register, spec.Active},
		{spec.Created, Stop, spec.Created},
		{spec.Initialized, Initialize, ""},
		{spec.Initialized, Start, spec.Active},
		{spec.Initialized, Stop, spec.Initialized},
		{spec.Initialized, Reset, spec.Initialized},
		{spec.Active, Initialize, ""},
		{spec.Active, Start, spec.Active},
		{spec.Active, Stop, spec.Initialized},
		{spec.Paused, Start, ""},
		{spec.Paused, Stop, spec.Paused},
		{spec.Paused, Initialize, ""},
		{spec.Error, Initialize, spec.Initialized},
		{spec.Error, Start, ""},
		{spec.Error, Stop, spec.Error},
		{spec.Terminated, Start, ""},
		{spec.Terminated, Stop, ""},
		{spec.Initialized, Unsubscribe, ""},
		{spec.Paused, Resume, spec.Active},
		{spec.Active, Resume, spec.Active},
		{spec.Error, Resume, ""},
		{spec.Error, Reset, spec.Active},
		{spec.Active, Restart, spec.Active},
		{spec.Error, Restart, spec.Active},
		{spec.Paused, Reset, spec.Paused},
		{spec.Active, Fail, spec.Error},
		{spec.Paused, Fail, ""},
		{spec.Terminated, Fail, ""},
		{spec.Terminated, Register, spec.Active},
		{spec.Terminated, Delete, ""},
	} {
		to, err := next("t/n", c.phase, c.verb)
		if to != c.to || (err != nil) != (c.to == "") {
			t.Errorf("%s of %s: got %q, %v", c.verb, c.phase, to, err)
		}
	}
}

func TestDeleteIsLegalFromEveryPhaseButTerminated(t *testing.T) {
	for phase, verbs := range moves {
		if _, ok := verbs[Delete]; ok == (phase == spec.Terminated) {
			t.Errorf("%s: %v", phase, ok)
		}
	}
}

func TestAnIllegalMoveNamesTheLegalOnes(t *testing.T) {
	_, err := next("t/n", spec.Error, Resume)
	var illegal *IllegalMove
	if !errors.As(err, &illegal) || !slices.Equal(illegal.Legal, []Verb{Delete, Initialize, Register, Reset, Restart, Stop}) {
		t.Errorf("%v", err)
	}
}
