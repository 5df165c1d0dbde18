package pool

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
	"github.com/reeve-run/reeve/services/supervisor/internal/process"
)

// Observer is told what the instances do. It must not block.
type Observer interface {
	Changed(a *spec.Agent, id string, c instance.Change)
	Checked(a *spec.Agent, id string, c instance.Check)
	Output(a *spec.Agent, id, line string, heldBack int)
}

// Config configures a Pool. All fields but the last three are required.
type Config struct {
	Agent    *spec.Agent
	Starter  *process.Starter
	Observer Observer
	// Prepare says how to start an instance.
	Prepare func(a *spec.Agent, id string) (process.Command, error)
	// NextID gives a new instance's name.
	NextID func() string
	Logger *slog.Logger
	// LineLimit, PongTimeout and Names are instance.Config's.
	LineLimit   int
	PongTimeout time.Duration
	Names       topics.Names
}

// Pool is an agent's instances in this process. Its methods are safe for concurrent use.
type Pool struct {
	cfg     Config
	changed chan struct{}

	mu      sync.Mutex
	agent   *spec.Agent
	kick    func()
	size    int // instances wanted
	members []*member
	leaving map[*instance.Instance]*member // on their way out
	pending []*worker.Attempt
	closed  bool
}

// member is an instance with what the pool knows of it.
type member struct {
	load
	inst  *instance.Instance
	lives int // how often it has become RUNNING
	state instance.State
	claim *worker.Attempt // waits to run alone
	down  *Down           // it won't start again by itself
	stale bool            // to be replaced
	next  bool            // it is to replace a stale one
	fault *spec.Cause     // of its last crash
}

// Down says why an instance doesn't start again by itself.
type Down struct {
	Act   instance.Action
	Cause spec.Cause
}

var (
	_ worker.Runner      = (*Pool)(nil)
	_ worker.Interrupter = (*Pool)(nil)
)

// New makes an empty pool.
func New(cfg Config) *Pool {
	return &Pool{cfg: cfg, agent: cfg.Agent, changed: make(chan struct{}, 1), kick: func() {}, leaving: map[*instance.Instance]*member{}}
}

// Attach sets what is called when slots grow for another reason than a finished attempt.
func (p *Pool) Attach(kick func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kick = kick
}

// Changes is signaled when Status may say something else.
func (p *Pool) Changes() <-chan struct{} { return p.changed }

// Status is what a pool knows of itself.
type Status struct {
	Size     int   // instances wanted
	Running  int   // instances RUNNING
	InFlight int   // attempts
	Down     *Down // of an instance that is down, if all of the current ones are
	// Fault is why an instance that is to start again by itself didn't come up.
	Fault *spec.Cause
}

// Status sums up.
func (p *Pool) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Size: p.size}
	current, down := 0, 0
	for _, m := range p.members {
		s.InFlight += m.inFlight
		if m.state == instance.Running {
			s.Running++
		}
		if m.stale {
			continue
		}
		current++
		if m.down != nil {
			down++
			s.Down = m.down
		} else if m.fault != nil {
			s.Fault = m.fault
		}
	}
	for _, m := range p.leaving {
		s.InFlight += m.inFlight
	}
	if down < current {
		s.Down = nil
	}
	return s
}

// Resize changes how many instances run.
func (p *Pool) Resize(n int) {
	p.mu.Lock()
	p.size = n
	p.fit("scaled")
	p.unlock()
}

// fit starts or stops instances until there are as many as wanted. The lock is held.
func (p *Pool) fit(reason string) {
	if p.closed {
		return
	}
	for len(p.members) < p.size {
		p.add()
	}
	for p.surplus() > 0 {
		p.retire(p.dispensable(), reason)
	}
}

// surplus counts the instances beyond size; one that is to replace another isn't counted while the other runs.
func (p *Pool) surplus() int {
	n := len(p.members) - p.size
	for _, m := range p.members {
		if m.next && p.size > 0 {
			n--
		}
	}
	return n
}

