// Command sweep kills and stops Reeve's services on Apache Kafka, and Kafka itself, and accounts for every task.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/reeve-run/reeve/tests/harness"
	"github.com/reeve-run/reeve/tests/sweep"

	"github.com/reeve-run/reeve/internal/testenv"
)

func main() { os.Exit(run()) }

func run() int {
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the order and the moments of the blows")
	rounds := flag.Int("rounds", 20, "kills of each service; a quarter as many stops of each, half as many kills of reeve dev")
	only := flag.String("only", "", "services, broker, storm or dev: one of the parts")
	keep := flag.Bool("keep", false, "keep the directory of logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "reeve-sweep-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	say("seed %d; logs are in %s", *seed, dir)
	if err := sweepAll(ctx, dir, *seed, *rounds, *only); err != nil {
		say("failed with seed %d; logs are in %s:\n%v", *seed, dir, err)
		return 1
	}
	if !*keep {
		_ = os.RemoveAll(dir) // at worst the system's cleaner of temporary files does it
	}
	return 0
}

func sweepAll(ctx context.Context, dir string, seed uint64, rounds int, only string) error {
	bin := filepath.Join(dir, "bin")
	if err := harness.Build(ctx, bin, "sweep/agent"); err != nil {
		return err
	}
	parts := []struct {
		name string
		run  func(ctx context.Context, dir, bin string, seed uint64, rounds int) error
	}{{"services", services}, {"broker", broker}, {"storm", storm}, {"dev", dev}}
	known := only == ""
	for _, p := range parts {
		if only != "" && p.name != only {
			continue
		}
		known = true
		if err := p.run(ctx, dir, bin, seed, rounds); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if !known {
		return fmt.Errorf("-only: there is no part %q", only)
	}
	return nil
}

func services(ctx context.Context, dir, bin string, seed uint64, rounds int) error {
	kafka, err := testenv.StartServerKafka(ctx, say)
	if err != nil {
		return err
	}
	defer func() { _ = kafka.Stop() }()
	postgres, err := testenv.StartPostgres(ctx, say)
	if err != nil {
		return err
	}
	defer func() { _ = postgres.Stop() }()
	say("on %s and %s", kafka.About, postgres.About)
	sys, err := harness.New(harness.Config{
		Brokers: []string{kafka.Address}, Prefix: testenv.Unique(), Database: postgres.Address, Bin: bin, Dir: filepath.Join(dir, "services"),
	})
	if err != nil {
		return err
	}
	defer func() { _ = sys.Close() }()
	report, err := sweep.Run(ctx, sys, sweep.Config{Seed: seed, Kills: rounds, Stops: (rounds + 3) / 4, Takeover: true, Say: say})
	if err != nil {
		return err
	}
	fmt.Println(report)
	return report.Err()
}

// broker lets every outage happen to one broker.
func broker(ctx context.Context, dir, bin string, seed uint64, _ int) error {
	b, err := testenv.StartBroker(ctx, say, sweep.Gates)
	if err != nil {
		return err
	}
	defer func() { _ = b.Stop() }()
	postgres, err := testenv.StartPostgres(ctx, say)
	if err != nil {
		return err
	}
	defer func() { _ = postgres.Stop() }()
	sys, err := harness.New(harness.Config{Prefix: testenv.Unique(), Database: postgres.Address, Bin: bin, Dir: filepath.Join(dir, "broker")})
	if err != nil {
		return err
	}
	defer func() { _ = sys.Close() }()
	report, err := sweep.RunOutages(ctx, sys, b, sweep.Config{Seed: seed, Say: say}, sweep.AllOutages()...)
	if err != nil {
		return err
	}
	fmt.Println(report)
	return report.Err()
}

// storm lets workers come and go for three minutes.
func storm(ctx context.Context, dir, bin string, seed uint64, _ int) error {
	kafka, err := testenv.StartServerKafka(ctx, say)
	if err != nil {
		return err
	}
	defer func() { _ = kafka.Stop() }()
	postgres, err := testenv.StartPostgres(ctx, say)
	if err != nil {
		return err
	}
	defer func() { _ = postgres.Stop() }()
	sys, err := harness.New(harness.Config{
		Brokers: []string{kafka.Address}, Prefix: testenv.Unique(), Database: postgres.Address, Bin: bin, Dir: filepath.Join(dir, "storm"),
	})
	if err != nil {
		return err
	}
	defer func() { _ = sys.Close() }()
	report, err := sweep.RunStorm(ctx, sys, sweep.StormConfig{
		Config: sweep.Config{Seed: seed, Say: say}, Rounds: 3, Lasts: time.Minute, Calm: 12 * time.Second,
	})
	if err != nil {
		return err
	}
	fmt.Println(report)
	return report.Err()
}

func dev(ctx context.Context, dir, bin string, seed uint64, rounds int) error {
	sys, err := harness.New(harness.Config{Prefix: "reeve", Bin: bin, Dir: filepath.Join(dir, "dev")})
	if err != nil {
		return err
	}
	defer func() { _ = sys.Close() }()
	report, err := sweep.RunDev(ctx, sys, sweep.Config{Seed: seed, Kills: (rounds + 1) / 2, Say: say})
	if err != nil {
		return err
	}
	fmt.Println(report)
	return report.Err()
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
