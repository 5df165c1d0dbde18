// Command registry runs Reeve's registry: REST, the dashboard, and the history of tasks.
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/program"
	"github.com/reeve-run/reeve/services/registry/app"
)

func main() { os.Exit(run()) }

func run() int {
	if code, ok := program.Flags(config.Registry); !ok {
		return code
	}
	return program.Run(config.Registry, func(ctx context.Context, cfg config.Config, logger *slog.Logger) error {
		a, err := app.New(app.Config{Config: cfg, Logger: logger})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
}
