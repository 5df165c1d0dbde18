// Package bench measures Reeve beside a bare copy of the same shape by franz-go, in one run on one machine.
//
// The bare copy (tests/bench/bare) consumes the user's topic, produces to a second one, consumes that, passes each record
// through four stdio children or none, produces an outcome and commits: at least once, no transactions, no retries, no
// order. It is what the broker and the client library cost. What Reeve adds is the difference.
//
// Both read the same records, run the same child program, and count from the first outcome that a read_committed reader
// sees to the last. Rounds are interleaved, so that a machine's moods hit both, and medians are compared. Processor time is
// read from /proc: that of the processes that move records, and the broker's; the registry's and its Postgres's are listed
// apart. BenchmarkProjection measures these two alone.
package bench
