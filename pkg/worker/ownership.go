package worker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

// ownership is the Engine as its group member's Handler.
type ownership Engine

var _ hop.Handler = (*ownership)(nil)

// Assigned starts partitions where their last owner left them. One that was lost and comes back untouched goes on as
// if nothing had been; the attempts of one that went elsewhere meanwhile are ended first.
func (o *ownership) Assigned(_ context.Context, as []hop.Assignment) {
	e := (*Engine)(o)
	e.mu.Lock()
	e.joined = true
	var victims []*Attempt
	for _, a := range as {
		if a.Reached > a.LogEnd {
			e.lostEnd(a.Partition, a.LogEnd, a.Reached)
		}
		if p := e.parts[a.Partition]; p != nil { // the topic was made again
			e.drop(a.Partition)
			victims = append(victims, e.abandon(p)...)
		}
		old := e.lost[a.Partition]
		delete(e.lost, a.Partition)
		p := old
		cut := old != nil && a.Own && old.read() > a.LogEnd
		if cut { // the log has lost its end meanwhile; nobody has died for that
			a.Metadata = a.Metadata.Below(a.Offset, a.LogEnd)
			a.Metadata.Clean = true
			victims = append(victims, e.truncated(old, a.LogEnd)...)
			old = nil
		}
		if old == nil || !a.Own {
			if old != nil {
				victims = append(victims, e.abandon(old)...)
			}
			p = newPartition(a, e.suspicion, e.strict())
			e.outage.inherit(time.Now(), a.Metadata.Outages)
			e.member.Resume(p.id) // it may have been paused when it went
		}
		p.leaving, p.away = false, false
		e.parts[a.Partition] = p
		e.order = append(e.order, p)
		e.log.Debug("partition assigned", slog.Int("partition", int(a.Partition)), slog.Int64("offset", a.Offset),
			slog.Int("settled_beyond", a.Metadata.Settled.Len()), slog.Bool("clean", a.Metadata.Clean), slog.String("last_owner", a.Metadata.Node), slog.Bool("kept", p == old))
	}
	if len(as) > 0 {
		e.log.Info("partitions assigned", slog.Int("partitions", len(as)), slog.Int("owned", len(e.parts)))
	}
	delete(e.delivery.waits, offsetsOnly) // the group's answer may be another now
	for id, p := range e.lost {           // they went to somebody else
		delete(e.lost, id)
		victims = append(victims, e.abandon(p)...)
	}
	e.mu.Unlock()
	e.cancelAttempts(victims)
	signal(e.wakeSchedule)
	signal(e.wakeCommit)
	e.cfg.Assigned()
}

// Revoked hands partitions over: nothing starts, what runs may end for a while and is cancelled then, and the last
// commit says what was settled and that nothing is in doubt.
func (o *ownership) Revoked(ctx context.Context, ids []int32) {
	e := (*Engine)(o)
	e.mu.Lock()
	for _, id := range ids {
		if p := e.parts[id]; p != nil {
			p.leaving = true
		}
	}
	e.mu.Unlock()
	ended := func() bool {
		if e.spent {
			return true
		}
		for _, id := range ids {
			if p := e.parts[id]; p != nil && len(p.inFlight) > 0 {
				return false
			}
		}
		return true
	}
	drain, cancel := context.WithTimeout(ctx, revokeDrain)
	ok := e.await(drain, ended)
	cancel()
	if !ok {
		e.cancelRunning(func(s *slot) bool { return slices.Contains(ids, s.part.id) })
		grace, cancel := context.WithTimeout(ctx, revokeCancel)
		e.await(grace, ended)
		cancel()
	}
	e.commitLast(ctx, func(s *slot) bool { return slices.Contains(ids, s.part.id) })
	e.mu.Lock()
	var victims []*Attempt
	for _, id := range ids {
		if p := e.parts[id]; p != nil {
			e.drop(id)
			victims = append(victims, e.abandon(p)...)
		}
	}
	e.mu.Unlock()
	e.cancelAttempts(victims)
}

