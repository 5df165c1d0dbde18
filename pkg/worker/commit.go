package worker

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/task"
)

// purpose of a commit.
type purpose int

const (
	groupCommit purpose = iota // what has finished, and what waits for a reservation
	tidyUp                     // idle partitions become clean, markers are passed
	handOver                   // every owned partition, clean: the last commit before it goes
)

// commitLoop runs one transaction after the other while there is something to commit.
func (e *Engine) commitLoop(ctx context.Context) {
	tidy, company := time.NewTimer(tidyPause), time.NewTimer(tidyPause)
	defer tidy.Stop()
	defer company.Stop()
	looked := time.Now()
	for {
		kind := groupCommit
		select {
		case <-ctx.Done():
			return
		case <-e.wakeCommit:
		case <-company.C:
		case <-tidy.C:
			kind = tidyUp
		}
		if now := time.Now(); now.Sub(looked) >= crowdEvery { // a busy worker is never idle
			looked = now
			e.lookForCrowds(now)
		}
		for {
			settled, again := e.commit(ctx, kind)
			if !again || ctx.Err() != nil || kind != groupCommit {
				break
			}
			hop.Gather(ctx, settled)
		}
		if e.untidy() {
			tidy.Reset(tidyPause)
		}
		if d := e.leisure(time.Now()); d > 0 {
			company.Reset(d)
		}
	}
}

const (
	// linger is how long what has failed, or was retried, waits for others to be settled with. It has waited for its tier, or
	// will; what succeeds at once shouldn't wait for its transactions, each of which costs the broker as much as one of many.
	linger = 15 * time.Millisecond
	// lingerMost is how many wait so.
	lingerMost = 100
)

// leisure is how long all that has finished may wait for company; not positive: no longer, or there is nothing. What keeps
// others from starting doesn't wait.
func (e *Engine) leisure(now time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.unhurried(now)
}

// unhurried is leisure under the lock.
func (e *Engine) unhurried(now time.Time) time.Duration {
	if n := len(e.finished); n == 0 || n > lingerMost || e.full || e.draining || e.strict() {
		return 0
	}
	for _, s := range e.finished {
		if retried := s.attempt.Number > 1 && s.result.Outcome == task.Completed; s.result.Outcome != task.Failed && !retried {
			return 0
		}
	}
	for _, p := range e.order {
		if p.leaving || p.asks() { // a transaction is needed anyway
			return 0
		}
	}
	return e.finished[0].ended.Add(linger).Sub(now)
}

// untidy reports whether an idle moment should be used for a commit.
func (e *Engine) untidy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.finished)+len(e.held) > 0 { // a destination is waited for, or the outage rule
		return true
	}
	for _, p := range e.order {
		if p.changed || p.unclean {
			return true
		}
	}
	return false
}

// transaction is what one commit is about.
type transaction struct {
	tx     hop.Tx
	batch  []*slot
	parts  []part
	route  string // the batch's common destination, while destinations are kept apart
	owners []*slot
	writer *writer // of its records
	ended  []endedCancel
	mixed  bool
	done   []*slot      // of the batch: what is settled for good, and so nobody's any more
	told   []Settlement // of the others
}

// part is what a transaction says of one partition.
type part struct {
	*partition
	reserved int64
	tried    []*slot
	wants    []*slot
	due      []*slot
	clean    bool
	strict   bool
}

// commit runs one transaction. It says how many attempts it settled, and whether another one may be worth while at once.
func (e *Engine) commit(ctx context.Context, why purpose) (settled int, again bool) {
	e.committing.Lock()
	defer e.committing.Unlock()
	t := e.prepare(why)
	if t == nil {
		return 0, false
	}
	if !e.address(ctx, t) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.undo(t)
		return 0, true
	}
	err := e.cfg.Pool.Commit(ctx, t.tx)
	if err == nil {
		e.committed(t)
		e.written(t)
		t.tellCancels()
		if e.cfg.Settled != nil && len(t.batch) > 0 {
			e.cfg.Settled(t.settlements())
		}
		return len(t.batch), true
	}
	again = e.rolledBack(t, err)
	if !again && ctx.Err() == nil {
		e.log.Warn("a commit is tried again", slog.Int("outcomes", len(t.batch)), slog.Any("error", err))
	}
	return 0, again
}

