// Package app is the supervisor as a whole: from a configuration to a running service.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/httpx"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/proc"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/stdio/adapter"
	"github.com/reeve-run/reeve/services/supervisor/internal/fleet"
	"github.com/reeve-run/reeve/services/supervisor/internal/launch"
	"github.com/reeve-run/reeve/services/supervisor/internal/process"
	"github.com/reeve-run/reeve/services/supervisor/internal/report"
)

// flushLimit bounds the wait for the last status records at the end.
const flushLimit = 2 * time.Second

// Config is what a supervisor needs.
type Config struct {
	config.Config // an empty HTTPAddr means that nothing is listened on
	// Logger defaults to discarding.
	Logger *slog.Logger
	// CreateTopics lets workers make reply topics that agents' events name. Elsewhere such a reply is recorded as
	// undeliverable.
	CreateTopics bool
	// Environ is the environment of which agents see an allow-list. Defaults to the process's.
	Environ []string
}

// App is a supervisor. Run may be called once. Its process should be the child of a guard.
type App struct {
	cfg     Config
	mark    proc.Mark
	metrics *prometheus.Registry
	ready   chan struct{}
	starter atomic.Pointer[process.Starter]
}

// New checks the configuration.
func New(cfg Config) (*App, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	if cfg.Node == "" || len(cfg.Kafka.Brokers) == 0 || len(cfg.Kafka.RetryTiers) == 0 {
		return nil, errors.New("configure the supervisor: it needs a node name, brokers and retry tiers")
	}
	if st, err := os.Stat(cfg.AgentsDir); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("configure the supervisor: the agents directory %q is no directory that can be read: create it, or give another in REEVE_AGENTS_DIR", cfg.AgentsDir)
	}
	life, err := proc.Life(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("configure the supervisor: it needs /proc: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("configure the supervisor: ask for the host's name: %w", err)
	}
	a := &App{cfg: cfg, mark: proc.Mark{Host: host, Node: cfg.Node, Life: life}, metrics: prometheus.NewRegistry(), ready: make(chan struct{})}
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.cfg.Logger = cfg.Logger.With(slog.String("service", config.Supervisor), slog.String("node", cfg.Node))
	return a, nil
}

// Ready is closed when the service has read the desired state and starts agents.
func (a *App) Ready() <-chan struct{} { return a.ready }

// EndAgents kills every process of every agent at once. It is for a process that lost its guard and exits: what the agents
// were doing is left unsettled, as if the process itself had been killed.
func (a *App) EndAgents() {
	if s := a.starter.Load(); s != nil {
		s.Condemn()
	}
	_, _ = proc.KillMarked(proc.Of(a.mark)) // the process exits now; the next start's sweep sees what is left
}

// Run runs agents until the context ends, and returns nil after a clean stop.
func (a *App) Run(ctx context.Context) error {
	health := httpx.Health{Ready: httpx.Until(a.ready, "the agents' desired state isn't read yet"), Metrics: a.metrics}
	return health.Beside(ctx, a.cfg.HTTPAddr, a.supervise)
}

// sweep ends what an earlier life of this node left behind.
func (a *App) sweep() {
	n, err := proc.KillMarked(proc.Left(a.mark.Host, a.mark.Node, proc.Alive))
	if err != nil {
		a.cfg.Logger.Warn("end processes of an earlier life", slog.Any("error", err))
	}
	if n > 0 {
		a.cfg.Logger.Warn("ended processes that an earlier life had left", slog.Int("processes", n))
	}
}

// adapters puts the adapters where interpreters can read them.
func adapters() (adapter.Files, error) {
	dir, err := os.UserCacheDir()
	if err == nil {
		var files adapter.Files
		if files, err = adapter.Install(filepath.Join(dir, "reeve", "adapters")); err == nil {
			return files, nil
		}
	}
	if dir, err = os.MkdirTemp("", "reeve-adapters-"); err != nil {
		return adapter.Files{}, fmt.Errorf("find a place for the adapters: set HOME or TMPDIR to a directory that can be written: %w", err)
	}
	return adapter.Install(dir)
}

func (a *App) supervise(ctx context.Context) error {
	logger, names := a.cfg.Logger, a.cfg.Kafka.Names()
	a.sweep()
	files, err := adapters()
	if err != nil {
		return err
	}
	client, err := kafka.Connect(ctx, a.cfg.Kafka, logger)
	if err != nil {
		return err
	}
	defer client.Close()
	own := append(kafka.RetryTopics(names, a.cfg.Kafka.RetryTiers), kafka.StatusTopic(names), kafka.OutcomesTopic(names), kafka.WebhooksTopic(names))
	if err := kafka.EnsureTopics(ctx, client, a.cfg.Kafka.Replication, own...); err != nil {
		return err
	}
	opts := append(kafka.Options(a.cfg.Kafka, logger), kgo.ClientID(status.ClientID(config.Supervisor)))
	reporter := report.New(client, names, config.Supervisor, a.cfg.Node, logger)
	pool, err := hop.NewPool(ctx, hop.PoolConfig{Opts: opts, Names: names, Service: config.Supervisor, Node: a.cfg.Node, Logger: logger, Withheld: reporter.Unended})
	if err != nil {
		return kafka.Explained("prepare transactions", err)
	}
	defer pool.Close()
	starter := process.NewStarter()
	defer starter.Close()
	a.starter.Store(starter)
	a.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "reeve_status_records_dropped_total", Help: "Status records that were dropped because they couldn't be written in time.",
	}, func() float64 { return float64(reporter.Dropped()) }))
	f := fleet.New(&fleet.Environment{
		Kafka: a.cfg.Kafka, Names: names, Service: config.Supervisor, Node: a.cfg.Node, Opts: opts, Client: client, Pool: pool, Starter: starter,
		Launcher: launch.Launcher{AgentsDir: a.cfg.AgentsDir, Adapters: files, Environ: a.cfg.Environ, Mark: a.mark},
		Reporter: reporter, Logger: logger, CreateTopics: a.cfg.CreateTopics,
	})
	err = a.follow(ctx, f)
	flushed, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	_ = client.Flush(flushed) // the last heartbeat; nobody needs it badly
	return err
}

// follow runs the fleet and says when it is ready.
func (a *App) follow(ctx context.Context, f *fleet.Fleet) error {
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	select {
	case <-f.Started():
		close(a.ready)
		a.cfg.Logger.Info("supervising", slog.String("http", a.cfg.HTTPAddr), slog.String("agents_dir", a.cfg.AgentsDir))
		return <-ended
	case err := <-ended:
		return err
	}
}
