// Package proc reads what Linux says of processes in /proc, and ends processes that carry an instance mark.
//
// A mark is the value of the environment variable MarkVariable: host/node/life/instance, where life names the one run
// of the service that started the process. A mark survives everything that a process does to get away from its
// parents (a new session, a new group, a double fork), so it finds what process groups and parent links don't.
//
// A PID is never signaled by its number alone: the process is pinned by a pidfd first and looked at again after, so
// that a number that was used anew meanwhile can't be hit.
package proc
