package redrive

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/spec"
)

// The agent may go between the choice of a batch and its transaction. The flawed way settles the dead letters all the same,
// and makes no task of them.
func TestDeadLettersOfAnAgentThatIsGoneStay(t *testing.T) {
	cfg := &Config{Agent: func(string) *spec.Agent { return nil }}
	r := &run{desk: &desk{cfg: cfg, to: &agent{cfg: cfg}}, order: command.Command{Verb: command.Redrive}}
	l := &letter{record: &kgo.Record{}}
	if err := r.move(t.Context(), []*letter{l}); err != nil || len(r.held) != 1 || r.held[0] != l || r.moved != 0 {
		t.Errorf("%v: %d are held, %d have moved", err, len(r.held), r.moved)
	}
}
