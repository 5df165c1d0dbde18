package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/guard"
	"github.com/reeve-run/reeve/internal/lifecycle"
	"github.com/reeve-run/reeve/internal/log"
	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
	dispatcher "github.com/reeve-run/reeve/services/dispatcher/app"
	"github.com/reeve-run/reeve/services/reeve/internal/agentsfile"
	"github.com/reeve-run/reeve/services/reeve/internal/broker"
	"github.com/reeve-run/reeve/services/reeve/internal/cli"
	"github.com/reeve-run/reeve/services/reeve/internal/database"
	registry "github.com/reeve-run/reeve/services/registry/app"
)

// startLimit bounds the way from the services' start to ready.
const startLimit = time.Minute

// Run is `reeve dev`. In the visible process it is the guard; the work is done by its child, which comes here as well.
func Run(_ context.Context, o cli.DevOptions) error {
	s, err := settle(o, os.Environ())
	if err != nil {
		return err
	}
	// A file with faults is refused before anything is started.
	agents, err := readAgents(s)
	if err != nil {
		return err
	}
	child, code := guard.Run()
	if child == nil {
		return cli.Silent(code)
	}
	return cli.Silent(lifecycle.Main(func(ctx context.Context) error {
		r := &runner{settings: s, agents: agents, child: child, out: os.Stdout, errs: os.Stderr}
		r.logger = log.New(os.Stderr, s.LogLevel, s.LogFormat)
		return r.run(ctx)
	}))
}

func readAgents(s settings) ([]*spec.Agent, error) {
	if s.file == "" {
		return nil, nil
	}
	agents, err := agentsfile.Read(s.file, agentsfile.Options{AgentsDir: s.AgentsDir, Tiers: s.Kafka.RetryTiers})
	if err != nil {
		return nil, cli.Refused(err)
	}
	return agents, nil
}

// runner is the running process.
type runner struct {
	settings
	agents []*spec.Agent
	child  *guard.Child
	out    io.Writer
	errs   io.Writer
	logger *slog.Logger
}

func (r *runner) say(format string, args ...any) { _, _ = fmt.Fprintf(r.errs, format+"\n", args...) }

// run starts everything, and stops it in the opposite order.
func (r *runner) run(ctx context.Context) error {
	dir, err := openDataDir(ctx, r.data, os.Getppid())
	if err != nil {
		return err
	}
	defer dir.release()
	rest, err := r.listeners(ctx, dir)
	if err != nil {
		return err
	}
	defer rest.close()
	if err := rest.startStores(ctx); err != nil {
		return err
	}
	return r.serve(ctx, rest)
}

// ground is what the services stand on.
type ground struct {
	runner   *runner
	dir      *dataDir
	kafka    net.Listener // nil where the broker isn't embedded
	broker   *broker.Broker
	database *database.Database
}

// listeners takes the addresses, the cheapest thing that can be refused.
func (r *runner) listeners(_ context.Context, dir *dataDir) (*ground, error) {
	g := &ground{runner: r, dir: dir}
	l, err := listen("--listen", r.HTTPAddr, r.listenGiven, r.say)
	if err != nil {
		return nil, err
	}
	r.HTTPAddr = l.Addr().String()
	defer func() { _ = l.Close() }() // the registry takes it by its number
	if !r.embeddedKafka {
		return g, nil
	}
	if g.kafka, err = listen("--kafka-listen", r.kafkaListen, r.kafkaGiven, r.say); err != nil {
		return nil, err
	}
	r.Kafka.Brokers = []string{g.kafka.Addr().String()}
	return g, nil
}

