// Package history keeps what became of every task, from the outcomes topic: counters that are exact for ever, and the
// attempts themselves for as long as there is room.
//
// # The cheapest shape that keeps all
//
// An outcome costs one line of a COPY into attempts and its share of two index entries that are nearly in order; nothing is
// read, updated or decoded per outcome. A task has no row of its own: its state is its latest attempt. Results aren't
// copied at all: they stay on Kafka as long as the outcomes topic is kept, and a row says where. Counters are folded in
// memory and added to one row per agent and version and batch. Only an attempt beyond the first, which is rare, is looked up
// among the earlier ones, set-wise: a task counts once however often it was tried.
//
// # Bounds
//
// attempts is partitioned by its row number into tables of a million rows. Whole tables are dropped, the oldest first, when
// there are more than KeepTables, or when their newest row is older than KeepFor. Counters outlive them. A task that is
// retried longer than its first attempt is kept would be counted as received twice.
package history