// dispensable gives the instance to stop first: one that doesn't run, else the one with the least in flight.
func (p *Pool) dispensable() *member {
	return slices.MinFunc(p.members, func(a, b *member) int {
		if ar, br := a.state == instance.Running, b.state == instance.Running; ar != br {
			if br {
				return -1
			}
			return 1
		}
		return a.inFlight - b.inFlight
	})
}

// add starts an instance. The lock is held, so the instance's first word waits until it is known.
func (p *Pool) add() *member {
	agent, id := p.agent, p.cfg.NextID()
	m := &member{state: instance.Idle, load: load{limit: agent.Config.Concurrency}}
	m.inst = instance.Start(instance.Config{
		Agent: agent, ID: id, Host: (*host)(p), Starter: p.cfg.Starter, Logger: p.cfg.Logger, LineLimit: p.cfg.LineLimit, PongTimeout: p.cfg.PongTimeout, Names: p.cfg.Names,
		Prepare: func() (process.Command, error) { return p.cfg.Prepare(agent, id) },
	})
	p.members = append(p.members, m)
	return m
}

// retire stops an instance in its turn. The lock is held.
func (p *Pool) retire(m *member, reason string) {
	p.leave(m)
	m.inst.Stop(instance.Order{Reason: reason, Drain: m.inst.Agent().Process.DrainTimeout.Duration()})
}

// leave takes an instance out of those that count. The lock is held.
func (p *Pool) leave(m *member) {
	m.accepting = false
	p.members = slices.DeleteFunc(p.members, func(x *member) bool { return x == m })
	p.leaving[m.inst] = m
	p.unclaim(m)
}

// unclaim puts the attempt that waits to run alone in an instance back in line. The lock is held.
func (p *Pool) unclaim(m *member) {
	if m.claim != nil {
		p.requeue([]*worker.Attempt{m.claim})
		m.claim, m.claimed = nil, false
	}
}

// Replace puts instances of a spec in the place of all others, one after the other: an old one that runs goes when
// its successor runs.
func (p *Pool) Replace(a *spec.Agent, reason string) {
	p.mu.Lock()
	p.agent = a
	for _, m := range slices.Clone(p.members) {
		if m.state == instance.Running && !m.next {
			m.stale = true
		} else {
			p.retire(m, reason)
		}
	}
	p.roll()
	p.fit(reason)
	p.unlock()
}

// Adopt takes a spec that changes nothing for the processes.
func (p *Pool) Adopt(a *spec.Agent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.agent = a
}

// roll starts the next successor, if an instance is stale and no successor is on its way. The lock is held.
func (p *Pool) roll() {
	stale := false
	for _, m := range p.members {
		if m.next {
			return
		}
		stale = stale || m.stale
	}
	if stale && !p.closed {
		p.add().next = true
	}
}

// Reset starts the instances that are down.
func (p *Pool) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.members {
		if m.down != nil {
			m.down, m.fault = nil, nil
			m.inst.Reset()
		}
	}
}

// Close stops all instances, with so long for what is in flight, and waits until their processes are dead. Attempts that
// never began are cut short.
func (p *Pool) Close(drain time.Duration, reason string) {
	p.mu.Lock()
	p.closed = true
	for _, m := range slices.Clone(p.members) {
		p.leave(m)
	}
	var all []*instance.Instance
	for inst := range p.leaving {
		inst.Stop(instance.Order{Reason: reason, Drain: drain})
		all = append(all, inst)
	}
	p.mu.Unlock()
	for _, inst := range all {
		<-inst.Done()
	}
	p.mu.Lock()
	left := p.pending
	p.pending = nil
	p.mu.Unlock()
	for _, a := range left {
		a.Finish(worker.Result{CutShort: true})
	}
}

// Rolling reports whether instances are being replaced. It ends with the last of them, or when a successor is down.
func (p *Pool) Rolling() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.members, func(m *member) bool { return m.next && m.down == nil })
}

// Freeze lets the pool start no more instances: it is about to be closed.
func (p *Pool) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}
