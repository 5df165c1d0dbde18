// Command reeve runs agents on Kafka, or steers those that run.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/reeve-run/reeve/services/reeve/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, cli.OwnSystem(), os.Args[1:])
}
