package agentprom_test

import (
	"context"
	"fmt"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/agent/agentprom"
)

// The program's own registry shows the Runner's figures beside its own.
func ExampleNewCollector() {
	r, err := agent.NewRunner(agent.Options{Node: "shop-1", Environ: []string{}})
	if err == nil {
		err = r.Register(context.Background(), agent.Agent{Topic: "numbers", Name: "hello", Handler: agent.Handle(handle)})
	}
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(agentprom.NewCollector(r))
	families, err := registry.Gather() // or serve promhttp.HandlerFor(registry, …), and r.Run(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families[:2] {
		for _, label := range f.GetMetric()[0].GetLabel() {
			fmt.Println(f.GetName(), label.GetName(), label.GetValue())
		}
	}
	// Output:
	// reeve_tasks_completed_total agent hello
	// reeve_tasks_completed_total topic numbers
	// reeve_tasks_completed_total version 1.0.0
	// reeve_tasks_dead_lettered_total agent hello
	// reeve_tasks_dead_lettered_total topic numbers
	// reeve_tasks_dead_lettered_total version 1.0.0
}
