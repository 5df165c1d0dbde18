// Package app is the registry as a part of a process: New, Run until the context ends, Ready in between.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/httpx"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
	"github.com/reeve-run/reeve/services/registry/internal/commands"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/history"
	"github.com/reeve-run/reeve/services/registry/internal/leader"
	"github.com/reeve-run/reeve/services/registry/internal/orders"
	"github.com/reeve-run/reeve/services/registry/internal/projection"
	"github.com/reeve-run/reeve/services/registry/internal/relay"
	"github.com/reeve-run/reeve/services/registry/internal/rest"
	"github.com/reeve-run/reeve/services/registry/internal/retention"
	"github.com/reeve-run/reeve/services/registry/internal/settings"
	"github.com/reeve-run/reeve/services/registry/internal/wishes"
)

// Config is what the registry is made of.
type Config struct {
	config.Config
	Logger *slog.Logger
	// CreateTopics makes the topics that producers and agents name, where they don't exist. Defaults to false: elsewhere
	// than on a developer's machine a topic is its owner's business.
	CreateTopics bool
}

// App is a registry.
type App struct {
	cfg   Config
	ready chan struct{}
	addr  atomic.Value // string
}

// New checks the configuration; it connects to nothing yet.
func New(cfg Config) (*App, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.DatabaseURL == "" {
		return nil, errors.New("start the registry: REEVE_DATABASE_URL is not set: give its Postgres, postgres://user:password@host:5432/database")
	}
	if cfg.Auth && cfg.AdminKey == "" {
		return nil, errors.New("start the registry: REEVE_ADMIN_KEY is not set: give a long random text, which clients send as Authorization: Bearer <key>; or, on a loopback address only, REEVE_AUTH=off")
	}
	return &App{cfg: cfg, ready: make(chan struct{})}, nil
}

// Ready is closed once the registry serves.
func (a *App) Ready() <-chan struct{} { return a.ready }

// Addr is where it serves; "" before Ready.
func (a *App) Addr() string {
	s, _ := a.addr.Load().(string)
	return s
}

// Run serves until ctx ends. It returns nil after a clean stop, or why it couldn't begin or go on.
func (a *App) Run(ctx context.Context) error {
	l, err := httpx.Listen(a.cfg.HTTPAddr)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // the server has closed it, unless the start broke off
	db, err := postgres.Open(ctx, a.cfg.DatabaseURL, postgres.Options{Logger: a.cfg.Logger})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // everything is committed or not by now
	if err := migrations.Up(ctx, db.DB); err != nil {
		return err
	}
	cl, err := kafka.Connect(ctx, a.cfg.Kafka, a.cfg.Logger)
	if err != nil {
		return err
	}
	defer cl.Close()
	names := a.cfg.Kafka.Names()
	// The registry writes only the first two; it reads the others and may be the first of the services to start.
	if err := kafka.EnsureTopics(ctx, cl, a.cfg.Kafka.Replication, kafka.ControlTopic(names), kafka.CommandsTopic(names), kafka.OutcomesTopic(names), kafka.StatusTopic(names)); err != nil {
		return err
	}
	return a.serve(ctx, l, db, cl)
}

// parts are what the registry's loops and its requests share.
type parts struct {
	cfg    Config
	opts   []kgo.Opt
	db     *sqlx.DB
	client *kgo.Client
	store  *agents.Store
	relay  *relay.Relay
	lease  *leader.Lease
	fleet  *fleet.Fleet
	pulse  *pulse
	watch  *retention.Watch
	tasks  *history.Store
	orders *orders.Store
	wishes *wishes.Store
	desk   *commands.Desk
	rights *kafka.Tolerance

	outcomes, reports *projection.Projection
}

func (a *App) serve(ctx context.Context, l net.Listener, db *sqlx.DB, cl *kgo.Client) error {
	gin.SetMode(gin.ReleaseMode)
	log, names := a.cfg.Logger, a.cfg.Kafka.Names()
	opts := kafka.Options(a.cfg.Kafka, log)
	p := &parts{cfg: a.cfg, rights: &kafka.Tolerance{Logger: log}, opts: opts, db: db, client: cl, fleet: fleet.New(), tasks: &history.Store{DB: db}, orders: &orders.Store{DB: db}, wishes: &wishes.Store{DB: db}, relay: relay.New(db, opts, names, log)}
	requests, err := bus.New(opts, names, a.cfg.CreateTopics)
	if err != nil {
		return err
	}
	defer requests.Close()
	p.store = agents.NewStore(db, agents.Rules{Names: names, Tiers: a.cfg.Kafka.RetryTiers, Start: requests.StartAt}, p.relay.Kick)
	p.lease = &leader.Lease{DB: db, Holder: a.cfg.Node, Logger: log}
	p.pulse = newPulse(p)
	p.watch = &retention.Watch{Client: cl, Opts: opts, Names: names, Leads: p.lease.Held, Raise: fleet.Store{DB: db}.Raise, Logger: log,
		Agents: func(ctx context.Context) ([]*spec.Agent, error) { return p.agents(ctx, agents.Filter{}) }}
	p.outcomes = &projection.Projection{Name: "outcomes", Topic: names.Outcomes(), DB: db, Client: cl, Opts: opts, Target: history.NewProjector(db, log), Logger: log}
	p.reports = &projection.Projection{Name: "status", Topic: names.Status(), DB: db, Client: cl, Opts: opts, Target: fleet.Store{DB: db}, Logger: log}
	desk := commands.New(cl, names)
	p.desk, p.fleet.Commands = desk, desk.Heard
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(rest.Collector{History: p.tasks, Reports: fleet.Store{DB: db}, Fleet: p.fleet}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var loops sync.WaitGroup
	defer loops.Wait()
	defer stop()
	p.pulse.look(ctx) // or the first to ask would hear that nobody has looked yet
	caughtUp := make(chan struct{})
	loops.Go(func() { p.follow(ctx, caughtUp) })
	loops.Go(func() { p.pulse.run(ctx) })
	loops.Go(func() { p.watch.Run(ctx) })
	loops.Go(func() { p.lease.Run(ctx, p.lead) })

	server := &rest.Server{Agents: p.store, Fleet: p.fleet, Reports: fleet.Store{DB: db}, History: p.tasks, Settings: &settings.Store{DB: db}, Bus: requests, Tiers: a.cfg.Kafka.RetryTiers, Commands: desk, Orders: p.orders, Wishes: p.wishes, Names: names, Node: a.cfg.Node, ResultsKeep: a.cfg.OutcomesKeep,
		Outlook: p.watch.Of, Health: p.pulse.health, Ready: p.pulse.ready, Gatherer: metrics, Auth: a.cfg.Auth, AdminKey: a.cfg.AdminKey, Logger: log, Now: time.Now}
	served := make(chan error, 1)
	loops.Go(func() { served <- httpx.ServeListener(ctx, l, server.Handler()) })
	select {
	case <-caughtUp:
	case <-ctx.Done():
	case err := <-served:
		return err
	}
	a.addr.Store(l.Addr().String())
	close(a.ready)
	log.Info("registry serves", slog.String("address", l.Addr().String()))
	if err := <-served; err != nil {
		return fmt.Errorf("serve REST: %w", err)
	}
	return nil
}
