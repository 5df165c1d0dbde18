// Package history keeps what became of every task, from the outcomes topic: counters that are exact for ever, and the
// attempts themselves for as long as there is room.
//
// # The cheapest shape that keeps all
//
// Nearly all tasks complete at their first attempt, and nobody looks for them but by their event, or by their agent, the
// latest first. These are packed: one row of packs holds what a batch had of one agent and one partition, a thousand at
// most, some twelve bytes and the event's id each, with the range of offsets as its index. Everything else (retries,
// failures, whatever has a correlation id) is a line of a COPY into attempts, with indexes for how people ask for it.
// Measured, a row costs Postgres ten times what a place in a pack does, and outcomes come by the ten thousand a second on a
// machine that has better things to do; BenchmarkProjection in tests/bench has the sum.
//
// Nothing is read, updated or decoded per outcome. A task has no row of its own: its state is its latest attempt, and what
// is packed and what isn't share one row of numbers. Results aren't copied at all: they stay on Kafka as long as the
// outcomes topic is kept, and an attempt says where. Counters are folded in memory and added to one row per agent, version
// and batch. Only an attempt beyond the first, which is rare, is looked up among the earlier ones, set-wise: a task counts
// once however often it was tried.
//
// An event's id is found among what is packed by filters of the packs (events.go).
//
// # Bounds
//
// attempts is partitioned by its row number into tables of a million rows. Whole tables are dropped (and the packs of
// their numbers with them), the oldest first, when
// there are more than KeepTables, or when their newest row is older than KeepFor. Counters outlive them. A task that is
// retried longer than its first attempt is kept would be counted as received twice.
package history
