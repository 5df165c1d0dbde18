// Package lifecycle runs a service's main function between its start and a bounded, orderly stop.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

// StopLimit is how long a process may take to stop before it ends all the same.
const StopLimit = 60 * time.Second

// gcPercent is how much garbage a service lets come together, in percent of what it holds, before it collects; GOGC in
// the environment overrules it. A service holds little, and what flows through it is garbage a moment later: with Go's
// default of 100 a sixth of a busy worker's time goes into collecting it.
const gcPercent = 300

// Exit codes.
const (
	Done   = 0
	Failed = 1
	Usage  = 2
)

// A Coder is an error that knows the exit code it asks for.
type Coder interface {
	error
	ExitCode() int
}

// Main calls run with a context that SIGINT or SIGTERM ends, and returns the exit code: 0 for nil or for the
// cancellation that the signal caused, else 1 or what a Coder in the error says. The error is printed on stderr. If run
// doesn't return within StopLimit of the first signal, or a second one comes, Main returns without it.
func Main(run func(ctx context.Context) error) int {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	return supervise(run, signals, StopLimit, os.Stderr)
}

func supervise(run func(ctx context.Context) error, signals <-chan os.Signal, limit time.Duration, stderr io.Writer) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()

	select {
	case err := <-done:
		return exitCode(err, stderr)
	case <-signals:
		cancel()
	}
	select {
	case err := <-done:
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		return exitCode(err, stderr)
	case <-signals:
		_, _ = fmt.Fprintln(stderr, "stopped at once by a second signal")
	case <-time.After(limit):
		_, _ = fmt.Fprintf(stderr, "stopped at once: the orderly stop took longer than %s\n", limit)
	}
	return Failed
}

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return Done
	}
	_, _ = fmt.Fprintln(stderr, "error:", err)
	var coder Coder
	if errors.As(err, &coder) {
		return coder.ExitCode()
	}
	return Failed
}
