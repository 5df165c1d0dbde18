package deliver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

var _ hop.Handler = (*Deliverer)(nil)

// revokeWait is how long a rebalance waits for what is in flight.
const revokeWait = 4 * time.Second

// Assigned starts partitions where their last owner left them: what it had settled beyond its position isn't sent again.
func (d *Deliverer) Assigned(_ context.Context, as []hop.Assignment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range as {
		if a.Reached > a.LogEnd {
			d.lostEnd(a.Partition, a.LogEnd, a.Reached)
		}
		d.release(a.Partition)
		d.parts[a.Partition] = &part{id: a.Partition, tracker: offsets.NewTracker(a.Offset, a.Metadata.Settled), flight: map[*item]struct{}{}}
		d.member.Resume(a.Partition) // it may have been paused when it went
	}
}

// Revoked hands partitions over: nothing starts, what is in flight may end for a while and is cut off then, and the last
// commit says what was settled.
func (d *Deliverer) Revoked(ctx context.Context, ids []int32) {
	d.mu.Lock()
	for _, id := range ids {
		if p := d.parts[id]; p != nil {
			p.leaving = true
			d.unqueue(p)
		}
	}
	flying := func() int {
		n := 0
		for _, id := range ids {
			if p := d.parts[id]; p != nil {
				n += len(p.flight)
			}
		}
		return n
	}
	d.await(revokeWait, func() bool { return flying() == 0 })
	for _, id := range ids {
		if p := d.parts[id]; p != nil {
			p.cut()
		}
	}
	d.mu.Unlock()
	last, cancel := context.WithTimeout(ctx, handOverLimit)
	defer cancel()
	d.handOver(last, ids)
	d.Lost(ids)
}

// Lost forgets partitions that may have another owner already.
func (d *Deliverer) Lost(ids []int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.release(id)
	}
}

// release forgets a partition; what is in flight of it is cut off and counts no more.
func (d *Deliverer) release(id int32) {
	p := d.parts[id]
	if p == nil {
		return
	}
	delete(d.parts, id)
	p.leaving, p.gone = true, true
	d.unqueue(p)
	p.cut()
	d.finished = d.ours(d.finished)
	d.start()
}

// unqueue takes a partition's webhooks out of the queues.
func (d *Deliverer) unqueue(p *part) {
	for _, e := range d.endpoints {
		e.queue = slices.DeleteFunc(e.queue, func(i *item) bool { return i.part == p })
		d.forget(e)
	}
}

// Truncated hands a partition to itself, as far as its log is there: what isn't settled below the end is read again, and what
// was beyond is nobody's. What is in flight is cut off.
func (d *Deliverer) Truncated(_ context.Context, id int32, end int64) int64 {
	d.committing.Lock() // a transaction under way says what the log was
	defer d.committing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.parts[id]
	if p == nil {
		return end
	}
	read := p.read()
	if read <= end {
		return read
	}
	low, settled := p.tracker.Position()
	left := offsets.Metadata{Settled: settled}.Below(low, end)
	d.release(id)
	next := min(low, end)
	d.parts[id] = &part{id: id, tracker: offsets.NewTracker(next, left.Settled), flight: map[*item]struct{}{}, dirty: true}
	d.member.Resume(id)
	signal(d.wake)
	d.lostEnd(id, end, read)
	return next
}

// lostEnd tells people of the loss of the log's end.
func (d *Deliverer) lostEnd(id int32, end, read int64) {
	d.cfg.Alert("records_lost", fmt.Sprintf("%s/%d: the broker has lost the end of the log, from offset %d to %d: the webhooks there that weren't sent are gone", d.cfg.Names.Webhooks(), id, end, read-1), false)
}

// Overtaken tells people: something trimmed a topic that only Reeve trims.
func (d *Deliverer) Overtaken(id int32, from, to int64) {
	d.mu.Lock()
	if p := d.parts[id]; p != nil {
		p.tracker.Jump(to)
		p.dirty = true
	}
	d.mu.Unlock()
	d.cfg.Alert("records_lost", fmt.Sprintf("%s/%d: the webhooks from offset %d to %d were deleted before they were sent", d.cfg.Names.Webhooks(), id, from, to-1), false)
}