// commitLast commits what has finished, as a hand-over, in as many transactions as it takes. It gives up where some of
// them in a row settle nothing of what is waited for.
func (e *Engine) commitLast(ctx context.Context, of func(*slot) bool) {
	const patience = 5
	left := e.left(of)
	for tries := 0; tries < patience && ctx.Err() == nil; tries++ {
		if _, again := e.commit(ctx, handOver); !again {
			return
		}
		if n := e.left(of); n < left {
			left, tries = n, 0
		}
	}
}

// left counts finished tasks that aren't settled.
func (e *Engine) left(of func(*slot) bool) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.finished {
		if of(s) {
			n++
		}
	}
	return n
}

// settlements are those of a transaction that is committed: nobody else has its tasks any more.
func (t *transaction) settlements() iter.Seq[Settlement] {
	return func(yield func(Settlement) bool) {
		for _, s := range t.done {
			if !yield(Settlement{Verdict: s.verdict, First: s.first()}) {
				return
			}
		}
		for _, s := range t.told {
			if !yield(s) {
				return
			}
		}
	}
}

// prepare takes what is to be committed together; nil where there is nothing.
func (e *Engine) prepare(why purpose) *transaction {
	e.mu.Lock()
	defer e.mu.Unlock()
	if why == groupCommit && e.unhurried(time.Now()) > 0 {
		return nil
	}
	t := &transaction{tx: hop.Tx{Member: e.member, Generation: e.member.Generation()}}
	t.batch, t.route, t.mixed = e.takeFinished(why)
	t.done = t.batch
	for i, s := range t.batch {
		s.part.changed = true
		if s.keeps == nil {
			s.part.settle(s, true)
			if len(t.told) > 0 {
				t.done = append(t.done, s)
			}
			continue
		}
		if len(t.told) == 0 {
			t.done = slices.Clone(t.batch[:i])
		}
		t.told = append(t.told, Settlement{Verdict: s.verdict, First: s.first()})
	}
	if len(t.batch) == 0 {
		if t.route = offsetsOnly; why != handOver && !e.delivery.admits(offsetsOnly, time.Now()) {
			return nil
		}
	}
	needed := len(t.batch) > 0
	for _, p := range e.order {
		needed = needed || p.asks()
	}
	if !needed && why == groupCommit {
		return nil
	}
	t.tx.Offsets = map[int32]hop.Position{}
	for _, p := range e.order {
		idle := why == handOver && len(p.inFlight) == 0 || why != groupCommit && p.live == 0 && len(p.pending) == 0
		clean := idle && !p.inDoubt()
		if p.changed || p.wanted >= 0 || len(p.wants)+len(p.tried)+len(p.holds.due) > 0 || p.unclean && clean {
			t.parts = append(t.parts, e.describe(t, p, clean))
		}
	}
	if len(t.parts) == 0 {
		return nil
	}
	return t
}

// takeFinished takes results out of the list, up to the limit. While destinations are kept apart it takes those of one.
// A hand-over doesn't wait for a destination that failed a moment ago: there is no later.
func (e *Engine) takeFinished(why purpose) (batch []*slot, route string, mixed bool) {
	now := time.Now()
	e.reconsider(now)
	kept := e.finished[:0:0]
	routes, all := map[string]bool{}, true
	published, bytes := 0, 0
	for _, p := range e.order {
		p.holds.crammed = 0
	}
	for i, s := range e.finished {
		if len(batch)+published >= batchLimit || bytes >= batchBytes {
			kept, all = append(kept, e.finished[i:]...), false
			break
		}
		if s.part.away {
			e.uncount(s)
			kept, all = append(kept, s), false
			continue
		}
		if s.verdict.Settled == "" {
			if e.decide(s); e.holdBack(s, now) {
				continue
			}
		}
		r := e.routeOf(s)
		if len(e.delivery.waits) > 0 {
			routes[r] = true
		}
		if why != handOver && !e.delivery.admits(r, now) || e.delivery.apart && len(batch) > 0 && r != route {
			e.uncount(s)
			kept = append(kept, s)
			continue
		}
		if s.keeps != nil && !e.book(s) {
			e.uncount(s)
			kept = append(kept, s)
			continue
		}
		if len(batch) == 0 {
			route = r
		}
		mixed = mixed || r != route
		batch = append(batch, s)
		published += len(s.published())
		bytes += s.bytes()
	}
	e.finished = kept
	if all && len(e.held) == 0 && e.delivery.endWaits(func(r string) bool { return r != offsetsOnly && !leads(routes, r) }) {
		e.resolved("what waited for its destination is another worker's")
	}
	return batch, route, mixed
}

