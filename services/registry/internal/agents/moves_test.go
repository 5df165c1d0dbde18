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
	if !errors.As(err, &illegal) || !slices.Equal(illegal.Legal, []Verb{Delete, Register, Reset, Restart}) {
		t.Errorf("%v", err)
	}
}
