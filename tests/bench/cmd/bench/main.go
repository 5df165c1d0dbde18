// Command bench measures Reeve beside a bare copy by franz-go, and what retries and agents in trouble cost, and prints tables.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/reeve-run/reeve/tests/bench"
)

func main() { os.Exit(run()) }

func run() int {
	events := flag.Int("events", 400_000, "events of a throughput round")
	rounds := flag.Int("rounds", 0, "rounds of everything, interleaved; 0 is 3 of throughput and 5 of the rest")
	part := flag.String("part", "", "throughput, retries or neighbours: one of the parts")
	rates := flag.String("rates", "200,1000", "events/s at which latency is measured; none if empty")
	only := flag.String("only", "", "what contestants' names have to contain")
	during := flag.Duration("during", 15*time.Second, "how long each latency round lasts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	perSecond, err := numbers(*rates)
	if err != nil {
		say("error: %v", err)
		return 2
	}
	dir, err := os.MkdirTemp("", "reeve-bench-")
	if err != nil {
		say("error: %v", err)
		return 1
	}
	defer os.RemoveAll(dir)
	err = bench.Run(ctx, bench.Config{
		Events: *events, Rounds: *rounds, Rates: perSecond, During: *during, Part: *part, Only: *only, Dir: dir, Out: os.Stdout, Say: say,
	})
	if err != nil {
		say("error: %v", err)
		return 1
	}
	return 0
}

func numbers(list string) ([]int, error) {
	var ns []int
	for s := range strings.SplitSeq(list, ",") {
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-rates: %q is no number of events a second", s)
		}
		ns = append(ns, n)
	}
	return ns, nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
