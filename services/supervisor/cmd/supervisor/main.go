// Command supervisor runs agents' processes and gives them their tasks. The process that it is started as is a guard; its
// child does the work.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/guard"
	"github.com/reeve-run/reeve/internal/healthcheck"
	"github.com/reeve-run/reeve/internal/lifecycle"
	"github.com/reeve-run/reeve/internal/log"
	"github.com/reeve-run/reeve/services/supervisor/app"
)

func main() { os.Exit(run()) }

func run() int {
	flags := flag.NewFlagSet("supervisor", flag.ContinueOnError)
	flags.Usage = func() {
		_, _ = fmt.Fprintln(flags.Output(), "usage: supervisor [-healthcheck]\nIt is configured by REEVE_ variables in its environment.")
		flags.PrintDefaults()
	}
	ask := flags.Bool(healthcheck.Flag, false, healthcheck.Help)
	if code, ok := lifecycle.Flags(flags, os.Args[1:]); !ok {
		return code
	}
	if *ask {
		return healthcheck.Run(context.Background(), config.Supervisor, os.Environ(), os.Stderr)
	}
	child, code := guard.Run()
	if child == nil {
		return code
	}
	return lifecycle.Main(func(ctx context.Context) error {
		cfg, warnings, err := config.Load(config.Supervisor, os.Environ())
		if err != nil {
			return err
		}
		logger := log.New(os.Stderr, cfg.LogLevel, cfg.LogFormat)
		for _, w := range warnings {
			logger.Warn("configuration", slog.String("warning", w))
		}
		a, err := app.New(app.Config{Config: cfg, Logger: logger})
		if err != nil {
			return err
		}
		child.OnOrphan(a.EndAgents)
		return a.Run(ctx)
	})
}
