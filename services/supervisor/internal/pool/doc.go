// Package pool runs an agent's instances in this process and gives them the engine's attempts: it is the worker.Runner of
// processes.
//
// Attempts are spread over the instances by the least in flight. One that has to run alone claims an instance, which
// gets nothing more until it is empty. Attempts that an instance gave back, because it went before they had begun, wait
// in line for the next that has room.
//
// The pool's lock is never held while an instance is given attempts or an attempt is finished.
package pool
