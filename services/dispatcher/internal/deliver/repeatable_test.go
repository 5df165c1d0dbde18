package deliver

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/reeve-run/reeve/pkg/offsets"
)

// However slow commits are, no more is sent to an endpoint than may be repeated after a crash, and it goes on with each commit.
func TestNoMoreIsSentThanMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		d := &Deliverer{wake: make(chan struct{}, 1), parts: map[int32]*part{}, endpoints: map[string]*endpoint{}, cfg: Config{
			Metrics: NewMetrics(nil), Alert: func(string, string, bool) {},
			Send: func(context.Context, Webhook) Answer {
				sent.Add(1)
				return Answer{Status: 200}
			},
		}}
		d.changed = sync.NewCond(&d.mu)
		p := &part{tracker: offsets.NewTracker(0, nil), flight: map[*item]struct{}{}}
		d.parts[0] = p
		const all = 5 * repeatable
		for offset := range int64(all) {
			r := record("https://example.com/in")
			r.Offset = offset
			p.pending = append(p.pending, r)
		}
		d.mu.Lock()
		d.admit(p)
		d.start()
		d.mu.Unlock()
		for n := int64(repeatable); n <= all; n += repeatable {
			synctest.Wait()
			if got := sent.Load(); got != n {
				t.Fatalf("%d are sent, not %d", got, n)
			}
			d.mu.Lock()
			batch := d.finished
			d.finished = nil
			d.mu.Unlock()
			d.committed(&transaction{batch: batch})
		}
		d.committed(&transaction{batch: []*item{{Webhook: Webhook{Record: record("nowhere")}, part: p}}}) // one that can't be read has no endpoint
		if len(d.endpoints) != 0 {
			t.Errorf("an endpoint of which nothing is under way is remembered: %+v", d.endpoints)
		}
	})
}

// That holds also for one that is down, where each try ends at once.
func TestAnEndpointThatIsDownIsSentNoMoreThanMayBeRepeated(t *testing.T) {
	e := &endpoint{failures: downAfter, sent: repeatable - 1}
	if n := e.places(); n != 1 {
		t.Errorf("%d places, with one left", n)
	}
	e.sent = repeatable
	if n := e.places(); n > 0 {
		t.Errorf("%d places, with none left", n)
	}
}
