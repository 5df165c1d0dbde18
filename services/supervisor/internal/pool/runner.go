package pool

import (
	"slices"

	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
)

// delivery is attempts on their way to an instance.
type delivery struct {
	to    *member
	lives int // of the instance, when it was chosen
	what  []*worker.Attempt
}

// Slots is how many more attempts may start.
func (p *Pool) Slots() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := -len(p.pending)
	for _, m := range p.members {
		n += m.slots()
	}
	return max(n, 0)
}

// Run starts attempts.
func (p *Pool) Run(batch []*worker.Attempt) {
	p.mu.Lock()
	p.pending = append(p.pending, batch...)
	p.unlock()
}

// Cancel ends an attempt.
func (p *Pool) Cancel(a *worker.Attempt) { p.end(a, (*instance.Instance).Cancel) }

// Interrupt asks an attempt to end, whose task was cancelled.
func (p *Pool) Interrupt(a *worker.Attempt) { p.end(a, (*instance.Instance).Interrupt) }

// end ends an attempt: at once where no instance has it yet, else as the instance does.
func (p *Pool) end(a *worker.Attempt, how func(*instance.Instance, *worker.Attempt) bool) {
	p.mu.Lock()
	waited := slices.Contains(p.pending, a)
	p.pending = slices.DeleteFunc(p.pending, func(x *worker.Attempt) bool { return x == a })
	all := make([]*instance.Instance, 0, len(p.members)+len(p.leaving))
	for _, m := range p.members {
		if m.claim == a {
			m.claim, m.claimed, waited = nil, false, true
		}
		all = append(all, m.inst)
	}
	for inst := range p.leaving {
		all = append(all, inst)
	}
	p.mu.Unlock()
	if waited {
		a.Finish(worker.Result{CutShort: true})
		return
	}
	for _, inst := range all {
		if how(inst, a) {
			return
		}
	}
}

// place gives waiting attempts to instances, in their order; those without room go on waiting. The lock is held.
func (p *Pool) place() []delivery {
	var out []delivery
	out = p.secluded(out)
	if len(p.pending) == 0 {
		return out
	}
	loads := make([]load, len(p.members))
	for n, m := range p.members {
		loads[n] = m.load
	}
	waiting := p.pending[:0]
	for _, a := range p.pending {
		n := p.choose(loads, a)
		if n < 0 {
			waiting = append(waiting, a)
			continue
		}
		m := p.members[n]
		if a.Alone && m.inFlight > 0 {
			m.claim, m.claimed = a, true
		} else {
			m.inFlight++
			m.alone = a.Alone
			out = add(out, m, a)
		}
		loads[n] = m.load
	}
	clear(p.pending[len(waiting):])
	p.pending = waiting
	return out
}

func (p *Pool) choose(loads []load, a *worker.Attempt) int {
	if a.Alone {
		return seclude(loads)
	}
	return spread(loads)
}

// secluded starts attempts whose claimed instance is empty now.
func (p *Pool) secluded(out []delivery) []delivery {
	for _, m := range p.members {
		if m.claim != nil && m.inFlight == 0 && m.accepting {
			a := m.claim
			m.claim, m.claimed = nil, false
			m.inFlight, m.alone = 1, true
			out = add(out, m, a)
		}
	}
	return out
}

func add(out []delivery, m *member, a *worker.Attempt) []delivery {
	for n := range out {
		if out[n].to == m {
			out[n].what = append(out[n].what, a)
			return out
		}
	}
	return append(out, delivery{m, m.lives, []*worker.Attempt{a}})
}

// deliver hands attempts over. An instance that has gone meanwhile takes none: it counts as not accepting until it
// runs anew, and they are placed again.
func (p *Pool) deliver(out []delivery) {
	for len(out) > 0 {
		d := out[0]
		out = out[1:]
		if d.to.inst.Run(d.what) {
			continue
		}
		p.mu.Lock()
		if d.to.lives == d.lives {
			d.to.accepting = false
		}
		p.release(d.to, len(d.what))
		p.requeue(d.what)
		again := p.place()
		p.mu.Unlock()
		out = append(out, again...)
	}
}

// requeue puts attempts back to the front of the line. The lock is held.
func (p *Pool) requeue(as []*worker.Attempt) { p.pending = append(slices.Clone(as), p.pending...) }

// unlock gives waiting attempts to instances that have room for them, once the lock is released.
func (p *Pool) unlock() {
	var out []delivery
	if len(p.pending) > 0 || slices.ContainsFunc(p.members, func(m *member) bool { return m.claimed }) {
		out = p.place()
	}
	p.mu.Unlock()
	p.deliver(out)
}

func (p *Pool) release(m *member, n int) {
	m.inFlight -= n
	if m.inFlight == 0 {
		m.alone = false
	}
}

func (p *Pool) find(i *instance.Instance) *member {
	for _, m := range p.members {
		if m.inst == i {
			return m
		}
	}
	return p.leaving[i]
}
