// Package agent runs agents that are functions of a Go program: on the same engine, with the same guarantees as the
// processes of a supervisor.
//
//	func hello(ctx context.Context, e agent.Event[Order]) (Accepted, error) { … }
//
//	err := agent.Run(ctx, agent.Options{}, agent.Agent{Topic: "orders", Name: "hello", Handler: agent.Handle(hello)})
//
// A Runner registers its agents with the registry, joins their work groups on Kafka, and calls their functions. Any number
// of programs may run the same agents: Kafka's partition assignment shares the work, and takes it over when one dies. A
// function is called at least once for each event; what comes of it, its result, its retry or dead letter, its reply and
// what it publishes (Task.Publish) becomes visible exactly once.
//
// # A Runner's life
//
//	NewRunner ─► Register … ─► Start ─► Register … ─► Shutdown
//	                          └────────── Run ──────────┘
//
// Nothing is connected to before Start. Signals are the program's own business: give Run a context of
// signal.NotifyContext. Register decides nothing by itself, so an agent that is wanted only somewhere, or only while
// something else is healthy, is an if around it.
//
// The registry says what should run, the control topic tells it: a pause, a resume, a deletion or a changed spec takes
// effect within moments, whoever asked for it. Once started, a Runner needs the registry no more. It can even be started
// without, for agents that were registered before, and registers them when the registry is back. A stop keeps the agents
// active and their places in the groups, so that a restart under the same Node goes on at once.
//
// # Errors
//
// A handler's error is retried, unless it says something else: see Error and the functions that make one. A deadline is in
// the context. A panic is a crash of its attempt alone. A function that ignores its context can't be ended: it keeps its
// place until it returns, and a stop leaves it behind.
//
// # What there is to see
//
// Kafka clients, HTTP, log, traces and figures are the program's: Options takes kgo options (and with them the hooks of
// kprom and kotel), an http.Client, a slog.Logger. Middleware wraps every call of a handler. Package agentotel makes one of
// the program's own tracer, and package agentprom shows Figures in its own Prometheus registry. A program that imports
// neither has neither OpenTelemetry nor Prometheus in it.
//
// Package agenttest tests agents, with and without a broker.
package agent
