package deliver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	lookEvery = 250 * time.Millisecond
	// alertEvery is how often it is looked for endpoints that are down for long.
	alertEvery = 5 * time.Second
	// Kinds of alerts.
	alertFailing = "webhook_failing"
	alertWrite   = "webhooks_unwritable"
	alertDLQ     = "webhook_dlq_unwritable"
)

// looks puts off what has waited for too long for a place, and tells of endpoints that are down for long.
func (d *Deliverer) looks(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		d.mu.Lock()
		for _, e := range d.endpoints {
			for len(e.queue) > 0 && (e.down() && e.running > 0 || now.Sub(e.queue[0].admitted) > patience) {
				i := e.queue[0]
				e.queue = e.queue[1:]
				d.putOff(i, now)
			}
			d.forget(e)
		}
		for _, e := range surplus(d.endpoints, remembered) {
			delete(d.endpoints, e.name)
		}
		d.start() // places at others may have been what was waited for
		d.cfg.Metrics.inFlight.Set(float64(d.running))
		d.mu.Unlock()
		if now.Sub(told) >= alertEvery {
			told = now
			d.tellDown(now)
		}
	}
}

// tellDown tells of endpoints that have failed for long, all of them together, and takes it back.
func (d *Deliverer) tellDown(now time.Time) {
	d.mu.Lock()
	var down []string
	for _, e := range d.endpoints {
		if e.down() && now.Sub(e.since) >= longDown {
			down = append(down, fmt.Sprintf("%s since %s (%s)", e.name, e.since.UTC().Format(time.RFC3339), e.message))
		}
	}
	slices.Sort(down)
	text := strings.Join(down[:min(len(down), 5)], ", ")
	before := d.toldDown
	d.toldDown = text
	d.mu.Unlock()
	d.cfg.Metrics.down.Set(float64(len(down)))
	switch {
	case text != "":
		if more := len(down) - 5; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		d.cfg.Alert(alertFailing, "webhooks fail for a long time: "+text+"; they are tried again and given up in the end, to "+d.cfg.Names.WebhookDLQ()+" (`reeve webhook` shows and redrives those)", false)
	case before != "":
		d.cfg.Alert(alertFailing, "no endpoint is known any more that has failed for long", true)
	}
}

// untell takes back what this process told, at its end: who goes on sees for itself.
func (d *Deliverer) untell() {
	d.mu.Lock()
	told := map[string]bool{alertFailing: d.toldDown != "", alertWrite: d.toldWrite, alertDLQ: d.toldDLQ}
	d.mu.Unlock()
	for kind, was := range told {
		if was {
			d.cfg.Alert(kind, "the dispatcher that told of it has stopped", true)
		}
	}
}
