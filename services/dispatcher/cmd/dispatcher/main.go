// Command dispatcher routes events from user topics to agents' task topics.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/healthcheck"
	"github.com/reeve-run/reeve/internal/lifecycle"
	"github.com/reeve-run/reeve/internal/log"
	"github.com/reeve-run/reeve/services/dispatcher/app"
)

func main() { os.Exit(run()) }

func run() int {
	flags := flag.NewFlagSet("dispatcher", flag.ContinueOnError)
	flags.Usage = func() {
		_, _ = fmt.Fprintln(flags.Output(), "usage: dispatcher [-healthcheck]\nIt is configured by REEVE_ variables in its environment.")
		flags.PrintDefaults()
	}
	ask := flags.Bool(healthcheck.Flag, false, healthcheck.Help)
	if code, ok := lifecycle.Flags(flags, os.Args[1:]); !ok {
		return code
	}
	if *ask {
		return healthcheck.Run(context.Background(), config.Dispatcher, os.Environ(), os.Stderr)
	}
	return lifecycle.Main(func(ctx context.Context) error {
		cfg, warnings, err := config.Load(config.Dispatcher, os.Environ())
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
	})
}
