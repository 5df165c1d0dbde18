// Command worker runs the no-op agent of the bench in its own process: the worker engine with a runner that finishes
// every attempt at once, in the supervisor's place.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/lifecycle"
	"github.com/reeve-run/reeve/internal/log"
	"github.com/reeve-run/reeve/pkg/control"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

func main() { os.Exit(lifecycle.Main(run)) }

func run(ctx context.Context) error {
	cfg, _, err := config.Load(config.Supervisor, os.Environ())
	if err != nil {
		return err
	}
	logger := log.New(os.Stderr, cfg.LogLevel, cfg.LogFormat)
	opts := kafka.Options(cfg.Kafka, logger)
	agent, err := firstAgent(ctx, cfg, logger)
	if err != nil {
		return err
	}
	if err := makeTopics(ctx, cfg, logger, agent); err != nil {
		return err
	}
	pool, err := hop.NewPool(ctx, hop.PoolConfig{Opts: opts, Names: cfg.Kafka.Names(), Service: config.Supervisor, Node: cfg.Node, Logger: logger})
	if err != nil {
		return err
	}
	defer pool.Close()
	engine := worker.New(worker.Config{
		Pool: pool, Opts: opts, Names: cfg.Kafka.Names(), Spec: agent, Service: config.Supervisor, Node: cfg.Node,
		Runner: noop{}, Tiers: cfg.Kafka.RetryTiers, Replication: cfg.Kafka.Replication, Logger: logger,
	})
	if err := engine.Start(); err != nil {
		return err
	}
	defer engine.Stop(context.Background())
	select {
	case <-ctx.Done():
		return nil
	case err := <-engine.Failed():
		return err
	}
}

// makeTopics makes what a worker writes to, and the task topic where the dispatcher hasn't yet.
func makeTopics(ctx context.Context, cfg config.Config, logger *slog.Logger, agent *spec.Agent) error {
	cl, err := kafka.Connect(ctx, cfg.Kafka, logger)
	if err != nil {
		return err
	}
	defer cl.Close()
	names := cfg.Kafka.Names()
	wanted := append(kafka.RetryTopics(names, cfg.Kafka.RetryTiers), kafka.OutcomesTopic(names), kafka.TasksTopic(names, agent, 1<<20))
	return kafka.EnsureTopics(ctx, cl, cfg.Kafka.Replication, wanted...)
}

// noop is the runner. It has room for all that the engine finds.
type noop struct{}

func (noop) Slots() int             { return 4096 }
func (noop) Cancel(*worker.Attempt) {}

func (noop) Run(batch []*worker.Attempt) {
	for _, a := range batch {
		a.Finish(worker.Result{Outcome: task.Completed, Value: []byte("{}")})
	}
}

// firstAgent waits for an agent in the control topic.
func firstAgent(ctx context.Context, cfg config.Config, logger *slog.Logger) (*spec.Agent, error) {
	following, cancel := context.WithCancel(ctx)
	found := make(finder, 1)
	done := make(chan error, 1)
	go func() {
		done <- control.Follow(following, kafka.Options(cfg.Kafka, logger), cfg.Kafka.Names(), logger, found)
	}()
	defer func() {
		cancel()
		<-done // it says that the context ended
	}()
	select {
	case a := <-found:
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for an agent: %w", ctx.Err())
	}
}

// finder takes the first active agent.
type finder chan *spec.Agent

func (f finder) Ready(all map[string]*spec.Agent) {
	for key, a := range all {
		f.Changed(key, a)
	}
}

func (f finder) Changed(_ string, a *spec.Agent) {
	if a == nil || a.Phase != spec.Active {
		return
	}
	select {
	case f <- a:
	default: // one is enough
	}
}
