package pool

import (
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
)

// host is the Pool as its instances' Host.
type host Pool

var _ instance.Host = (*host)(nil)

// Changed follows an instance's state.
func (h *host) Changed(i *instance.Instance, c instance.Change) {
	p := (*Pool)(h)
	p.cfg.Observer.Changed(i.Agent(), i.ID(), c) // before what follows from it
	p.mu.Lock()
	m := p.find(i)
	if m != nil {
		p.follow(m, c)
	}
	kick := p.kick
	p.unlock()
	if c.To == instance.Running {
		kick()
	}
	p.signal()
}

// follow takes note of a member's state. The lock is held.
func (p *Pool) follow(m *member, c instance.Change) {
	m.state = c.To
	if c.Cause != nil {
		m.fault = c.Cause
	}
	_, gone := p.leaving[m.inst]
	switch {
	case c.To == instance.Stopped && gone:
		delete(p.leaving, m.inst)
	case c.To == instance.Running && !gone:
		m.accepting, m.down, m.fault = true, nil, nil
		m.lives++
		p.succeed(m)
	default:
		m.accepting = false
		p.unclaim(m)
	}
}

// succeed stops one stale instance now that its successor runs. The lock is held.
func (p *Pool) succeed(m *member) {
	if !m.next {
		return
	}
	m.next = false
	for _, old := range p.members {
		if old.stale {
			p.retire(old, "replaced")
			break
		}
	}
	p.roll()
	p.fit("scaled")
}

// Replace puts another instance in the place of one that ends.
func (h *host) Replace(i *instance.Instance, _ string) {
	p := (*Pool)(h)
	p.mu.Lock()
	for _, m := range p.members {
		if m.inst == i {
			p.leave(m)
			p.fit("scaled")
			break
		}
	}
	p.unlock()
}

// Freed makes room for what waits.
func (h *host) Freed(i *instance.Instance, n int) {
	p := (*Pool)(h)
	p.mu.Lock()
	if m := p.find(i); m != nil {
		p.release(m, n)
	}
	p.unlock()
}

// Returned puts attempts that never began back in line.
func (h *host) Returned(i *instance.Instance, as []*worker.Attempt) {
	p := (*Pool)(h)
	p.mu.Lock()
	if m := p.find(i); m != nil {
		p.release(m, len(as))
	}
	p.requeue(as)
	p.unlock()
}

// Checked passes on.
func (h *host) Checked(i *instance.Instance, c instance.Check) {
	h.cfg.Observer.Checked(i.Agent(), i.ID(), c)
}

// Output passes on.
func (h *host) Output(i *instance.Instance, line string, heldBack int) {
	h.cfg.Observer.Output(i.Agent(), i.ID(), line, heldBack)
}

// Down notes that an instance doesn't start again by itself.
func (h *host) Down(i *instance.Instance, act instance.Action, cause spec.Cause) {
	p := (*Pool)(h)
	p.mu.Lock()
	if m := p.find(i); m != nil {
		m.down = &Down{Act: act, Cause: cause}
	}
	p.mu.Unlock()
	p.signal()
}

func (p *Pool) signal() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}
