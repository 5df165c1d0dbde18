package worker

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

// A Runner executes attempts: a supervisor's pool of processes, or functions of a Go program.
// The engine calls it from one goroutine at a time, never while it holds a lock, and calls must not block.
type Runner interface {
	// Slots is how many more attempts may start now. 0 means none: every instance is busy, starting or stopped.
	// When it grows for another reason than a Finish, the runner calls Engine.Kick.
	Slots() int
	// Run starts attempts, at most as many as Slots said. For each, Attempt.Finish is called exactly once, from any
	// goroutine, and only when the attempt is proven ended: answered, or its process is dead.
	Run(batch []*Attempt)
	// Cancel asks for an attempt to be ended: its partition went to another owner or the engine stops. Finish still
	// has to be called, with Result.CutShort unless the attempt ended by itself first.
	Cancel(a *Attempt)
}

// Attempt is one execution of a task. It is read-only to the runner.
type Attempt struct {
	// Record is the task's record as it stands on the task topic.
	Record *kgo.Record
	// Number counts the attempts of the task from 1.
	Number int
	// Timeout is how long the attempt may take; 0 means that there is no limit. The runner enforces it.
	Timeout time.Duration
	// Idle says that Timeout counts from the last sign of progress: the task has no other limit.
	Idle bool
	// Alone asks the runner to give the attempt a process in which nothing else runs meanwhile, because a neighbour's
	// crash could not be told from its own.
	Alone bool

	started time.Time
	slot    *slot        // the engine's place for it
	told    func(Result) // where there is no engine
	call    callContext  // of the function, for FuncRunner
}

// NewAttempt makes an attempt of no engine, for driving a Runner by hand: told gets its result.
func NewAttempt(r *kgo.Record, number int, timeout time.Duration, alone bool, told func(Result)) *Attempt {
	return &Attempt{Record: r, Number: number, Timeout: timeout, Alone: alone, started: time.Now(), told: told}
}

// Started is when the engine handed the attempt to the runner.
func (a *Attempt) Started() time.Time { return a.started }

// Finish reports how the attempt ended. It never blocks.
func (a *Attempt) Finish(r Result) {
	if a.told != nil {
		a.told(r)
		return
	}
	a.slot.finish(a, r)
}

// Result is how an attempt ended.
type Result struct {
	// Outcome is completed, failed, timed_out, crashed or cancelled. Ignored with CutShort.
	Outcome task.Outcome
	// Value is the result, JSON, of a completed attempt. The engine keeps it; nil means null.
	Value []byte
	// Class, Message, Type and Traceback tell of an error; Class "" is internal.
	Class     task.Class
	Message   string
	Type      string
	Traceback string
	// RetryAfter is how long the agent asked to be left alone (rate_limited); 0 means that it didn't say.
	RetryAfter time.Duration
	// Shared says of a crash that other attempts ran in the same process: nobody can say whose fault it was, so none
	// of them is settled; each runs once more, alone.
	Shared bool
	// CutShort says that the attempt was ended for a reason that isn't its own (a drain, a stop, a lost partition). It is
	// not settled and burns no retry.
	CutShort bool
	// Instance names the process; empty for a function.
	Instance string
	// Publish is what a completed attempt publishes: the records become visible together with its outcome or not at all,
	// and those of any other attempt are dropped. The key chooses the partition, whatever the record says. One that the
	// broker refuses makes the attempt a failed one. They must not be changed any more, and none may go to a topic of
	// Reeve's own.
	Publish []*kgo.Record
}
