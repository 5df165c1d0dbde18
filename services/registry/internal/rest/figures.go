package rest

import (
	"context"

	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/history"
)

// figures are what the numbers of an agent's open tasks are made of; nil says nothing of them.
type figures struct {
	history.Counters
	dispatched int64
}

// figures reads the figures of agents by topic/name: of one agent, of a topic's (name ""), or of all (topic ""). What was
// dispatched is read first: what finishes meanwhile can only make the open tasks too few.
func (s *Server) figures(ctx context.Context, topic, name string) (map[string]figures, error) {
	dispatched, err := s.Reports.Dispatched(ctx, topic, name)
	if err != nil {
		return nil, err
	}
	sums, err := s.History.Sums(ctx, topic, name)
	if err != nil {
		return nil, err
	}
	out := make(map[string]figures, len(sums))
	for ref, sum := range sums {
		out[ref] = figures{Counters: sum}
	}
	for ref, n := range dispatched {
		f := out[ref]
		f.dispatched = n.Tasks
		out[ref] = f
	}
	return out, nil
}

// open says how many tasks wait and how many run.
func (f *figures) open(live *fleet.Agent) (waiting, running int64) {
	if f == nil {
		return 0, 0
	}
	return live.Open(f.dispatched, f.Finished(), f.Between())
}
