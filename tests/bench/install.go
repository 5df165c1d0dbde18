package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/topics"
)

// agent is one that runs the sweep's program, which does what an event asks of it.
type agent struct {
	topic, name     string
	config, process map[string]any
}

// installation prepares an installation of the three services, none of which runs yet.
func (b *bench) installation(ctx context.Context) (*subject, error) {
	s, err := b.prepare(ctx, "reeve")
	if err != nil {
		return nil, err
	}
	// Made before the services come, so that the reader is there when the first outcome is.
	err = b.ensure(ctx, append(kafka.RetryTopics(s.sys.Names(), topics.DefaultTiers()), kafka.OutcomesTopic(s.sys.Names()))...)
	if err == nil {
		s.sys.Database, b.dropSchema, err = testenv.NewSchema(ctx, b.postgres.Address)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// begin starts the services, all agents in one supervisor.
func (b *bench) begin(ctx context.Context, s *subject, agents ...agent) error {
	log := filepath.Join(s.sys.Dir, "runs")
	dir := filepath.Join(s.sys.AgentsDir(), "worker")
	if err := errors.Join(os.MkdirAll(log, 0o755), os.MkdirAll(dir, 0o755), os.Link(filepath.Join(b.bin, "agent"), filepath.Join(dir, "agent"))); err != nil {
		return fmt.Errorf("place the agent: %w", err)
	}
	var ps []*harness.Process
	for _, name := range []string{"registry", "dispatcher", "supervisor"} {
		p, err := s.sys.Start(ctx, name, name[:1]+"0")
		if err != nil {
			return err
		}
		ps = append(ps, p)
	}
	s.apart, s.movers = ps[0], ps[1:]
	for _, a := range agents {
		if err := harness.CreateTopic(ctx, s.sys.Brokers, a.topic, partitions, nil); err != nil {
			return err
		}
		entry := map[string]any{
			"topic": a.topic, "name": a.name, "runtime": "command", "dir": "worker", "command": []string{"./agent"},
			"env": map[string]string{"SWEEP_LOG": log}, "config": maps.Clone(a.config), "process": maps.Clone(a.process),
		}
		if err := s.sys.Register(ctx, entry); err != nil {
			return err
		}
	}
	return nil
}
