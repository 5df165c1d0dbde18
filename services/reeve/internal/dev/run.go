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
	dispatcher "github.com/reeve-run/reeve/services/dispatcher/app"
	"github.com/reeve-run/reeve/services/reeve/internal/agentsfile"
	"github.com/reeve-run/reeve/services/reeve/internal/broker"
	"github.com/reeve-run/reeve/services/reeve/internal/cli"
	"github.com/reeve-run/reeve/services/reeve/internal/database"
	registry "github.com/reeve-run/reeve/services/registry/app"
	supervisor "github.com/reeve-run/reeve/services/supervisor/app"
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

func readAgents(s settings) ([]agentsfile.Listed, error) {
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
	agents []agentsfile.Listed
	reload *reloader // once all is ready
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
	r.data = dir.path
	g := &ground{runner: r, dir: dir}
	defer g.close()
	if err := g.listen(); err != nil {
		return err
	}
	if err := g.startBroker(); err != nil {
		return err
	}
	return r.serve(ctx, g)
}

// ground is what the services stand on.
type ground struct {
	runner   *runner
	dir      *dataDir
	kafka    net.Listener // nil where the broker isn't embedded
	broker   *broker.Broker
	database *database.Database
}

// listen takes the addresses, the cheapest thing that can be refused.
func (g *ground) listen() error {
	r := g.runner
	l, err := listen("--listen", r.HTTPAddr, r.listenGiven, r.say)
	if err != nil {
		return err
	}
	r.HTTPAddr = l.Addr().String()
	defer func() { _ = l.Close() }() // the registry takes it by its number
	if !r.embeddedKafka {
		return nil
	}
	if g.kafka, err = listen("--kafka-listen", r.kafkaListen, r.kafkaGiven, r.say); err != nil {
		return err
	}
	r.Kafka.Brokers = []string{g.kafka.Addr().String()}
	return nil
}

func (g *ground) startBroker() (err error) {
	if g.kafka == nil {
		return nil
	}
	r := g.runner
	g.broker, err = broker.Start(broker.Config{Dir: g.dir.broker(), Listener: g.kafka, Reserved: r.Kafka.Names().Reserved, Logger: r.logger})
	return err
}

func (g *ground) startDatabase(ctx context.Context) (err error) {
	r := g.runner
	if !r.embeddedData {
		return nil
	}
	if g.database, err = database.Start(ctx, database.Config{Dir: g.dir.database(), Say: r.say, Logger: r.logger}); err != nil {
		return err
	}
	r.DatabaseURL = g.database.URL()
	return nil
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

// serve runs the services until the context ends or one of them does.
//
// Dispatcher and supervisor need only Kafka: they work again while Postgres still starts. The registry stops last, so
// that it hears what the others did at their end.
func (r *runner) serve(ctx context.Context, g *ground) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers, err := r.workers()
	if err != nil {
		return err
	}
	stopWorkers := make([]func(), len(workers))
	for i, w := range workers {
		stopWorkers[i] = start(ctx, w, cancel)
	}
	stopRegistry := func() {}
	defer func() {
		for _, stop := range stopWorkers {
			stop()
		}
		stopRegistry()
	}()
	if err := g.startDatabase(ctx); err != nil {
		return cause(ctx, err)
	}
	reg, err := r.registry()
	if err != nil {
		return err
	}
	stopRegistry = start(ctx, reg, cancel)
	if err := r.makeReady(ctx, append(workers, reg)); err != nil {
		return cause(ctx, err)
	}
	r.reload.follow(ctx)
	return cause(ctx, nil)
}

// cause is why all ends: the service that ended, else the error that was met; nil for an orderly stop.
func cause(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil:
		return err
	case errors.Is(context.Cause(ctx), context.Canceled):
		return nil
	}
	return context.Cause(ctx)
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

// workers makes the services that need no database, in the order in which they stop.
func (r *runner) workers() ([]named, error) {
	quiet := r.Config // only the registry listens
	quiet.HTTPAddr = ""
	dis, err := dispatcher.New(dispatcher.Config{Config: quiet, Logger: r.logger, CreateTopics: true})
	if err != nil {
		return nil, err
	}
	sup, err := supervisor.New(supervisor.Config{Config: quiet, Logger: r.logger, CreateTopics: true})
	if err != nil {
		return nil, err
	}
	r.child.OnOrphan(sup.EndAgents)
	return []named{{config.Supervisor, sup}, {config.Dispatcher, dis}}, nil
}

func (r *runner) registry() (named, error) {
	reg, err := registry.New(registry.Config{Config: r.Config, CreateTopics: true, Logger: r.logger.With(slog.String("service", config.Registry), slog.String("node", r.Node))})
	return named{config.Registry, reg}, err
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
	var err error
	if r.reload, err = r.newReloader(ctx); err != nil {
		return err
	}
	r.announce()
	return nil
}

// apply registers what the agents file lists. An agent that doesn't come up, or isn't registered for its conditions, is
// told and doesn't end the rest.
func (r *runner) apply(ctx context.Context) error {
	if r.file == "" {
		return nil
	}
	cl, err := r.client()
	if err != nil {
		return err
	}
	selection := cli.Select(ctx, r.agents, os.Environ())
	selection.Say(r.say)
	changes, err := cli.Apply(ctx, cl, selection, false, false)
	if err != nil {
		return fmt.Errorf("apply %s: %w", r.file, err)
	}
	_, err = cli.Await(ctx, cl, changes, 10*time.Second, r.say)
	return err
}

// client is one of the registry's.
func (r *runner) client() (*client.ClientWithResponses, error) {
	return client.New(client.Config{URL: "http://" + r.HTTPAddr, Key: r.AdminKey})
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