// startStores starts broker and Postgres side by side.
func (g *ground) startStores(ctx context.Context) error {
	r := g.runner
	var work sync.WaitGroup
	var brokerErr, databaseErr error
	if r.embeddedKafka {
		work.Go(func() {
			g.broker, brokerErr = broker.Start(broker.Config{Dir: g.dir.broker(), Listener: g.kafka, Reserved: r.Kafka.Names().Reserved, Logger: r.logger})
		})
	}
	if r.embeddedData {
		work.Go(func() {
			g.database, databaseErr = database.Start(ctx, database.Config{Dir: g.dir.database(), Say: r.say, Logger: r.logger})
			if databaseErr == nil {
				r.DatabaseURL = g.database.URL()
			}
		})
	}
	work.Wait()
	return errors.Join(brokerErr, databaseErr)
}

// close ends what was started. Services are gone by then.
func (g *ground) close() {
	var work sync.WaitGroup
	defer work.Wait()
	if g.database != nil {
		work.Go(g.database.Close)
	}
	if g.broker != nil {
		g.broker.Close()
	} else if g.kafka != nil {
		_ = g.kafka.Close()
	}
}

// service is an app of one of the services.
type service interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// serve runs the services until the context ends or one of them does. The last to stop is the first of the list.
func (r *runner) serve(ctx context.Context, _ *ground) error {
	services, err := r.services()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var stops []func()
	defer func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	}()
	for _, s := range services {
		stops = append(stops, start(ctx, s, cancel))
	}
	if err := r.makeReady(ctx, services); err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// start runs a service and returns what stops it and waits for its end. A service that ends by itself ends all.
func start(ctx context.Context, s named, cancel context.CancelCauseFunc) (stop func()) {
	own, stopOwn := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := s.Run(own)
		if own.Err() == nil {
			if err == nil {
				err = errors.New("it ended by itself")
			}
			cancel(fmt.Errorf("run %s: %w", s.name, err))
		}
	}()
	return func() {
		stopOwn()
		<-done
	}
}

type named struct {
	name string
	service
}

// services makes the three apps; the registry stops last.
func (r *runner) services() ([]named, error) {
	quiet := r.Config // only the registry listens
	quiet.HTTPAddr = ""
	reg, err := registry.New(registry.Config{Config: r.Config, Logger: r.logger.With(slog.String("service", config.Registry))})
	if err != nil {
		return nil, err
	}
	dis, err := dispatcher.New(dispatcher.Config{Config: quiet, Logger: r.logger, CreateTopics: true})
	if err != nil {
		return nil, err
	}
	return []named{{config.Registry, reg}, {config.Dispatcher, dis}}, nil
}

// makeReady waits for the services, applies the agents file and says that all is ready.
func (r *runner) makeReady(ctx context.Context, services []named) error {
	limit, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for _, s := range services {
		select {
		case <-s.Ready():
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.Done():
			return fmt.Errorf("start %s: it isn't ready after %s", s.name, startLimit)
		}
	}
	if err := r.apply(ctx); err != nil {
		return err
	}
	r.announce()
	return nil
}

// apply registers what the agents file lists. An agent that doesn't come up is told and doesn't end the rest.
func (r *runner) apply(ctx context.Context) error {
	if r.file == "" {
		return nil
	}
	cl, err := client.New(client.Config{URL: "http://" + r.HTTPAddr, Key: r.AdminKey})
	if err != nil {
		return err
	}
	changes, err := cli.Apply(ctx, cl, r.agents, false, false)
	if err != nil {
		return fmt.Errorf("apply %s: %w", r.file, err)
	}
	_, err = cli.Await(ctx, cl, changes, 10*time.Second, r.say)
	return err
}

// announce says where everything is.
func (r *runner) announce() {
	where := ""
	if r.embeddedKafka {
		where = "  data " + r.data
	}
	_, _ = fmt.Fprintf(r.out, "ready: REST and dashboard http://%s  Kafka %s%s\n", r.HTTPAddr, joined(r.Kafka.Brokers), where)
}

func joined(list []string) string {
	s := ""
	for i, e := range list {
		if i > 0 {
			s += ","
		}
		s += e
	}
	return s
}
