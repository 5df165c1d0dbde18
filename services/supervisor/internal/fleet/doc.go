// Package fleet converges a supervisor to the desired state of all agents.
//
// Each agent has a keeper, one goroutine that looks at what is wanted and at what is, and takes the next step:
//
//	not active ──────────────► off: no processes, not a member of the work group
//	active, nothing runs ────► processes are started; the first that runs lets the worker join the group
//	active, all are down ────► the worker leaves the group, so that another may have the partitions
//	active, spec changed ────► instances are replaced one after the other
//	reset, restart ──────────► by the nonces in the spec
//
// A keeper never joins a group for an agent that it hasn't seen running here, and never leaves processes behind: the
// order of an end is drain, leave (or, when the service stops, stay a member), stop the processes.
package fleet
