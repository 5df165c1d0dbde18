package instance

import (
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/stdio"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/supervisor/internal/process"
)

// Host is told what an instance does. Calls come from the instance's goroutines, must not block, and may call the
// instance's methods.
type Host interface {
	// Changed tells of a state that was entered.
	Changed(i *Instance, c Change)
	// Checked tells of a ping that was answered, or wasn't.
	Checked(i *Instance, c Check)
	// Output gives a line of the agent's log; heldBack lines before it were kept back, being too many.
	Output(i *Instance, line string, heldBack int)
	// Freed says that attempts have ended; it comes before their Finish.
	Freed(i *Instance, attempts int)
	// Returned gives back attempts that never began.
	Returned(i *Instance, as []*worker.Attempt)
	// Replace says that the instance takes nothing more, ends, and wants another in its place.
	Replace(i *Instance, reason string)
	// Down says that the instance won't start again by itself, and why; Reset starts it.
	Down(i *Instance, act Action, cause spec.Cause)
}

// Change is a change of state.
type Change struct {
	From, To State
	Reason   string
	PID      int
	When     time.Time
	Cause    *spec.Cause // with Crashed
}

// Check is the result of a ping.
type Check struct {
	State                State
	Health               Health
	MemoryMB, CPUPercent float64
	Latency              time.Duration // 0 where no pong came
	Restarts             int
	When                 time.Time
}

// Config configures an instance. All fields but the last four are required.
type Config struct {
	Agent *spec.Agent
	// ID names the instance: <node>-<number>.
	ID      string
	Host    Host
	Starter *process.Starter
	// Prepare says what to start. It is asked before every start; its error is a *StartError where a person has to mend it.
	Prepare func() (process.Command, error)
	Logger  *slog.Logger
	// LineLimit bounds an answer, in bytes. Defaults to stdio.DefaultLineLimit.
	LineLimit int
	// PongTimeout is how long a pong may take. Defaults to 5 s.
	PongTimeout time.Duration
	// Names are the installation's; they say which topics nobody may publish to.
	Names topics.Names
	// WholeLog gives the host every line of the agent's log, however many they are.
	WholeLog bool
}

func (c Config) lineLimit() int {
	if c.LineLimit > 0 {
		return c.LineLimit
	}
	return stdio.DefaultLineLimit
}

func (c Config) pongTimeout() time.Duration {
	if c.PongTimeout > 0 {
		return c.PongTimeout
	}
	return defaultPongTimeout
}

// StartError says why an agent can't be started.
type StartError struct{ Cause spec.Cause }

func (e *StartError) Error() string { return e.Cause.Type + ": " + e.Cause.Message }

// Order tells an instance to end.
type Order struct {
	Reason string
	// Drain is how long attempts in flight may go on.
	Drain time.Duration
	// Kill skips the polite phases if attempts are still in flight then: they are stuck.
	Kill bool
}

// Instance is one instance. Its methods are safe for concurrent use and don't block.
type Instance struct {
	cfg  Config
	id   string
	log  *slog.Logger
	Log  *Log
	wake chan struct{}
	done chan struct{}

	mu         sync.Mutex
	state      State
	session    *session
	order      *Order
	drainUntil time.Time
	retired    bool
	reset      bool
	restarts   int
}

// Start makes an instance and starts it.
func Start(cfg Config) *Instance {
	i := &Instance{cfg: cfg, id: cfg.ID, state: Idle, Log: new(Log), wake: make(chan struct{}, 1), done: make(chan struct{}),
		log: cfg.Logger.With(slog.String("instance", cfg.ID))}
	go i.run()
	return i
}

// ID names the instance.
func (i *Instance) ID() string { return i.id }

// Agent is the spec that it runs.
func (i *Instance) Agent() *spec.Agent { return i.cfg.Agent }

// Done is closed when the instance has ended for good: its process is dead and every attempt finished or given back.
func (i *Instance) Done() <-chan struct{} { return i.done }

// Run gives attempts to the process, all or none; false means none.
func (i *Instance) Run(as []*worker.Attempt) bool {
	i.mu.Lock()
	s := i.session
	i.mu.Unlock()
	return s != nil && s.run(as)
}

// cancelDrain is how long the neighbors of a cancelled attempt may go on; a rebalance waits for 3 s.
const cancelDrain = 2 * time.Second

// Cancel ends an attempt and reports whether it was here. The base protocol can't end one alone.
func (i *Instance) Cancel(a *worker.Attempt) bool {
	i.mu.Lock()
	s := i.session
	i.mu.Unlock()
	if s == nil {
		return false
	}
	found, begun := s.cancel(a)
	if begun {
		i.retire(Order{Reason: wasCancelled, Drain: cancelDrain, Kill: true})
	}
	return found
}

