package worker

import (
	"slices"
	"sort"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// partition is an owned task partition. The engine's lock guards it.
type partition struct {
	id        int32
	topicID   [16]byte // of the topic as it was assigned: one of its name may have taken its place since
	tracker   *offsets.Tracker
	inherited *offsets.Metadata // of the predecessor; nil once everything that it speaks of is admitted
	pending   []*kgo.Record     // beyond the window
	ready     queue
	holds     holds            // tasks that have failed and keep their keys
	wants     []*slot          // to be named in a commit's metadata before they start
	tried     []*slot          // as wants, but on trial: all else waits for them
	named     map[int64]*slot  // named in the metadata, at most offsets.MaxEntries
	tails     map[uint64]*slot // the last task of each key that is held
	inFlight  map[*slot]struct{}
	live      int   // tasks admitted and not settled
	reserved  int64 // offsets below may start: a commit says so
	highest   int64 // that has started
	wanted    int64 // that should start, but isn't reserved; -1: none
	started   int   // since the last commit was prepared
	pace      int   // of starts, per commit
	suspects  int64 // mark of the inherited suspects
	suspicion int   // the engine's at the time of assignment
	changed   bool  // there is something to commit besides outcomes
	unclean   bool  // the last commit reserved something
	leaving   bool  // being revoked, or lost: nothing starts
	away      bool  // lost: nothing is committed
	gone      bool  // for good: its tasks are forgotten
	closing   bool  // a clean commit is under way: nothing starts
	paused    bool
	strict    bool // the next commit says that no task behind an unsettled one of its key has begun
	told      bool // a commit that may stand says so
	crowd     crowd
}

func newPartition(a hop.Assignment, suspicion int, strict bool) *partition {
	m := a.Metadata
	m.Reserved, m.Suspects = min(m.Reserved, a.LogEnd), min(m.Suspects, a.LogEnd) // what comes now is nobody's but ours
	p := &partition{id: a.Partition, topicID: a.TopicID, tracker: offsets.NewTracker(a.Offset, m.Settled), inherited: &m,
		named: map[int64]*slot{}, tails: map[uint64]*slot{}, inFlight: map[*slot]struct{}{},
		highest: a.Offset - 1, wanted: -1, unclean: true, suspects: m.Suspects, suspicion: suspicion}
	if !m.Clean {
		p.suspects = max(p.suspects, m.Reserved)
	}
	p.told = m.Strict
	p.strict = strict && (m.Strict || p.suspects <= a.Offset)
	return p
}

// read is the offset behind the last record that was read.
func (p *partition) read() int64 {
	if n := len(p.pending); n > 0 {
		return p.pending[n-1].Offset + 1
	}
	return p.tracker.Next()
}

// open reports whether tasks may start.
func (p *partition) open() bool { return !p.leaving && !p.closing }

// settle marks a task settled, or takes that back. What retention has overtaken meanwhile has no place any more.
func (p *partition) settle(s *slot, settled bool) {
	switch {
	case s.offset() < p.tracker.Low():
	case settled:
		p.tracker.Settle(s.offset())
	default:
		p.tracker.Unsettle(s.offset())
	}
}

// nameable is who may be named next: room is kept for those on trial, since what is named may wait for their end. Tasks
// that keep their keys have their place among the entries already.
func (p *partition) nameable() (tried, wants []*slot) {
	wants = p.wants[:min(len(p.wants), p.room())]
	room := offsets.MaxEntries - p.taken() - len(wants)
	n := 0
	for ; n < len(p.tried) && (room > 0 || p.tried[n].hold != nil); n++ {
		if p.tried[n].hold == nil {
			room--
		}
	}
	return p.tried[:n], wants
}

// asks reports whether something waits for a commit's metadata, to be reserved or named, before it starts.
func (p *partition) asks() bool {
	tried, wants := p.nameable()
	return p.wanted >= 0 || len(tried)+len(wants)+len(p.holds.due) > 0
}

// room is how many may be named next that aren't on trial.
func (p *partition) room() int { return max(offsets.MaxEntries-p.taken()-trialSize, 0) }

// inDoubt reports whether the predecessor left tasks in doubt that haven't been read yet: so far only its own metadata
// tells of them.
func (p *partition) inDoubt() bool {
	return p.inherited != nil && !p.inherited.Clean && p.tracker.Next() < max(p.inherited.Reserved, p.inherited.Suspects, lastEntry(p.inherited)+1)
}

// inheritedEntries are those of tasks that haven't been read yet.
func (p *partition) inheritedEntries() []offsets.Entry {
	if p.inherited == nil {
		return nil
	}
	es := p.inherited.Entries
	return es[sort.Search(len(es), func(i int) bool { return es[i].Offset >= p.tracker.Next() }):]
}

// queue is a first-in-first-out of slots.
type queue struct {
	slots []*slot
	head  int
}

func (q *queue) push(s *slot) { q.slots = append(q.slots, s) }

func (q *queue) peek() *slot {
	if q.head == len(q.slots) {
		return nil
	}
	return q.slots[q.head]
}

func (q *queue) pop() {
	q.slots[q.head] = nil
	q.head++
	if q.head == len(q.slots) {
		q.slots, q.head = q.slots[:0], 0
	} else if q.head >= 1024 && q.head*2 >= len(q.slots) {
		q.slots, q.head = append(q.slots[:0], q.slots[q.head:]...), 0
	}
}

// popNewest takes the last one, of those that were never tried if there are any. The queue must not be empty.
func (q *queue) popNewest() *slot {
	at := len(q.slots) - 1
	for i := at; i >= q.head; i-- {
		if q.slots[i].first() && q.slots[i].begun == 0 {
			at = i
			break
		}
	}
	s := q.slots[at]
	if q.slots = slices.Delete(q.slots, at, at+1); q.head == len(q.slots) {
		q.slots, q.head = q.slots[:0], 0
	}
	return s
}

// pushFront puts one before all others.
func (q *queue) pushFront(s *slot) {
	if q.head == 0 {
		q.slots = slices.Insert(q.slots, 0, s)
		return
	}
	q.head--
	q.slots[q.head] = s
}

func (q *queue) len() int { return len(q.slots) - q.head }

// admit takes polled records into their partitions.
func (e *Engine) admit(fs kgo.Fetches) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fs.EachPartition(func(fp kgo.FetchTopicPartition) {
		p := e.parts[fp.Partition]
		if p == nil {
			return
		}
		for _, r := range fp.Records {
			if len(p.pending) > 0 || !p.tracker.Fits(r.Offset) {
				p.pending = append(p.pending, r)
				continue
			}
			e.place(p, r)
		}
		e.refill(p)
		if len(p.pending) > holdLimit && !p.paused {
			p.paused = true
			e.member.Pause(p.id)
		}
	})
	signal(e.wakeCommit)
}

