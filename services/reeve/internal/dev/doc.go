// Package dev is `reeve dev`: registry, dispatcher and supervisor in one process, on an embedded Kafka and Postgres
// unless others are named.
//
//	guard ── reeve dev ─┬─ registry, dispatcher, supervisor, broker (goroutines)
//	                    ├─ postgres
//	                    └─ agents
//
// The visible process is the guard, so nothing outlives a kill of either process. All that is kept is in one data
// directory, which one such process holds at a time; a start after an end of any kind goes on where that one stopped.
//
// Order of the start: data directory, addresses, broker and Postgres, the services, the agents file, ready.
// A stop goes backwards: the supervisor drains while all it needs still runs.
package dev
