// Package instance runs one instance of an agent: a process that is started, pinged, given tasks, watched, stopped and
// started again.
//
//	IDLE ─► STARTING ─► RUNNING ─► STOPPING ─► STOPPED
//	            │          │
//	            └────► CRASHED ─► RESTARTING ─► STARTING
//
// and the edges of state.go that the drawing leaves out. The decisions are pure: which state may follow (state.go), what
// follows an end (restart.go), what a missed pong means (health.go). One goroutine an instance carries them out; it
// sleeps until the next thing is due.
//
// # The invariants
//
//   - An attempt is finished when its answer has come, or when its process and all that this started are dead: never
//     before.
//   - A slot is free before its attempt is finished, so that the engine finds it.
//   - Attempts that were queued and not yet written to the process have not begun: they go back to the pool.
//   - Nothing waits for an agent: not for it to read, to answer, to end, or to close its pipes.
//   - An attempt whose time is over, or whose task was cancelled, is asked to end where its program has announced that it
//     takes cancel messages, and has graceful_timeout_sec for it. Its answer ends it, and its neighbours notice nothing. One
//     that timed out is timed out whatever it answers, and its answer isn't believed while a process runs that was started
//     since it began.
//   - The base protocol knows no cancel. An attempt that has to end and can't be asked, or goes on all the same, takes its
//     process with it: the instance takes nothing more, lets its other attempts finish for a bounded time, and is killed.
//     The pool puts another in its place at once.
package instance
