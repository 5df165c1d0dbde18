package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

// A group has one position a partition, so what passes before its turn is named in the commit's metadata, as a worker
// names what it settles out of order. Whoever consumes the partition next leaves it out. Nothing passes that lies further
// beyond the position than the metadata reaches.

// An Overtaker is a Rule that may let records pass before their turn.
type Overtaker interface {
	Rule
	// Ahead is given the records held of a partition, in order, as far as they may pass before their turn. Those that it
	// gives pass now, and aren't given to Take.
	Ahead(partition int32, records []*kgo.Record) []Overtaking
}

// Overtaking is a record that passes before its turn.
type Overtaking struct {
	Record  *kgo.Record
	Becomes []*kgo.Record // at least one
}

// overtake takes what passes before its turn, and reports whether anything does. c.mu is held.
func (c *Carrier) overtake(b *batch, p int32, h *held) bool {
	rule, ok := c.cfg.Rule.(Overtaker)
	if !ok {
		return false
	}
	reach, _ := slices.BinarySearchFunc(h.queue, h.next+offsets.Window, func(r *kgo.Record, at int64) int { return int(r.Offset - at) })
	picked := rule.Ahead(p, h.queue[:reach])
	if len(picked) == 0 {
		return false
	}
	t := taken{from: h, next: h.end}
	picks := make(map[int64]bool, len(picked))
	for _, x := range picked {
		for _, out := range x.Becomes {
			b.records, b.sources = append(b.records, out), append(b.sources, x.Record)
		}
		picks[x.Record.Offset] = true
		t.ahead, t.produced = append(t.ahead, x.Record), t.produced+1
	}
	if i := slices.IndexFunc(h.queue, func(r *kgo.Record) bool { return !picks[r.Offset] }); i >= 0 {
		t.next = h.queue[i].Offset
	}
	b.taken[p] = t
	return true
}

// behind is the position once the first n of the queue are moved: what lies ahead of the rest is moved already.
func (h *held) behind(n int) int64 {
	if len(h.ahead) == 0 {
		return h.queue[n-1].Offset + 1
	}
	if n < len(h.queue) {
		return h.queue[n].Offset
	}
	return h.end
}

// settled is what is moved beyond a position.
func (h *held) settled(at int64, more []*kgo.Record) offsets.Set {
	var s offsets.Set
	for offset := range h.ahead {
		if offset >= at {
			s.Add(offset - at)
		}
	}
	for _, r := range more {
		if r.Offset >= at {
			s.Add(r.Offset - at)
		}
	}
	return s
}

func (t taken) settled() offsets.Set { return t.from.settled(t.next, t.ahead) }

// moved notes what was taken out of its turn, and forgets what the position has passed.
func (h *held) moved(ahead []*kgo.Record) {
	if len(ahead) > 0 {
		if h.ahead == nil {
			h.ahead = make(map[int64]bool, len(ahead))
		}
		for _, r := range ahead {
			h.ahead[r.Offset] = true
			h.bytes -= size(r)
		}
		h.queue = slices.DeleteFunc(h.queue, func(r *kgo.Record) bool { return h.ahead[r.Offset] })
	}
	for offset := range h.ahead {
		if offset < h.next {
			delete(h.ahead, offset)
		}
	}
}

// fresh leaves out what is moved already.
func (h *held) fresh(rs []*kgo.Record) []*kgo.Record {
	if len(h.ahead) == 0 {
		return rs
	}
	return slices.DeleteFunc(slices.Clone(rs), func(r *kgo.Record) bool { return h.ahead[r.Offset] })
}

// aheadOf is what the last owner has moved beyond its position.
func aheadOf(a hop.Assignment) map[int64]bool {
	if a.Metadata.Settled.Len() == 0 {
		return nil
	}
	ahead := map[int64]bool{}
	for i := range int64(len(a.Metadata.Settled)) * 64 {
		if a.Metadata.Settled.Has(i) {
			ahead[a.Offset+i] = true
		}
	}
	return ahead
}

// Errors of Add.
var errElsewhere = errors.New("the partition is another dispatcher's, or has been since")

// Owns is the generation in which this carrier owns a partition; ok is false where it doesn't.
func (c *Carrier) Owns(p int32) (g hop.Generation, ok bool) {
	g = c.member.Generation()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok = c.parts[p]
	return g, ok
}

// Add produces records in a transaction that is fenced like those that move records: it is committed only if the partition
// has been this carrier's since the generation.
func (c *Carrier) Add(ctx context.Context, p int32, since hop.Generation, records []*kgo.Record) error {
	c.txn.Lock()
	defer c.txn.Unlock()
	if c.member.Generation() != since {
		return errElsewhere
	}
	c.mu.Lock()
	h := c.parts[p]
	if h == nil {
		c.mu.Unlock()
		return errElsewhere
	}
	// Nothing is moved, and the commit has to differ from the last one all the same: a lost answer is decided by looking at
	// what is committed.
	h.added++
	m := offsets.Metadata{Passed: h.passed, Settled: h.settled(h.next, nil), TopicID: h.topicID, Node: c.cfg.Member.Node, Reserved: h.next + 1 + h.added%1000}
	at := hop.Position{Offset: h.next, Metadata: m.Encode(h.next)}
	c.mu.Unlock()
	err := c.cfg.Pool.Commit(context.WithoutCancel(ctx), hop.Tx{Member: c.member, Generation: since, Records: records, Offsets: map[int32]hop.Position{p: at}})
	if err != nil {
		return fmt.Errorf("add to what becomes of %s: %w", c.cfg.Member.Topic, err)
	}
	return nil
}
