package worker

import (
	"maps"
	"slices"
	"time"

	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// With ordering strict a key waits at its owner until its task is settled for good. A failed attempt is settled like any
// other, with its outcome, but no record goes to a retry topic: the task stays unsettled, keeps its key, and runs again
// here when its delay is over. The commit that carries the outcome also has an entry for the task, which says what its
// record can't: attempts, retries used up, timeouts, and before when the next attempt may not start. So whoever owns the
// partition next goes on from there.
//
//	finished ─► booked (booked an entry) ─► held ─► due ─► called (a commit says that it may have begun) ─► running
//
// The next task of the key starts when the settlement of the last one is committed, not before: what isn't committed may
// have to be repeated, and would then come after.

// hold is what a task that keeps its key knows beyond its record and its header, which goes on counting.
type hold struct {
	attempt int       // the last one that was settled
	due     time.Time // the next one doesn't start before
	first   int64     // when the first attempt failed, Unix milliseconds; 0: as the header says
	fresh   bool      // booked its entry with the transaction under way
}

// holds is a partition's tasks that keep their keys. All of them have an entry, and are among the named.
type holds struct {
	waiting []*slot // for their time, the earliest first
	due     []*slot // the next commit names their next attempts
	called  queue   // may start
	count   int
	crammed int // failed tasks that wait for an entry
}

// maxHolds is how many tasks of a partition may keep their keys: the other entries are for suspects on trial, which must
// never wait for these, since all else waits for them.
const maxHolds = offsets.MaxEntries - trialSize

// strict reports whether keys wait until their tasks are settled for good.
func (e *Engine) strict() bool { return e.spec.Config.Ordering == spec.OrderingStrict }

// decide judges a finished task, and whether it keeps its key.
func (e *Engine) decide(s *slot) {
	s.verdict, s.keeps = e.judge(s), nil
	if s.verdict.Settled != task.SettledRetry || !s.keyed || !e.strict() {
		return
	}
	ended := s.ended
	if ended.IsZero() { // it died with its host
		ended = time.Now()
	}
	if s.verdict.Class == task.ClassRateLimited { // no topic has to have the delay: it is as long as it was asked for
		s.verdict.Delay = e.policy.rateLimited(Tries{Number: s.attempt.Number}, s.result)
	}
	s.keeps = &hold{attempt: s.attempt.Number, due: ended.Add(s.verdict.Delay)}
	if s.header.before().firstFailed == nil {
		s.keeps.first = ended.UnixMilli()
	}
}

// book takes an entry for a failed task that is to keep its key; without one it has to wait.
func (e *Engine) book(s *slot) bool {
	p := s.part
	_, named := p.named[s.offset()]
	if s.hold == nil {
		if e.lasting(p, s) >= maxHolds {
			p.holds.crammed++
			delete(p.named, s.offset()) // it has ended: those on trial need the room more
			return false
		}
		p.holds.count++
		e.holders++
	}
	s.state, s.keeps.fresh = booked, !named
	p.named[s.offset()] = s
	return true
}

// lasting counts the entries of a partition, that of a task aside, which may be needed until the trials are over.
func (e *Engine) lasting(p *partition, but *slot) int {
	n := p.taken()
	if p.named[but.offset()] != nil {
		n--
	}
	for s, named := range e.trial.members {
		if named && s.part == p && s.hold == nil && s != but {
			n--
		}
	}
	return n
}

// unbook takes a booking back: its transaction has failed.
func (e *Engine) unbook(s *slot) {
	s.state = finished
	if s.part.gone {
		return
	}
	if s.hold == nil {
		s.part.holds.count--
		e.holders--
	}
	if s.keeps.fresh {
		delete(s.part.named, s.offset())
	}
}

// retain keeps a failed task in place, now that its attempt is settled.
func (e *Engine) retain(s *slot) {
	past := s.header.remember()
	past.burnt, past.timeouts, past.kept = s.account.burnt, s.account.timeouts, s.account
	s.crashed = s.verdict.Class == task.ClassCrash
	s.hold, s.keeps, s.verdict, s.result = s.keeps, nil, Verdict{}, Result{}
	s.header.since(s.hold.first)
	s.suspicion, s.solo = 0, false
	if !s.part.gone && !e.withdrawn(s) {
		e.park(s)
	}
}

// settledHold gives the entry of a task back that is settled for good.
func (e *Engine) settledHold(s *slot) {
	if s.hold != nil && !s.part.gone {
		s.part.holds.count--
		e.holders--
	}
}

// since sets when the first attempt failed, where that isn't known.
func (h *header) since(first int64) {
	if first > 0 && h.before().firstFailed == nil {
		h.remember().firstFailed = time.UnixMilli(first).UTC().AppendFormat(nil, timeFormat)
	}
}

// inheritHold makes a predecessor's entry count for its task. Its clock may be wrong: no delay is longer than a tier.
func (e *Engine) inheritHold(s *slot, en *offsets.Entry) {
	now := time.Now()
	h := &hold{attempt: en.Attempt - 1, due: now, first: en.FirstFailed}
	if en.NotBefore > 0 {
		h.attempt = en.Attempt
		wait := min(time.UnixMilli(en.NotBefore).Sub(now), e.policy.Tiers[len(e.policy.Tiers)-1])
		h.due = now.Add(max(wait, 0))
	}
	past := s.header.remember()
	past.burnt, past.timeouts = en.Burnt, en.Timeouts
	s.header.keepSince(h.first)
	s.header.since(h.first)
	s.hold, s.part.named[s.offset()] = h, s
	s.part.holds.count++
	e.holders++
}

// park lets a task wait until its next attempt is due.
func (e *Engine) park(s *slot) {
	s.state = held
	e.hasten(s)
	w := &s.part.holds.waiting
	i, _ := slices.BinarySearchFunc(*w, s, func(a, b *slot) int {
		if a.hold.due.After(b.hold.due) {
			return 1
		}
		return -1
	})
	*w = slices.Insert(*w, i, s)
	signal(e.wakeSchedule)
}

// callDue asks for the names of up to n attempts that are due: no more than may start, since what is named may have
// begun to whoever comes next.
func (e *Engine) callDue(n int, now time.Time) {
	for _, p := range e.order {
		n -= len(p.holds.due) + p.holds.called.len()
	}
	for _, p := range e.order {
		for p.open() && n > 0 && len(p.holds.waiting) > 0 && !p.holds.waiting[0].hold.due.After(now) {
			p.holds.due = append(p.holds.due, p.holds.waiting[0])
			p.holds.waiting = slices.Delete(p.holds.waiting, 0, 1)
			n--
			signal(e.wakeCommit)
		}
	}
}

// nextDue is when the next of the tasks that keep their keys may start.
func (e *Engine) nextDue() (due time.Time, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holders == 0 || e.draining {
		return due, false
	}
	for _, p := range e.order {
		if w := p.holds.waiting; len(w) > 0 && (!ok || w[0].hold.due.Before(due)) {
			due, ok = w[0].hold.due, true
		}
	}
	if least := time.Now().Add(tick); ok && due.Before(least) && !due.After(time.Now()) {
		due = least // there is no place for it, or no lease
	}
	return due, ok
}

// owed is the predecessor's entries of tasks that keep their keys and haven't been read yet.
func (p *partition) owed() []offsets.Entry {
	if p.inherited == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(p.inheritedEntries()), func(en offsets.Entry) bool { return !en.Kept })
}

