// Package worker is the engine that owns an agent's task partitions and runs their tasks: the supervisor uses it with
// processes, the Go SDK with functions.
//
// # The life of a task here
//
//	polled ─► admitted to the window ─► (its key is free) ready ─► running ─► finished ─► settled in a transaction
//	                 ▲                                                │
//	                 └──────── cut short, or a neighbour crashed ◄────┘
//
// With ordering strict a task that failed is settled as a retry and goes back to ready when its delay is over, and its key
// waits for it meanwhile; strict.go says how that outlives its owner.
//
// Three loops move bytes: poll (records in), schedule (attempts to the Runner), commit (outcomes out). What they decide
// is decided by pure functions: Judge (what becomes of a result), the offsets package (what a commit says), and the
// functions of plan.go (which attempt may start).
//
// # What must never happen
//
//   - A task starts before a commit says that it may have: the committed metadata reserves offsets ahead, and names each
//     attempt that its record doesn't know of. Otherwise a crash would repeat it unnoticed.
//   - A task starts without the lease: somebody else may own its partition.
//   - A commit covers a task whose outcome isn't in the same transaction.
//   - Two transactions of one agent overlap.
//   - A second attempt starts before the first is proven ended.
//
// # After an unclean hand-over
//
// Tasks that may have been running when their owner died are suspects: one of them may have killed it. They run in
// small groups with nothing beside them; the next group starts when the last has ended or has lived through its
// probation. The metadata names who is on trial, so that if the host dies again the members of that group are tried one
// by one. One that kills its host alone is settled as crashed by the next owner, and the others are cleared. Two hosts at
// most die of the same task after the first, and a kill that no task is to blame for costs little. A process of the
// agent that dies under a living owner leaves at most one instance's tasks behind: they are tried one by one at once.
//
// A task that crashed by itself gets a process to itself when it is retried, and one that killed its host runs with nothing
// beside it: neighbours are cut short once at most.
//
// # In an outage
//
// When the last distinct tasks have failed alike and none has succeeded, it isn't them: see outage.go. The worker starts only
// probes then, and what failed since the outage began costs no retry. Tasks carry when their retries were burnt, and commits
// the times of the agent's latest outages, so that whoever runs a task next gives back what an outage took. What would be a
// task's last failure isn't settled while nothing speaks against the task and others fail as well: two tasks are enough whose
// class says that something outside of the agent failed, nearly all of the last ones otherwise; see doubt.go.
package worker
