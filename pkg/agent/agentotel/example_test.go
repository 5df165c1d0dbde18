package agentotel_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/agent/agentotel"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

// The tracer is the program's own, and so is where its spans go.
func ExampleMiddleware() {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	traced := agentotel.Middleware(provider.Tracer("shop"), nil)

	// A Runner wraps all its handlers so.
	if _, err := agent.NewRunner(agent.Options{Node: "shop-1", Environ: []string{}, Middleware: []agent.Middleware{traced}}); err != nil {
		log.Fatal(err)
	}
	// One attempt shows it, by hand.
	hello := agent.Agent{Topic: "orders", Name: "hello", Handler: agent.Handle(func(_ context.Context, e agent.Event[int]) (int, error) { return e.Content, nil })}
	spec, err := hello.Spec(topics.Names{}, topics.DefaultTiers())
	if err != nil {
		log.Fatal(err)
	}
	run := agent.Func(traced(hello.Handler), spec, topics.Names{})
	run(context.Background(), worker.NewAttempt(&kgo.Record{Topic: "orders", Value: []byte("17")}, 1, time.Minute, false, nil))
	for _, span := range exporter.GetSpans() {
		fmt.Println(span.SpanKind, span.Name)
	}
	// Output:
	// consumer process orders
}
