package main

import (
	"testing"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/agent/agenttest"
)

func TestHello(t *testing.T) {
	got := agenttest.Run(t, agent.Handle(hello), agenttest.Event(map[string]int{"id": 17, "amount": -1}))
	if got.Class != "invalid_input" || got.Settled != "dlq" {
		t.Errorf("it ended as %+v", got)
	}
}