// refill admits pending records that fit since the window has moved. Where nothing is unsettled before the next of them,
// only offsets lie between that hold no record (an aborted transaction's), and the window moves there.
func (e *Engine) refill(p *partition) {
	for len(p.pending) > 0 {
		next := p.pending[0]
		if !p.tracker.Fits(next.Offset) {
			if p.tracker.Low() < p.tracker.Next() {
				break
			}
			p.tracker.Jump(next.Offset)
		}
		e.place(p, next)
		p.pending[0] = nil
		p.pending = p.pending[1:]
	}
	if p.paused && len(p.pending) < holdLimit/8 {
		p.paused = false
		e.member.Resume(p.id)
	}
}

// newSlot gives an empty one.
func (e *Engine) newSlot() *slot {
	if len(e.blank) == 0 {
		e.blank = make([]slot, slotsAtOnce)
	}
	s := &e.blank[0]
	e.blank = e.blank[1:]
	return s
}

// slotsAtOnce is how many slots are made together, which costs less than one after the other. They are freed together too.
const slotsAtOnce = 50

// place admits one record.
func (e *Engine) place(p *partition, r *kgo.Record) {
	// What a kept partition reads again was delivered before, a marker as well: it may lie below what is settled by now.
	fresh := p.tracker.Deliver(r.Offset)
	if fresh && r.Attrs.IsControl() {
		p.tracker.Settle(r.Offset)
		p.changed = true
		return
	}
	p.changed = true
	if !fresh {
		return
	}
	s := e.newSlot()
	s.eng, s.part = e, p
	s.attempt.Record, s.attempt.slot = r, s
	s.header.read(r)
	p.live++
	if s.header.rejected() {
		e.settleUnrun(s, Result{Outcome: task.Rejected, Class: task.Class(s.header.past.errorClass), Message: string(s.header.past.errorMessage)})
		return
	}
	var tail *slot
	keyed := e.spec.Config.Ordering != spec.OrderingNone && r.Key != nil
	if keyed {
		s.key = hashKey(r.Key)
		tail = p.tails[s.key]
	}
	culprit := p.inherited != nil && e.inherit(p, s, tail != nil)
	e.apart(s)
	if culprit && (tail != nil || !e.strict()) {
		e.settleCulprit(s)
		return
	}
	if keyed {
		s.keyed, p.tails[s.key] = true, s
	}
	switch {
	case tail != nil:
		tail.next = s
	case culprit:
		e.settleCulprit(s)
	default:
		e.enqueue(s)
	}
}

