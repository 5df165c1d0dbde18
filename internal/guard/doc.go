// Package guard keeps a service that starts processes from leaving any of them behind, however it ends.
//
// The process that people see, and that an init system watches, is a small guard. It starts the same program again as
// its child, and the child does the work:
//
//		guard (child subreaper) ── service ── agent ── grandchild
//
//	  - The service ends, also by SIGKILL: everything below it becomes the guard's (that is what a subreaper is), the
//	    guard kills and reaps it all, and exits with the service's code (128 + the signal's number where one ended it).
//	  - The guard ends: the service sees its lifeline close, a pipe whose other end only the guard holds, ends what it
//	    started and exits.
//	  - Signals reach the guard, which passes them on. The service has a process group of its own, so that Ctrl-C in a
//	    terminal reaches it once, through the guard, and reaches no agent before it.
//
// A main function starts like this:
//
//	func run() int {
//		child, code := guard.Run()
//		if child == nil {
//			return code // this was the guard
//		}
//		child.OnOrphan(killEverything)
//		…
//	}
//
// A process that gets away from the service while the service lives (a daemon) is the guard's child from then on and is
// left alone until the service ends: an embedded database is such a process.
package guard
