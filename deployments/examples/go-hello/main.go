package main

import (
	"context"
	"errors"
	"github.com/reeve-run/reeve/pkg/agent"
	"log"
	"os/signal"
	"syscall"
)

func hello(_ context.Context, e agent.Event[struct{ ID, Amount int }]) (map[string]int, error) {
	if e.Content.Amount < 0 {
		return nil, agent.InvalidInput(errors.New("a negative amount"))
	}
	return map[string]int{"accepted": e.Content.ID, "attempt": e.DeliveryAttempts()}, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := agent.Run(ctx, agent.Options{}, agent.Agent{Topic: "orders", Name: "hello", Handler: agent.Handle(hello)}); err != nil {
		log.Fatal(err)
	}
}
