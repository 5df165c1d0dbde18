// Command supervisor runs agents' processes and gives them their tasks. The process that it is started as is a guard; its
// child does the work.
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/guard"
	"github.com/reeve-run/reeve/internal/program"
	"github.com/reeve-run/reeve/services/supervisor/app"
)

func main() { os.Exit(run()) }

func run() int {
	if code, ok := program.Flags(config.Supervisor); !ok {
		return code
	}
	child, code := guard.Run()
	if child == nil {
		return code
	}
	return program.Run(config.Supervisor, func(ctx context.Context, cfg config.Config, logger *slog.Logger) error {
		a, err := app.New(app.Config{Config: cfg, Logger: logger})
		if err != nil {
			return err
		}
		child.OnOrphan(a.EndAgents)
		return a.Run(ctx)
	})
}
