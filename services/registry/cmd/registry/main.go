// Command registry runs Reeve's registry: REST, the dashboard, and the history of tasks.
package main

import (
	"context"
	"os"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/lifecycle"
	"github.com/reeve-run/reeve/internal/log"
	"github.com/reeve-run/reeve/services/registry/app"
)

func main() { os.Exit(lifecycle.Main(run)) }

func run(ctx context.Context) error {
	cfg, warnings, err := config.Load(config.Registry, os.Environ())
	if err != nil {
		return err
	}
	logger := log.New(os.Stderr, cfg.LogLevel, cfg.LogFormat)
	for _, w := range warnings {
		logger.Warn(w)
	}
	a, err := app.New(app.Config{Config: cfg, Logger: logger})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
