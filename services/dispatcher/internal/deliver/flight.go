package deliver

import (
	"context"
	"time"
)

// start starts what may be in flight.
func (d *Deliverer) start() {
	if d.stopping {
		return
	}
	for _, e := range d.endpoints {
		for len(e.queue) > 0 && e.places() > 0 && d.running < inFlight {
			i := e.queue[0]
			e.queue[0] = nil
			if e.queue = e.queue[1:]; len(e.queue) == 0 {
				e.queue = nil
			}
			d.send(i)
		}
	}
}

func (d *Deliverer) send(i *item) {
	ctx, cancel := context.WithCancel(context.Background()) // a stop gives it some time
	i.cancel = cancel
	i.end.running++
	d.running++
	i.part.flight[i] = struct{}{}
	d.sending.Go(func() {
		defer cancel()
		began := time.Now()
		answer := d.cfg.Send(ctx, i.Webhook)
		d.cfg.Metrics.seconds.Observe(time.Since(began).Seconds())
		d.answered(i, answer, ctx.Err() != nil)
	})
}

// answered judges a try, unless it was cut off.
func (d *Deliverer) answered(i *item, a Answer, cut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	i.end.running--
	d.running--
	delete(i.part.flight, i)
	d.changed.Broadcast()
	if i.part.gone || cut && a.Err != nil {
		d.forget(i.end)
		return
	}
	v := Judge(d.cfg.Retries, i.Attempt, a)
	i.end.judged(v, a.Status, now)
	i.sent = true
	i.end.sent++
	d.finish(i, v, a.Status)
	d.start()
}

// left is called where a webhook is settled, or is somebody else's.
func (d *Deliverer) left(i *item) {
	if !i.sent { // it may have no endpoint at all
		return
	}
	i.sent = false
	i.end.sent--
	d.forget(i.end)
}

// forget drops an endpoint that nothing is known of.
func (d *Deliverer) forget(e *endpoint) {
	if e.idle(time.Now()) && d.endpoints[e.name] == e {
		delete(d.endpoints, e.name)
	}
}

// finish hands a webhook to the next transaction.
func (d *Deliverer) finish(i *item, v Verdict, status int) {
	i.verdict, i.status, i.ended = v, status, time.Now()
	d.finished = append(d.finished, i)
	signal(d.wake)
}