// Interrupt asks an attempt to end by itself, since its task was cancelled, and reports whether it was here. One that has
// not ended when graceful_timeout_sec is over takes its process with it, as one that takes too long does; so does one whose
// program knows no cancel, at once.
func (i *Instance) Interrupt(a *worker.Attempt) bool {
	i.mu.Lock()
	s := i.session
	i.mu.Unlock()
	if s == nil {
		return false
	}
	return s.interrupt(a, i.cfg.Agent.Process.GracefulTimeoutSec.Duration())
}

// Stop ends the instance. A later order can only hasten an earlier one.
func (i *Instance) Stop(o Order) {
	until := time.Now().Add(o.Drain)
	i.mu.Lock()
	if i.order == nil {
		i.order, i.drainUntil = &o, until
	} else {
		i.order.Kill = i.order.Kill || o.Kill
		if until.Before(i.drainUntil) {
			i.drainUntil = until
		}
	}
	i.mu.Unlock()
	i.signal()
}

// Reset starts an instance that is down, with its restarts forgotten.
func (i *Instance) Reset() {
	i.mu.Lock()
	i.reset = true
	i.mu.Unlock()
	i.signal()
}

// retire ends the instance and has another put in its place, once.
func (i *Instance) retire(o Order) {
	i.mu.Lock()
	first := !i.retired && i.order == nil
	i.retired = true
	i.mu.Unlock()
	i.Stop(o)
	if first {
		i.cfg.Host.Replace(i, o.Reason)
	}
}

func (i *Instance) signal() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

func (i *Instance) output(line []byte, tooLong bool) {
	text := cut(line, tooLong)
	if publish, held := i.Log.add(text, time.Now()); publish || i.cfg.WholeLog {
		i.cfg.Host.Output(i, text, held)
	}
}

func (i *Instance) ordered() (o Order, until time.Time, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.order == nil {
		return Order{}, time.Time{}, false
	}
	return *i.order, i.drainUntil, true
}

func (i *Instance) takeReset() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.reset
	i.reset = false
	return r
}

// enter changes the state.
func (i *Instance) enter(to State, reason string, pid int, cause *spec.Cause) {
	i.mu.Lock()
	from := i.state
	i.state = to
	i.mu.Unlock()
	if !from.May(to) {
		i.log.Error("illegal change of state", slog.String("from", string(from)), slog.String("to", string(to)))
	}
	i.cfg.Host.Changed(i, Change{From: from, To: to, Reason: reason, PID: pid, When: time.Now(), Cause: cause})
}

// State is where the instance stands.
func (i *Instance) State() State {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state
}

// run is the instance's life: processes one after the other.
func (i *Instance) run() {
	defer close(i.done)
	for {
		end, ran, cause := i.live()
		act, delay, count := Decide(i.cfg.Agent.Process, end, ran, i.restarts, rand.Float64())
		i.mu.Lock()
		i.restarts = count
		i.mu.Unlock()
		switch act {
		case ActStop:
			return
		case ActRestart:
			if i.State() == Crashed {
				i.enter(Restarting, "restarts in "+delay.Round(time.Millisecond).String(), 0, nil)
			}
			if !i.pause(time.After(delay)) {
				i.stopUnstarted()
				return
			}
		default:
			i.takeReset() // an earlier one was for an earlier end
			i.cfg.Host.Down(i, act, cause)
			if !i.pause(nil) {
				i.stopUnstarted()
				return
			}
			i.restarts = 0
			if i.State() == Crashed {
				i.enter(Restarting, "reset", 0, nil)
			}
		}
	}
}

// pause waits until it is over, or for a reset; false means that an order came.
func (i *Instance) pause(over <-chan time.Time) bool {
	for {
		if _, _, ok := i.ordered(); ok {
			return false
		}
		if i.takeReset() {
			return true
		}
		select {
		case <-i.wake:
		case <-over:
			return true
		}
	}
}

// stopUnstarted ends an instance that has no process.
func (i *Instance) stopUnstarted() {
	if i.State() == Stopped {
		return
	}
	o, _, _ := i.ordered()
	i.enter(Stopping, o.Reason, 0, nil)
	i.enter(Stopped, o.Reason, 0, nil)
}

// remedies are what a person can do about an error of a type.
var remedies = map[string]string{
	"AgentStartupError":          "check that the directory, the program and its permissions are right, and read the agent's log: reeve agent logs TOPIC/NAME",
	"AgentCallbackNotFoundError": "check the spelling of the callback; the message lists what is there",
	"AgentDependencyError":       "install what the agent needs for the interpreter that runs it, for instance into a .venv in its directory",
	"AgentTimeoutError":          "raise the timeout, check that the agent is responsive, read its log: reeve agent logs TOPIC/NAME",
	"AgentCrashError":            "read the agent's log (reeve agent logs TOPIC/NAME), try the agent alone, check its dependencies",
}

// Cause makes a typed error with its remedy.
func Cause(typ, message string) spec.Cause {
	return spec.Cause{Type: typ, Message: message, Remediation: remedies[typ]}
}

func lastLines(l *Log) string { return strings.Join(l.Tail(20), "\n") }
