package agent

import "github.com/reeve-run/reeve/pkg/task"

// Figures is what a Runner knows of one of its agents, here and since its start. The registry has the exact counters of
// the whole installation, see Runner.Metrics.
type Figures struct {
	Topic, Name string
	// State is serving, starting, leaving or idle.
	State      string
	Partitions int // owned, of the task topic
	Running    int // attempts in flight
	Held       int // tasks read and not settled, the running ones included
	// Overdue counts the attempts that have run for twice their time, since their function ignores its context.
	Overdue int
	// Attempts that ended, by outcome: completed, failed, timed_out, crashed. Those that were cut short count as they
	// ended.
	Attempts map[task.Outcome]int64
}

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
	f := Figures{Topic: k.own.Topic, Name: k.own.Name, Attempts: map[task.Outcome]int64{}}
	for o, n := range k.counts {
		f.Attempts[o] = n.Load()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f.State = k.report.State
	if k.engine != nil {
		e := k.engine.Figures()
		f.Partitions, f.Running, f.Held, f.Overdue = e.Partitions, e.Running, e.Held, e.Overdue
	}
	return f
}
