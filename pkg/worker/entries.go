package worker

import (
	"cmp"
	"slices"

	"github.com/reeve-run/reeve/pkg/offsets"
)

// entries names the attempts that the records don't tell: those that run or may start, those that may once the commit
// stands, and as far as there is room those that an earlier owner has named and that wait.
func (e *Engine) entries(p *partition, starting []*slot) []offsets.Entry {
	es := make([]offsets.Entry, 0, len(p.named)+len(starting))
	for _, s := range p.named {
		if !p.tracker.Settled(s.offset()) && !slices.Contains(starting, s) {
			es = append(es, e.entry(s))
		}
	}
	for _, s := range starting {
		if !p.tracker.Settled(s.offset()) {
			es = append(es, e.entryAt(s, s.number()))
		}
	}
	spare := func(s *slot, notBefore int64) {
		if s.part == p && len(es) < offsets.MaxEntries && p.named[s.offset()] == nil && !p.tracker.Settled(s.offset()) && !slices.Contains(starting, s) {
			es = append(es, offsets.Entry{Offset: s.offset(), Attempt: s.begun, NotBefore: notBefore})
		}
	}
	for _, s := range slices.Concat(e.suspects, p.tried) {
		if s.solo || s.untold() {
			spare(s, 0)
		}
	}
	if len(p.wants) > 0 || p.holds.crammed > 0 {
		for _, s := range slices.Concat(p.wants, e.held, e.finished) {
			if s.untold() {
				spare(s, longAgo) // nothing of it runs
			}
		}
	}
	return fit(es, p.inheritedEntries())
}

// longAgo is the time before which an attempt may not start that may start at any time: it says that the one before has
// ended.
const longAgo = 1

// fit adds the predecessor's entries of tasks that haven't been read yet, as far as there is room; those that keep
// something have their place.
func fit(es, inherited []offsets.Entry) []offsets.Entry {
	if len(es)+len(inherited) > offsets.MaxEntries {
		inherited = slices.Clone(inherited)
		slices.SortStableFunc(inherited, keptFirst)
		inherited = inherited[:max(offsets.MaxEntries-len(es), 0)]
	}
	es = append(es, inherited...)
	slices.SortFunc(es, byOffset)
	return es
}

func byOffset(a, b offsets.Entry) int { return cmp.Compare(a.Offset, b.Offset) }

func keptFirst(a, b offsets.Entry) int {
	switch {
	case a.Kept == b.Kept:
		return byOffset(a, b)
	case a.Kept:
		return -1
	}
	return 1
}

// entry names a task's attempt: the one that runs or has ended, or that may start.
func (e *Engine) entry(s *slot) offsets.Entry {
	if s.state == ready || s.state == waiting && e.trial.members[s] {
		return e.entryAt(s, s.number())
	}
	return e.entryAt(s, s.begun)
}

func (e *Engine) entryAt(s *slot, attempt int) offsets.Entry {
	en := offsets.Entry{Offset: s.offset(), Attempt: attempt, Alone: s.suspect() && s.solo && e.onTrial(s)}
	switch {
	case s.state == booked:
		burnt, timeouts := s.account.burnt, s.account.timeouts
		s.keeps.keptBy(s, burnt, timeouts, &en)
	case s.hold != nil:
		past := s.header.before()
		s.hold.keptBy(s, past.burnt, past.timeouts, &en)
	}
	return en
}

func (e *Engine) onTrial(s *slot) bool {
	_, ok := e.trial.members[s]
	return ok
}

// handedOver names the attempts that were begun and cut short, or wait for the next one, for the next owner. What has no
// place among the entries is covered by the mark: its attempt is the record's.
func handedOver(begun, inherited []offsets.Entry, mark int64) ([]offsets.Entry, int64) {
	es := slices.Concat(inherited, begun)
	if len(es) > offsets.MaxEntries {
		slices.SortFunc(es, keptFirst)
		for _, en := range es[offsets.MaxEntries:] {
			mark = max(mark, en.Offset+1)
		}
		es = es[:offsets.MaxEntries]
	}
	slices.SortFunc(es, byOffset)
	return es, mark
}

// begun gives the entries of a partition's tasks that were begun and aren't settled, as a clean commit has them: nothing
// of them runs.
func (e *Engine) begun(p *partition) []offsets.Entry {
	var all []offsets.Entry
	add := func(s *slot) {
		if s.begun > 0 && !p.tracker.Settled(s.offset()) {
			en := e.entryAt(s, s.begun)
			en.Alone = false
			all = append(all, en)
		}
	}
	for _, s := range p.named {
		add(s)
	}
	for _, s := range slices.Concat(p.tried, p.wants, e.suspects, e.held, e.finished, p.ready.slots[p.ready.head:]) {
		if s.part == p && p.named[s.offset()] == nil {
			add(s)
		}
	}
	return all
}

// nowNamed lets a task start that the metadata names.
func (e *Engine) nowNamed(s *slot) {
	s.part.named[s.offset()] = s
	switch {
	case s.cancel != nil:
		e.withdraw(s)
	case e.onTrial(s):
		e.trial.members[s] = true
	case s.hold != nil:
		s.state = ready
		s.part.holds.called.push(s)
	case s.sought:
		s.state = ready
		s.part.ready.pushFront(s)
	default:
		s.state = ready
		s.part.ready.push(s)
	}
}

// unname takes back what commits before a clean one have said: who was named and hasn't started is named again first.
func (e *Engine) unname(p *partition) {
	again := func(s *slot) bool {
		if s.state != ready || !s.named() {
			return false
		}
		s.state = waiting
		e.enqueue(s)
		return true
	}
	if p.ready.len() > 0 && len(p.named) > 0 {
		q := p.ready.slots[p.ready.head:]
		p.ready = queue{}
		for _, s := range q {
			if !again(s) {
				p.ready.push(s)
			}
		}
	}
	for s := p.holds.called.peek(); s != nil; s = p.holds.called.peek() {
		p.holds.called.pop()
		e.park(s)
	}
	for s, named := range e.trial.members {
		if named && s.part == p && s.state != running {
			e.trial.members[s] = false
			if s.hold == nil {
				delete(p.named, s.offset())
			}
			p.tried = append(p.tried, s)
		}
	}
}
