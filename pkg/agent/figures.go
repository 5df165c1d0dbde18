package agent

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// Figures is what a Runner knows of one of its agents, here and since its start. The registry has the exact counters of
// the whole installation, see Runner.Metrics.
type Figures struct {
	Topic, Name string
	// Version is that of the program.
	Version string
	// State is serving, starting, leaving or idle.
	State      string
	Partitions int // owned, of the task topic
	Running    int // attempts in flight
	Held       int // tasks read and not settled, the running ones included
	// Overdue counts the attempts that have run for twice their time, since their function ignores its context.
	Overdue int
	// Outage is the one that stands, of the agent here: nil for none.
	Outage *worker.Outage
	// Attempts that ended, by outcome: completed, failed, timed_out, crashed. Those that were cut short count as they
	// ended.
	Attempts map[task.Outcome]int64
	// Durations are those attempts'.
	Durations Durations
	// Tasks are the settlements.
	Tasks Tasks
	// Alerts that were raised, by kind.
	Alerts map[string]int64
}

// Tasks counts what was settled, by the words of the registry. The registry counts the same over all programs, with one
// difference: there a task that comes back from the dead letters counts by its latest end only, here by each.
type Tasks struct {
	Received     int64 // tasks of which an attempt was settled for the first time
	Completed    int64
	Failed       int64 // for good, of an agent without dead letters
	Retried      int64 // attempts after which the task waits for another
	DeadLettered int64
	Rejected     int64 // never run, of an agent without dead letters
}

// Durations is how long attempts took, from when the engine started them.
type Durations struct {
	Count int64
	Sum   time.Duration
	// AtMost counts the attempts that took no longer than a bound, by bound: from 1 ms to 10 minutes.
	AtMost map[time.Duration]int64
}

// bounds of Durations; what took longer is in its Count alone.
var bounds = [...]time.Duration{time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 10 * time.Minute}

// Figures counts, an entry for each agent by topic and name. A collector of figures may call it whenever it is asked.
func (r *Runner) Figures() []Figures {
	keepers := r.all()
	out := make([]Figures, len(keepers))
	for i, k := range keepers {
		out[i] = k.figures()
	}
	return out
}

func (k *keeper) figures() Figures {
	f := Figures{Topic: k.own.Topic, Name: k.own.Name, Version: k.own.Version}
	k.counts.read(&f)
	k.mu.Lock()
	defer k.mu.Unlock()
	f.State = k.report.State
	if k.engine != nil {
		e := k.engine.Figures()
		f.Partitions, f.Running, f.Held, f.Overdue, f.Outage = e.Partitions, e.Running, e.Held, e.Overdue, e.Outage
	}
	return f
}

// counts is what a keeper counts, whichever engine it has: a few atomic additions for each attempt, and no lock.
type counts struct {
	attempts map[task.Outcome]*atomic.Int64
	within   [len(bounds) + 1]atomic.Int64 // attempts that took no longer than a bound, and longer than the one before
	took     atomic.Int64                  // by all of them, in nanoseconds

	received, completed, failed, retried, deadLettered, rejected atomic.Int64

	mu     sync.Mutex
	alerts map[string]int64
}

func newCounts() *counts {
	c := &counts{attempts: map[task.Outcome]*atomic.Int64{}, alerts: map[string]int64{}}
	for _, o := range []task.Outcome{task.Completed, task.Failed, task.TimedOut, task.Crashed} {
		c.attempts[o] = new(atomic.Int64)
	}
	return c
}

// ended counts an attempt.
func (c *counts) ended(o task.Outcome, took time.Duration) {
	c.attempts[o].Add(1)
	c.took.Add(int64(took))
	i := 0
	for i < len(bounds) && took > bounds[i] {
		i++
	}
	c.within[i].Add(1)
}

// settled counts what a transaction has settled.
func (c *counts) settled(all iter.Seq[worker.Settlement]) {
	for s := range all {
		if s.First {
			c.received.Add(1)
		}
		switch s.Settled {
		case task.SettledDone:
			c.completed.Add(1)
		case task.SettledRetry:
			c.retried.Add(1)
		case task.SettledDLQ:
			c.deadLettered.Add(1)
		case task.SettledFailed:
			c.failed.Add(1)
		case task.SettledDropped:
			if s.Outcome == task.Rejected {
				c.rejected.Add(1)
			}
		}
	}
}

// raised counts an alert.
func (c *counts) raised(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alerts[kind]++
}

func (c *counts) read(f *Figures) {
	f.Attempts, f.Alerts = map[task.Outcome]int64{}, map[string]int64{}
	for o, n := range c.attempts {
		f.Attempts[o] = n.Load()
	}
	f.Durations = Durations{Sum: time.Duration(c.took.Load()), AtMost: make(map[time.Duration]int64, len(bounds))}
	for i := range c.within {
		f.Durations.Count += c.within[i].Load()
		if i < len(bounds) {
			f.Durations.AtMost[bounds[i]] = f.Durations.Count
		}
	}
	f.Tasks = Tasks{Received: c.received.Load(), Completed: c.completed.Load(), Failed: c.failed.Load(), Retried: c.retried.Load(), DeadLettered: c.deadLettered.Load(), Rejected: c.rejected.Load()}
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, n := range c.alerts {
		f.Alerts[kind] = n
	}
}
