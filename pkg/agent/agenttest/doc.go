// Package agenttest tests agents.
//
// Run calls a handler once, without a broker, and tells what became of the attempt:
//
//	got := agenttest.Run(t, agent.Handle(hello), agenttest.Event(Order{ID: 17, Amount: -1}))
//	if got.Class != task.ClassInvalidInput { … }
//
// Start is an in-process Reeve for agents as a whole: a broker (kfake), the routing core of the dispatcher and a registry
// that knows no more than agents, phases and the control topic. The worker engine is the real one. Retries are due at
// once, whatever their delay.
//
//	reeve := agenttest.Start(t)
//	reeve.Run(agent.Agent{Topic: "orders", Name: "hello", Handler: agent.Handle(hello)})
//	got := reeve.Publish("orders", Order{ID: 17, Amount: 3}).Outcome("hello")
//
// Filters and types of tasks count as they do in Reeve, and so does where an agent starts.
//
// It is no dispatcher and no registry: it routes without transactions, holds no agent to its rate, and keeps no history.
package agenttest