// taken is how many entries nobody else can have.
func (p *partition) taken() int { return len(p.named) + len(p.owed()) }

// crammed reports whether so many failed tasks wait for an entry that no more should run: a kill would repeat them all.
func (p *partition) crammed() bool { return p.holds.crammed >= trialSize }

// keptBy puts into an entry what a task that keeps its key has to tell.
func (h *hold) keptBy(s *slot, burnt, timeouts int, en *offsets.Entry) {
	en.Kept, en.Burnt, en.Timeouts = true, burnt, min(timeouts, offsets.MaxTimeouts)
	if en.FirstFailed = h.first; en.FirstFailed == 0 {
		en.FirstFailed = s.header.firstFailedAt()
	}
	if en.Attempt == h.attempt {
		en.NotBefore = h.notBefore()
	}
}

// notBefore is the due time in Unix milliseconds, rounded up.
func (h *hold) notBefore() int64 { return h.due.Add(time.Millisecond - 1).UnixMilli() }

// firstFailedAt is when the record says that the first attempt failed; 0 where it doesn't.
func (h *header) firstFailedAt() int64 {
	if at, err := time.Parse(timeFormat, string(h.before().firstFailed)); err == nil {
		return at.UnixMilli()
	}
	return 0
}

// relax follows a spec that isn't strict any more: what waits behind a task that keeps its key may go on, as soon as no
// commit says that nothing has begun there.
func (e *Engine) relax() {
	for _, ps := range []map[int32]*partition{e.parts, e.lost} {
		for _, p := range ps {
			p.strict, p.changed = false, true
		}
	}
	signal(e.wakeCommit)
}

// waits reports whether a finished task keeps its key until it is settled: the agent is strict, or was until now and the
// last commit still says so.
func (e *Engine) waits(p *partition) bool { return e.strict() || p.told }

// releaseHeld lets the keys go that an agent keeps no longer.
func (e *Engine) releaseHeld(p *partition) {
	if e.waits(p) || p.holds.count == 0 {
		return
	}
	for _, s := range slices.Collect(maps.Values(p.named)) {
		if s.hold != nil {
			e.release(s)
		}
	}
}
