package deliver

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
)

const (
	holdRecords = 4_096    // of a partition in memory before its fetching is paused
	holdBytes   = 16 << 20 // the same; it goes on when a quarter is left
)

// part is an owned partition. The Deliverer's lock guards it.
type part struct {
	id      int32
	tracker *offsets.Tracker
	pending []*kgo.Record // beyond the window
	live    int           // admitted and not settled
	bytes   int           // of pending and live
	dirty   bool          // there is something to commit
	paused  bool
	leaving bool // nothing starts
	gone    bool
	flight  map[*item]struct{}
}

// item is a webhook's place here, from admission to settlement. The Deliverer's lock guards it.
type item struct {
	Webhook
	part     *part
	end      *endpoint
	admitted time.Time
	cancel   context.CancelFunc // while it is in flight
	verdict  Verdict
	status   int
	ended    time.Time
	sent     bool // it counts among its endpoint's
	silent   bool // its status record was refused
}

// read is the offset behind the last record that was read.
func (p *part) read() int64 {
	if n := len(p.pending); n > 0 {
		return p.pending[n-1].Offset + 1
	}
	return p.tracker.Next()
}

// cut cuts off what is in flight.
func (p *part) cut() {
	for i := range p.flight {
		i.cancel()
	}
}

// admit takes pending records into the window, and each to its endpoint; none of a partition that is handed over, which the
// next owner sends.
func (d *Deliverer) admit(p *part) {
	if p.leaving {
		return
	}
	now := time.Now()
	for len(p.pending) > 0 {
		r := p.pending[0]
		if !p.tracker.Fits(r.Offset) {
			if p.tracker.Low() < p.tracker.Next() {
				break
			}
			p.tracker.Jump(r.Offset) // only offsets without a record lie before it
		}
		p.pending[0] = nil
		p.pending = p.pending[1:]
		p.dirty = true
		if fresh := p.tracker.Deliver(r.Offset); !fresh || r.Attrs.IsControl() {
			if fresh {
				p.tracker.Settle(r.Offset)
			}
			p.bytes -= len(r.Value)
			continue
		}
		p.live++
		d.queue(&item{Webhook: Read(r), part: p, admitted: now}, now)
	}
	d.pace(p)
}

// pace pauses a partition's fetching, or lets it go on.
func (d *Deliverer) pace(p *part) {
	switch held := len(p.pending) + p.live; {
	case !p.paused && (held > holdRecords || p.bytes > holdBytes):
		p.paused = true
		d.member.Pause(p.id)
	case p.paused && held <= holdRecords/4 && p.bytes <= holdBytes/4:
		p.paused = false
		d.member.Resume(p.id)
	}
}

// queue puts a webhook where it waits for its start, or puts it off.
func (d *Deliverer) queue(i *item, now time.Time) {
	if i.Problem != nil {
		d.finish(i, Verdict{State: Failed, Class: "invalid_input", Message: i.Problem.Error()}, 0)
		return
	}
	i.end = d.endpoints[i.Endpoint]
	if i.end == nil {
		i.end = &endpoint{name: i.Endpoint}
		d.endpoints[i.Endpoint] = i.end
	}
	if i.end.full() {
		d.putOff(i, now)
		return
	}
	i.end.queue = append(i.end.queue, i)
}

func (d *Deliverer) putOff(i *item, now time.Time) {
	d.cfg.Metrics.deferred.Inc()
	d.finish(i, Defer(d.cfg.Retries, i.Deferred, i.end.down(), now.Sub(since(i.Record))), 0)
}
