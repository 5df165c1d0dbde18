package redrive

// redriven is a task that is under way.
type redriven struct {
	cause string
	round int
	unrun bool // it isn't run, which says nothing of its failure
}

// begun notes tasks that are about to be redriven; they may end before the transaction's answer is here. What ends unrun
// says nothing of a failure.
func (r *run) begun(batch []*letter) {
	r.tasks.Lock()
	defer r.tasks.Unlock()
	for _, l := range batch {
		if !l.unrun {
			r.pace(l).Move()
		}
		r.underway[l.id] = redriven{l.cause, l.round, l.unrun}
	}
}

// notBegun takes begun back.
func (r *run) notBegun(batch []*letter) {
	r.tasks.Lock()
	defer r.tasks.Unlock()
	for _, l := range batch {
		if u, ok := r.underway[l.id]; ok {
			delete(r.underway, l.id)
			if !u.unrun {
				r.paces[u.cause].takeBack()
			}
		}
	}
}

// ended takes how a redriven task ended. It is called from another goroutine.
func (r *run) ended(e ending) {
	r.tasks.Lock()
	defer r.tasks.Unlock()
	u, ok := r.underway[e.id]
	if !ok {
		return
	}
	how, ok := e.of(u.cause, u.round)
	if !ok {
		return
	}
	delete(r.underway, e.id)
	switch {
	case !u.unrun:
		r.paces[u.cause].End(how)
	case how != gone:
		r.dead++
	}
	signal(r.woken)
}
