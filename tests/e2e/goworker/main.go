// Command goworker is a program of the Go SDK for end-to-end tests: one agent, whose events say what it is to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/reeve-run/reeve/pkg/agent"
)

// order is what an event asks for.
type order struct {
	Do     string
	N      int
	Millis int
	To     string // for publish: a topic
}

type answer struct {
	N       int    `json:"n"`
	Attempt int    `json:"attempt"`
	By      string `json:"by"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	o := agent.Options{Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	a := agent.Agent{Topic: os.Args[1], Name: "gopher", Version: "2.0.0", Handler: agent.Handle(do), MaxRetries: new(1), RetryDelays: []time.Duration{time.Second}, RequestTimeout: 20 * time.Second}
	err := agent.Run(ctx, o, a)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func do(ctx context.Context, e agent.Event[order]) (answer, error) {
	in := e.Content
	done := answer{N: in.N, Attempt: e.DeliveryAttempts(), By: os.Getenv("REEVE_NODE")}
	switch in.Do {
	case "flaky":
		if e.DeliveryAttempts() == 1 {
			return done, agent.Network(errors.New("no connection at first"))
		}
	case "fail":
		return done, agent.Permanent(errors.New("never"))
	case "panic":
		panic(fmt.Sprint("on ", in.N))
	case "slow":
		select {
		case <-time.After(time.Duration(in.Millis) * time.Millisecond):
		case <-ctx.Done():
			return done, ctx.Err()
		}
	case "publish":
		return done, publish(e)
	}
	return done, nil
}

// publish publishes at every attempt, and fails the first: what the first published must never be seen.
func publish(e agent.Event[order]) error {
	r, err := agent.Message{Topic: e.Content.To, Key: []byte("one partition"), Content: e.DeliveryAttempts(), CausationID: e.ID()}.Record()
	if err != nil {
		return err
	}
	if err := e.Publish(r); err != nil {
		return err
	}
	if e.DeliveryAttempts() == 1 {
		return errors.New("after it has published")
	}
	return nil
}