// describe writes a partition's position and metadata into the transaction.
func (e *Engine) describe(t *transaction, p *partition, clean bool) part {
	low, settled := p.tracker.Position()
	if p.live == 0 {
		p.strict = e.strict()
	}
	p.told = p.told || p.strict
	m := offsets.Metadata{Clean: clean, Strict: p.strict, TopicID: p.topicID, Node: e.cfg.Node, Settled: settled, Outages: e.outage.spells}
	d := part{partition: p, clean: clean, strict: p.strict}
	if p.suspects > low {
		m.Suspects = p.suspects
	}
	if clean {
		m.Entries, m.Suspects = handedOver(e.begun(p), p.inheritedEntries(), m.Suspects)
		p.reserved, p.closing = 0, true // nothing starts behind a clean commit's back
	} else {
		p.pace, p.started = paceOf(p.pace, p.started), 0
		d.reserved = reserveTo(low, p.reserved, max(p.highest, p.wanted), p.pace)
		m.Reserved = d.reserved
		d.tried, d.wants = p.nameable()
		d.due = p.holds.due
		m.Entries = e.entries(p, slices.Concat(d.tried, d.wants, d.due))
	}
	p.changed = false // what changes from now on is for the next
	t.tx.Offsets[p.id] = hop.Position{Offset: low, Metadata: m.Encode(low)}
	return d
}

// committed makes a transaction count.
func (e *Engine) committed(t *transaction) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range t.batch {
		e.uncount(s)
		if len(s.published()) > 0 {
			e.weigh(s, s.result)
		}
		e.endProbe(s)
		if s.keeps != nil {
			e.retain(s)
			continue
		}
		delete(s.part.named, s.offset())
		s.part.live--
		e.settledHold(s)
		if !s.part.gone {
			e.release(s)
		}
		e.endCancel(t, s)
	}
	for _, d := range t.parts {
		p := d.partition
		p.tracker.Advance()
		p.unclean, p.closing = !d.clean, false
		p.reserved, p.told = d.reserved, d.strict
		if p.wanted < p.reserved {
			p.wanted = -1
		}
		p.tried, p.wants, p.holds.due = p.tried[len(d.tried):], p.wants[len(d.wants):], p.holds.due[len(d.due):]
		for _, s := range slices.Concat(d.tried, d.wants, d.due) {
			e.nowNamed(s)
		}
		if d.clean {
			e.unname(p)
		}
		e.releaseHeld(p)
		e.refill(p)
	}
	if e.delivery.succeeded(t.route) {
		e.resolved("what waited for its destination is written")
	}
	e.changed.Broadcast()
	signal(e.wakeSchedule)
}

// undo puts everything back as it was before a transaction.
func (e *Engine) undo(t *transaction) {
	for _, s := range t.batch {
		if s.state == booked {
			e.unbook(s)
		} else {
			s.part.settle(s, false)
		}
		e.uncount(s)
		if s.part.gone {
			e.endProbe(s)
		}
	}
	for _, d := range t.parts {
		d.changed, d.closing = true, false
	}
	e.finished = append(slices.DeleteFunc(slices.Clone(t.batch), func(s *slot) bool { return s.part.gone }), e.finished...)
}

// rolledBack undoes a transaction, and resolves what the broker refused. It reports whether to try again at once.
func (e *Engine) rolledBack(t *transaction, err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.undo(t)
	var refused *hop.RecordsError
	if errors.As(err, &refused) {
		return e.resolve(t, refused)
	}
	if errors.Is(err, hop.ErrOutdated) || t.tx.Generation != e.member.Generation() {
		return true // no destination is to blame: the group moved on while the transaction was under way, or a topic is another now
	}
	if t.mixed {
		e.delivery.apart = true
		for _, s := range t.batch {
			e.delivery.doubt(e.routeOf(s))
		}
		return true
	}
	e.delivery.postpone(t.route, time.Now())
	return false
}
