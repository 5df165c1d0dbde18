package dispatch

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

// batch is one transaction in the making.
type batch struct {
	generation hop.Generation
	taken      map[int32]taken
	sources    []*kgo.Record // of the records, one for one
	records    []*kgo.Record
	told       int // where in records begins what tells of ended tasks
}

// taken is the first n records of a partition's queue; next is where the rest begins.
type taken struct {
	from     *held
	n        int
	next     int64
	produced int64         // of the n: what became something
	over     int64         // of the n: what became nothing, without markers
	ahead    []*kgo.Record // what is taken out of its turn, in place of the first n
}

// size is how many records are taken.
func (b batch) size() int {
	n := 0
	for _, t := range b.taken {
		n += t.n + len(t.ahead)
	}
	return n
}

// produced is what became of them, what tells of ended tasks aside.
func (b batch) produced() int {
	n := int64(0)
	for _, t := range b.taken {
		n += t.produced
	}
	return int(n)
}

// share is how many records of a partition are worth their place in a transaction that has no room for all that is held.
const share = 500

// choose asks the rule what passes. The room of a transaction is shared evenly, and partitions that had the least come first:
// none falls behind the others (start-time fair queuing, with records for time).
func (c *Carrier) choose(g hop.Generation) (batch, time.Duration) {
	b := batch{generation: g, taken: make(map[int32]taken)}
	wait, bytes := maxSilence, 0
	c.mu.Lock()
	defer c.mu.Unlock()
	order := c.waiting()
	behind := int64(math.MaxInt64)
	for i, p := range order {
		h := c.parts[p]
		room := maxBatch - len(b.records)
		if room <= 0 || bytes > maxBatchBytes {
			wait = 0
			break
		}
		if c.overtake(&b, p, h) {
			wait = 0
			continue
		}
		limit := min(room, max(share, room/(len(order)-i)))
		outs, again := c.cfg.Rule.Take(p, h.queue, limit)
		if len(outs) < len(h.queue) {
			wait = min(wait, again)
		}
		if len(outs) == 0 {
			continue
		}
		behind = min(behind, h.had)
		h.had += int64(len(outs))
		before := len(b.records)
		bytes += h.bytes / len(h.queue) * len(outs)
		var over int64
		for i, out := range outs {
			switch {
			case out != nil:
				b.records = append(b.records, out)
				b.sources = append(b.sources, h.queue[i])
			case !h.queue[i].Attrs.IsControl():
				over++
			}
		}
		b.taken[p] = taken{from: h, n: len(outs), next: h.behind(len(outs)), produced: int64(len(b.records) - before), over: over}
	}
	if behind < math.MaxInt64 {
		c.behind = behind
	}
	return b, wait
}

// waiting are the partitions of which records are held, those first that had the least. One that held none for a while has no
// claim to what the others had meanwhile. c.mu is held.
func (c *Carrier) waiting() []int32 {
	var ps []int32
	for p, h := range c.parts {
		if len(h.queue) > 0 {
			h.had = max(h.had, c.behind)
			ps = append(ps, p)
		}
	}
	slices.SortFunc(ps, func(a, b int32) int {
		return cmp.Or(cmp.Compare(c.parts[a].had, c.parts[b].had), cmp.Compare(a, b))
	})
	return ps
}

func (c *Carrier) positions(b batch) map[int32]hop.Position {
	ps := make(map[int32]hop.Position, len(b.taken))
	for p, t := range b.taken {
		ps[p] = t.from.position(c.cfg.Member.Node, t.next, t.passed(), t.settled(), false)
	}
	return ps
}

// passed is the count once the batch is committed.
func (t taken) passed() offsets.Count {
	return offsets.Count{Since: t.from.passed.Since, N: t.from.passed.N + t.produced, Over: t.from.passed.Over + t.over}
}

// done lets go of what was moved.
func (c *Carrier) done(b batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, t := range b.taken {
		h := t.from
		h.next, h.passed = t.next, t.passed()
		h.moved(t.ahead)
		for _, r := range h.queue[:t.n] {
			h.bytes -= size(r)
		}
		clear(h.queue[:t.n]) // the array lives on with the rest, and would keep what was moved in memory
		if h.queue = h.queue[t.n:]; len(h.queue) == 0 {
			h.queue = nil
		}
		if h.paused && len(h.queue) <= maxHeldRecords/4 && h.bytes <= maxHeldBytes/4 {
			h.paused = false
			c.member.Resume(p)
		}
	}
}