// inherit applies the predecessor's metadata to a task, behind another one of its key or not; it reports whether it has
// killed its host.
func (e *Engine) inherit(p *partition, s *slot, behind bool) (culprit bool) {
	i := inherit(p.inherited, s.offset(), s.header.attempt, behind)
	s.begun = i.begun
	if i.suspect {
		s.suspicion, s.solo = p.suspicion, i.solo
	}
	if i.kept != nil {
		e.inheritHold(s, i.kept)
	}
	if s.offset() >= max(p.inherited.Reserved, p.inherited.Suspects) && s.offset() >= lastEntry(p.inherited) {
		p.inherited = nil
	}
	return i.culprit
}

// hostKilled is the message of an attempt that killed its host.
const hostKilled = "the worker's process died while this task ran alone in it"

// apart keeps the retry of a task that has crashed from doing the same to others once more: it gets a process to itself,
// and where it has killed its host all else waits, so that one death tells whose fault it is.
func (e *Engine) apart(s *slot) {
	past := s.header.past
	s.crashed = past != nil && string(past.errorClass) == string(task.ClassCrash)
	if s.crashed && string(past.errorMessage) == hostKilled {
		s.suspicion, s.solo = e.suspicion, true
	}
}

// settleCulprit settles the attempt in which a task killed its host.
func (e *Engine) settleCulprit(s *slot) {
	s.attempt.Number = s.begun
	e.settleUnrun(s, Result{Outcome: task.Crashed, Class: task.ClassCrash, Message: hostKilled})
	e.clearSuspects()
}

func lastEntry(m *offsets.Metadata) int64 {
	if len(m.Entries) == 0 {
		return -1
	}
	return m.Entries[len(m.Entries)-1].Offset
}

// settleUnrun finishes a task that doesn't run.
func (e *Engine) settleUnrun(s *slot, r Result) {
	s.result, s.state = r, finished
	e.finished = append(e.finished, s)
}

// enqueue puts a task whose key is free where it waits for its start.
func (e *Engine) enqueue(s *slot) {
	if s.hold == nil {
		delete(s.part.named, s.offset())
	}
	if e.withdrawn(s) {
		return
	}
	switch {
	case s.suspect():
		e.suspects = append(e.suspects, s)
	case s.hold != nil:
		e.park(s)
	case s.named():
		s.part.wants = append(s.part.wants, s)
	default:
		s.state = ready
		s.part.ready.push(s)
	}
}

// release lets the next task of the same key go on.
func (e *Engine) release(s *slot) {
	if !s.keyed {
		return
	}
	s.keyed = false
	if s.next != nil {
		e.enqueue(s.next)
		s.next = nil
	} else if s.part.tails[s.key] == s {
		delete(s.part.tails, s.key)
	}
}
