// Package program is what the programs of all services do alike: flags, the health check, configuration and log.
package program

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/healthcheck"
	"github.com/reeve-run/reeve/internal/lifecycle"
	"github.com/reeve-run/reeve/internal/log"
)

// Flags reads the command line of a service's program. Where ok is false there is nothing to run, and the process ends with
// code: the usage was written, or a running service was asked whether it is ready.
func Flags(service string) (code int, ok bool) {
	flags := flag.NewFlagSet(service, flag.ContinueOnError)
	flags.Usage = func() {
		_, _ = fmt.Fprintf(flags.Output(), "usage: %s [-healthcheck]\nIt is configured by REEVE_ variables in its environment.\n", service)
		flags.PrintDefaults()
	}
	ask := flags.Bool(healthcheck.Flag, false, healthcheck.Help)
	if code, ok := lifecycle.Flags(flags, os.Args[1:]); !ok {
		return code, false
	}
	if *ask {
		return healthcheck.Run(context.Background(), service, os.Environ(), os.Stderr), false
	}
	return 0, true
}

// Run gives a service the configuration in the environment, runs it until a signal ends it, and returns the exit code.
func Run(service string, serve func(ctx context.Context, cfg config.Config, logger *slog.Logger) error) int {
	return lifecycle.Main(func(ctx context.Context) error {
		cfg, warnings, err := config.Load(service, os.Environ())
		if err != nil {
			return err
		}
		logger := log.New(os.Stderr, cfg.LogLevel, cfg.LogFormat)
		for _, w := range warnings {
			logger.Warn("configuration", slog.String("warning", w))
		}
		return serve(ctx, cfg, logger)
	})
}
