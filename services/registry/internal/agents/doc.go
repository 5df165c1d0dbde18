// Package agents is the registry's core: which agents there are, in which phase, and what may be done to them.
//
//	created ─► initialized ◄─► active ◄─► paused          any ─► terminated          any ─► error(cause) ─► initialized
//
// Decisions are pure (moves.go, plan.go). The store takes one in a database transaction that holds the agents' rows,
// writes the new record, its history and its outbox row together, and commits all or nothing. Nothing here talks to
// Kafka; the relay publishes the outbox.
package agents
