package dispatch

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// asks are what people want of tasks that may come by here, until it is done or expires: to be cancelled, or retried at
// once. While there are none, nothing is looked up. A nil *asks has none. It is safe for concurrent use.
type asks struct {
	finished func(id string) bool // whether somebody else has carried a command out
	tell     func(c command.Command, state, message string)

	live atomic.Bool

	mu      sync.Mutex
	all     map[string]ask // by agent and task
	version int            // grows with what is added
	wakes   []chan struct{}
	tidied  time.Time // when what is over was dropped last
	kept    int       // how many were left then
}

const (
	// What is over is dropped once in tidyEvery, and where there are twice as many as were left and tidyFrom more: each
	// command costs the same, however many live.
	tidyEvery = time.Minute
	tidyFrom  = 64
)

type ask struct {
	command.Command
	origin task.Origin
}

func newAsks(finished func(string) bool, tell func(command.Command, string, string)) *asks {
	return &asks{finished: finished, tell: tell, all: make(map[string]ask)}
}

// wake is signaled when something was added.
func (a *asks) wake() <-chan struct{} {
	if a == nil {
		return nil
	}
	c := make(chan struct{}, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wakes = append(a.wakes, c)
	return c
}

// add takes what is asked. A task that is to be cancelled is retried no more.
func (a *asks) add(c command.Command) {
	origin, err := task.ParseOrigin(c.Task)
	if err != nil {
		a.tell(c, status.CommandRefused, err.Error())
		return
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tidy(now)
	key := keyOf(c.Ref(), origin)
	if old, ok := a.all[key]; ok && old.Verb == command.Cancel && c.Verb != command.Cancel && old.Round >= c.Round && !a.over(old, now) {
		return
	}
	a.all[key] = ask{c, origin}
	a.version++
	a.live.Store(true)
	for _, w := range a.wakes {
		signal(w)
	}
}

func keyOf(ref string, origin task.Origin) string { return ref + " " + origin.ID() }

// over reports whether nothing is asked any more.
func (a *asks) over(x ask, now time.Time) bool { return now.After(x.Expires) || a.finished(x.ID) }

// tidy drops what is over, now and then. The lock is held.
func (a *asks) tidy(now time.Time) {
	if now.Sub(a.tidied) < tidyEvery && len(a.all) < 2*a.kept+tidyFrom {
		return
	}
	maps.DeleteFunc(a.all, func(_ string, x ask) bool { return a.over(x, now) })
	a.tidied, a.kept = now, len(a.all)
	a.live.Store(len(a.all) > 0)
}

// any reports whether something is asked of any task.
func (a *asks) any() bool { return a != nil && a.live.Load() }

// since is the version, which tells whether something was added.
func (a *asks) since() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.version
}

// of gives what is asked of the task of a task or retry record.
func (a *asks) of(r *kgo.Record) (command.Command, bool) {
	origin, err := task.ParseOrigin(route.Header(r, task.HeaderOrigin))
	if err != nil {
		return command.Command{}, false
	}
	key := keyOf(route.Header(r, task.HeaderAgent), origin)
	round, _ := strconv.Atoi(route.Header(r, task.HeaderRedrives)) // none is the first
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tidy(now)
	x, ok := a.all[key]
	switch {
	case !ok, round > x.Round:
		return command.Command{}, false
	case x.Verb == command.Retry && route.Header(r, task.HeaderAttempt) != strconv.Itoa(x.Attempt): // it has had it
		return command.Command{}, false
	case !x.origin.Means(origin):
		return command.Command{}, false
	case a.over(x, now):
		a.remove(key)
		return command.Command{}, false
	}
	return x.Command, true
}

// done forgets what was carried out, and says so.
func (a *asks) done(c command.Command, message string) {
	if origin, err := task.ParseOrigin(c.Task); err == nil {
		key := keyOf(c.Ref(), origin)
		a.mu.Lock()
		if a.all[key].ID == c.ID {
			a.remove(key)
		}
		a.mu.Unlock()
	}
	a.tell(c, status.CommandDone, message)
}

// remove drops one. The lock is held.
func (a *asks) remove(key string) {
	delete(a.all, key)
	if len(a.all) == 0 {
		a.live.Store(false)
	}
}

// cancelled is the final outcome of a task that is cancelled before a worker has it. r is a task or retry record.
func cancelled(names topics.Names, r *kgo.Record, c command.Command, node string, now time.Time) (*kgo.Record, error) {
	return route.Outcome(names, r, route.Ending{Outcome: task.Cancelled, Settled: task.SettledDropped, Message: c.Cancelled(), Node: node}, now)
}

// carriedOut is what was asked of the records of the transaction under way.
type carriedOut []struct {
	command.Command
	message string
}

func (d *carriedOut) add(c command.Command, message string) {
	*d = append(*d, struct {
		command.Command
		message string
	}{c, message})
}

// ended says that the transaction has ended, and whether it was committed.
func (d *carriedOut) ended(a *asks, committed bool) {
	if committed {
		for _, x := range *d {
			a.done(x.Command, x.message)
		}
	}
	*d = nil
}

// cancelAsked makes an outcome of each task of a batch that is cancelled before it is dispatched.
func (l *Lane) cancelAsked(outs []*kgo.Record, now time.Time) {
	if !l.asks.any() {
		return
	}
	tasks := l.names.Tasks(l.agent.Topic, l.agent.Name)
	for i, out := range outs {
		if out == nil || out.Topic != tasks {
			continue
		}
		c, ok := l.asks.of(out)
		if !ok || c.Verb != command.Cancel {
			continue
		}
		if o, err := cancelled(l.names, out, c, l.node, now); err == nil {
			outs[i] = l.settle(out, o)
			l.asked.add(c, "it is cancelled before it was dispatched")
		}
	}
}

// Ahead lets pass what is asked for: a task to be retried at once goes to its agent, one to be cancelled to the outcomes.
// A record is looked at once for all that was asked until then.
func (t *Tier) Ahead(p int32, records []*kgo.Record) (out []Overtaking) {
	if !t.asks.any() {
		return nil
	}
	if v := t.asks.since(); v != t.version {
		t.version, t.looked = v, nil
	}
	if t.looked == nil {
		t.looked = make(map[int32]int64)
	}
	from := t.looked[p]
	now := t.now()
	for _, r := range records {
		if r.Offset < from || r.Attrs.IsControl() {
			continue
		}
		t.looked[p] = r.Offset + 1
		c, ok := t.asks.of(r)
		if !ok {
			continue
		}
		if x := t.asked(c, r, now); x != nil {
			out = append(out, Overtaking{Record: r, Becomes: x})
		}
	}
	return out
}

// asked is what a record becomes for a command; nil lets it wait for its turn.
func (t *Tier) asked(c command.Command, r *kgo.Record, now time.Time) []*kgo.Record {
	if c.Verb == command.Cancel {
		out, err := cancelled(t.names, r, c, t.node, now)
		if err != nil {
			return nil
		}
		t.done.add(c, "it is cancelled while it waited for its next attempt")
		return []*kgo.Record{out}
	}
	a := t.agents(c.Ref())
	if c.Verb != command.Retry || a == nil || a.Phase == spec.Terminated || t.refused[recordID{r.Partition, r.Offset}] {
		return nil
	}
	finished, err := c.Finished(t.names, "dispatcher/"+t.node, now)
	if err != nil {
		return nil
	}
	t.done.add(c, "its next attempt is dispatched")
	return []*kgo.Record{route.Retry(t.names, a, &t.spread, r, now), finished}
}
