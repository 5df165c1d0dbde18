// Command dispatcher routes events from user topics to agents' task topics.
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/program"
	"github.com/reeve-run/reeve/services/dispatcher/app"
)

func main() { os.Exit(run()) }

func run() int {
	if code, ok := program.Flags(config.Dispatcher); !ok {
		return code
	}
	return program.Run(config.Dispatcher, func(ctx context.Context, cfg config.Config, logger *slog.Logger) error {
		a, err := app.New(app.Config{Config: cfg, Logger: logger})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
}
