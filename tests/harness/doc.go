// Package harness runs Reeve as people run it, as processes, for end-to-end tests, the sweep and the bench: it builds the
// binaries, starts registry, dispatchers and supervisors, speaks REST, publishes, and reads outcomes.
//
// A System is one installation: a topic prefix on a Kafka, a schema in a Postgres, a directory of agents and logs. Several
// may run side by side. Kafka and Postgres come from internal/testenv. Services may run elsewhere as well, on a Host: the
// package containers below is one.
//
// Every process of this machine that a System starts ends with it, also when the test process is killed: it carries a parent-death
// signal, set from a thread that lives as long as the System does.
package harness