// Lost sets partitions aside until it is known whose they are.
func (o *ownership) Lost(ids []int32) {
	e := (*Engine)(o)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		if p := e.parts[id]; p != nil {
			e.drop(id)
			p.leaving, p.away = true, true
			e.lost[id] = p
		}
	}
	e.log.Warn("partitions lost", slog.Any("partitions", ids))
}

// Overtaken reports tasks whose records are gone.
func (o *ownership) Overtaken(id int32, from, to int64) {
	e := (*Engine)(o)
	e.mu.Lock()
	if p := e.parts[id]; p != nil {
		p.tracker.Jump(to)
		p.changed = true
	}
	e.mu.Unlock()
	e.cfg.Alert(Alert{Kind: "records_lost", Severity: "critical", Message: fmt.Sprintf("%s/%d: the tasks from offset %d to %d were deleted before they were run",
		e.cfg.Names.Tasks(e.cfg.Spec.Topic, e.cfg.Spec.Name), id, from, to-1)})
}

// Truncated hands a partition to itself, as far as its log is there: what isn't settled below the end is read again, and what
// was beyond is nobody's. Attempts of either are ended first.
func (o *ownership) Truncated(_ context.Context, id int32, end int64) int64 {
	e := (*Engine)(o)
	e.committing.Lock() // a transaction under way says what the log was
	defer e.committing.Unlock()
	e.mu.Lock()
	p := e.parts[id]
	if p == nil || p.read() <= end {
		e.mu.Unlock()
		if p != nil {
			return p.read()
		}
		return end
	}
	low, settled := p.tracker.Position()
	m := offsets.Metadata{Clean: true, Strict: p.strict, TopicID: p.topicID, Node: e.cfg.Node, Settled: settled, Outages: e.outage.spells}
	m.Entries, m.Suspects = handedOver(e.begun(p), p.inheritedEntries(), max(p.suspects, low))
	a := hop.Assignment{Partition: id, TopicID: p.topicID, Offset: min(low, end), Metadata: m.Below(low, end), LogEnd: end}
	victims := e.truncated(p, end)
	e.drop(id)
	p = newPartition(a, e.suspicion, e.strict())
	p.changed = true // the position may be another
	e.parts[id] = p
	e.order = append(e.order, p)
	e.member.Resume(id)
	e.mu.Unlock()
	e.cancelAttempts(victims)
	signal(e.wakeSchedule)
	signal(e.wakeCommit)
	return a.Offset
}

// truncated abandons a partition whose log has lost its end, and reports what is gone.
func (e *Engine) truncated(p *partition, end int64) []*Attempt {
	e.lostEnd(p.id, end, p.read())
	return e.abandon(p)
}

// lostEnd tells people of the loss of a log's end.
func (e *Engine) lostEnd(id int32, end, read int64) {
	e.cfg.Alert(Alert{Kind: "records_lost", Severity: "critical", Message: fmt.Sprintf("%s/%d: the broker has lost the end of the log, from offset %d to %d: the tasks there that weren't settled are gone",
		e.cfg.Names.Tasks(e.cfg.Spec.Topic, e.cfg.Spec.Name), id, end, read-1)})
}

// drop takes a partition out of those that are worked on.
func (e *Engine) drop(id int32) {
	p := e.parts[id]
	delete(e.parts, id)
	e.order = slices.DeleteFunc(e.order, func(q *partition) bool { return q == p })
}

// abandon forgets a partition's tasks. It returns the attempts that have to be ended.
func (e *Engine) abandon(p *partition) []*Attempt {
	var victims []*Attempt
	for s := range p.inFlight {
		s.state = abandoned
		e.zombies[p.id]++
		victims = append(victims, &s.attempt)
	}
	forget := func(s *slot) bool {
		if s.part == p {
			e.uncount(s)
			e.endProbe(s)
		}
		return s.part == p
	}
	e.finished = slices.DeleteFunc(e.finished, forget)
	e.setHeld(slices.DeleteFunc(e.held, forget))
	e.suspects = slices.DeleteFunc(e.suspects, func(s *slot) bool { return s.part == p })
	maps.DeleteFunc(e.trial.members, func(s *slot, _ bool) bool { return s.part == p })
	e.holders -= p.holds.count
	p.leaving, p.away, p.gone = true, true, true
	return victims
}
