// Command withenv starts a Kafka and a Postgres, names them in the environment and runs a command below it: all
// packages of a test run share them. They end with it, however it ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/reeve-run/reeve/internal/testenv"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(command []string) int {
	if len(command) == 0 {
		fmt.Fprintln(os.Stderr, "usage: withenv COMMAND [ARGUMENT…]")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := withServers(ctx, command)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return code
}

func withServers(ctx context.Context, command []string) (int, error) {
	kafka, err := testenv.StartServerKafka(ctx, say)
	if err != nil {
		return 0, err
	}
	defer end(kafka)
	postgres, err := testenv.StartPostgres(ctx, say)
	if err != nil {
		return 0, err
	}
	defer end(postgres)
	say("testing on %s and %s", kafka.About, postgres.About)
	return below(ctx, command, append(os.Environ(),
		testenv.EnvKafkaBrokers+"="+kafka.Address,
		testenv.EnvKafkaAbout+"="+kafka.About,
		testenv.EnvKafkaPID+"="+strconv.Itoa(kafka.PID),
		testenv.EnvDatabaseURL+"="+postgres.Address))
}

// below runs the command and gives its exit code. A signal reaches it too: it is in the terminal's group, and gets
// SIGTERM from here otherwise.
func below(ctx context.Context, command, env []string) (int, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", command[0], err)
	}
	return 0, nil
}

func end(s *testenv.Server) {
	if err := s.Stop(); err != nil {
		say("stop %s: %v", s.About, err)
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
