// Package process starts, ends and watches an agent's process at the level of the operating system.
//
// A process leads a group of its own and gets a SIGKILL when the supervisor dies. Its end is learnt without reaping it;
// first its group and whatever else carries its mark are killed, and only then is it reaped, so that neither its number
// nor its group's can be another's when they are signaled. Exited is closed when all of that is done: then nothing of
// the process runs any more.
//
// Its pipes are the supervisor's own: a grandchild that holds them open keeps nobody waiting.
package process
