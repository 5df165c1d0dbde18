// Command reeve runs agents on Kafka, or steers those that run.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/reeve-run/reeve/services/reeve/internal/cli"
	"github.com/reeve-run/reeve/services/reeve/internal/dev"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	system := cli.OwnSystem()
	system.Dev = dev.Run
	return cli.Run(ctx, system, os.Args[1:])
}
