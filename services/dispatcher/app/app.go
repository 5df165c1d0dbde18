// Package app is the dispatcher as a whole: from a configuration to a running service.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/egress"
	"github.com/reeve-run/reeve/internal/httpx"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/dispatcher/internal/deliver"
	"github.com/reeve-run/reeve/services/dispatcher/internal/dispatch"
)

const (
	// reportLimit is how long a status record is tried to be written.
	reportLimit = 5 * time.Second
	// flushLimit bounds the wait for the last status records at the end.
	flushLimit = 2 * time.Second
)

// Config is what a dispatcher needs.
type Config struct {
	config.Config // an empty HTTPAddr means that nothing is listened on
	// Logger defaults to discarding.
	Logger *slog.Logger
	// CreateTopics lets the dispatcher make user topics that agents name. Elsewhere a missing topic is reported and
	// waited for.
	CreateTopics bool
}

// App is a dispatcher. Run may be called once.
type App struct {
	cfg     Config
	metrics *prometheus.Registry
	ready   chan struct{}
}

// New checks the configuration. It touches nothing outside.
func New(cfg Config) (*App, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Node == "" || len(cfg.Kafka.Brokers) == 0 || len(cfg.Kafka.RetryTiers) == 0 {
		return nil, errors.New("configure the dispatcher: it needs a node name, brokers and retry tiers")
	}
	a := &App{cfg: cfg, metrics: prometheus.NewRegistry(), ready: make(chan struct{})}
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.cfg.Logger = cfg.Logger.With(slog.String("service", config.Dispatcher), slog.String("node", cfg.Node))
	return a, nil
}

// Ready is closed when the service has read the desired state and dispatches.
func (a *App) Ready() <-chan struct{} { return a.ready }

// Run dispatches until the context ends, and returns nil after a clean stop.
func (a *App) Run(ctx context.Context) error {
	health := httpx.Health{Ready: httpx.Until(a.ready, "the agents' desired state isn't read yet"), Metrics: a.metrics}
	return health.Beside(ctx, a.cfg.HTTPAddr, a.dispatch)
}

func (a *App) dispatch(ctx context.Context) error {
	logger, names := a.cfg.Logger, a.cfg.Kafka.Names()
	client, err := kafka.Connect(ctx, a.cfg.Kafka, logger)
	if err != nil {
		return err
	}
	defer client.Close()
	former, err := kafka.FormerTiers(ctx, client, names, a.cfg.Kafka.RetryTiers)
	if err != nil {
		return err
	}
	tiers := append(slices.Clone(a.cfg.Kafka.RetryTiers), former...)
	own := append(kafka.RetryTopics(names, tiers), kafka.StatusTopic(names), kafka.OutcomesTopic(names), kafka.WebhooksTopic(names))
	own = append(own, kafka.WebhookRetryTopics(names, tiers)...)
	if err := kafka.EnsureTopics(ctx, client, a.cfg.Kafka.Replication, own...); err != nil {
		return err
	}
	opts := append(kafka.Options(a.cfg.Kafka, logger), kgo.ClientID(status.ClientID(config.Dispatcher)))
	// What can't be reported for a while is out of date: it is dropped.
	reports, err := kgo.NewClient(append(opts, kgo.RecordDeliveryTimeout(reportLimit), kgo.MaxBufferedRecords(1000))...)
	if err != nil {
		return fmt.Errorf("configure the reporter: %w", err)
	}
	defer reports.Close()
	reporter := dispatch.NewReporter(reports, names, config.Dispatcher, a.cfg.Node, logger)
	pool, err := hop.NewPool(ctx, hop.PoolConfig{Opts: opts, Names: names, Service: config.Dispatcher, Node: a.cfg.Node, Logger: logger, Withheld: reporter.Unended})
	if err != nil {
		return kafka.Explained("prepare transactions", err)
	}
	defer pool.Close()
	sender, err := a.sender()
	if err != nil {
		return err
	}
	defer sender.Close()
	fleet := dispatch.NewFleet(&dispatch.Environment{
		Kafka: a.cfg.Kafka, Tiers: tiers, Names: names, Service: config.Dispatcher, Node: a.cfg.Node, Opts: opts, Client: client, Pool: pool,
		Reporter: reporter, Metrics: dispatch.NewMetrics(a.metrics), Logger: logger, CreateTopics: a.cfg.CreateTopics,
		Rights: &kafka.Tolerance{Logger: logger}, Sender: sender, WebhookRetries: a.cfg.Webhooks.Retries,
	})
	ended := make(chan error, 1)
	go func() { ended <- fleet.Run(ctx) }()
	select {
	case <-fleet.Started():
		close(a.ready)
		logger.Info("dispatching", slog.String("http", a.cfg.HTTPAddr))
		err = <-ended
	case err = <-ended:
	}
	flushed, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	_ = reports.Flush(flushed) // the last heartbeat; nobody needs it badly
	return err
}

// sender makes what sends webhooks.
func (a *App) sender() (*deliver.Sender, error) {
	allow, err := egress.ParseAllow(a.cfg.Webhooks.Allow)
	if err != nil {
		return nil, fmt.Errorf("REEVE_WEBHOOK_ALLOW: %w", err)
	}
	var secrets *deliver.Secrets
	if path := a.cfg.Webhooks.Secrets; path != "" {
		if secrets, err = deliver.LoadSecrets(path, a.cfg.Logger); err != nil {
			return nil, fmt.Errorf("REEVE_WEBHOOK_SECRETS: %w", err)
		}
	}
	return deliver.NewSender(egress.NewGuard(allow, a.cfg.Webhooks.Timeout), secrets, a.cfg.Webhooks.Timeout), nil
}
