package deliver

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

// A log that has lost its end gets new webhooks at offsets that were read already. They are sent; what wasn't settled below
// the end is read again, and what is under way speaks of neither.
func TestWebhooksAtOffsetsThatALogHasLostAreSent(t *testing.T) {
	var told []string
	cut := make(chan struct{}, 10)
	d := &Deliverer{wake: make(chan struct{}, 1), parts: map[int32]*part{}, endpoints: map[string]*endpoint{}, cfg: Config{
		Metrics: NewMetrics(nil), Alert: func(kind, _ string, _ bool) { told = append(told, kind) },
		Send: func(ctx context.Context, _ Webhook) Answer {
			<-ctx.Done()
			cut <- struct{}{}
			return Answer{Err: ctx.Err()}
		},
	}}
	d.changed = sync.NewCond(&d.mu)
	m, err := hop.NewMember(hop.MemberConfig{Opts: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}, Group: "g", Topic: "w", Service: "test", Node: "n", Handler: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	d.member = m
	tracker := offsets.NewTracker(0, nil)
	p := &part{tracker: tracker, flight: map[*item]struct{}{}}
	d.parts[0] = p
	for offset := range int64(20) {
		r := record("https://example.com/in")
		r.Offset = offset
		p.pending = append(p.pending, r)
	}
	d.mu.Lock()
	d.admit(p)
	for _, settled := range []int64{0, 1, 2, 7, 12} {
		tracker.Settle(settled)
	}
	d.start()
	flying := len(p.flight)
	d.mu.Unlock()
	if next := d.Truncated(t.Context(), 0, 10); next != 3 || flying == 0 {
		t.Fatalf("it goes on at %d, %d were in flight", next, flying)
	}
	for range flying {
		select {
		case <-cut:
		case <-time.After(time.Minute):
			t.Fatal("what was in flight goes on")
		}
	}
	d.sending.Wait()
	now := d.parts[0]
	if len(d.finished) != 0 || now == p || !now.dirty || len(told) != 1 || told[0] != "records_lost" {
		t.Errorf("%d finished, told %v", len(d.finished), told)
	}
	for offset := int64(3); offset < 20; offset++ {
		if fresh := now.tracker.Deliver(offset); fresh == (offset == 7) {
			t.Errorf("offset %d: fresh %v", offset, fresh)
		}
	}
	if next := d.Truncated(t.Context(), 0, 30); next != 20 || d.parts[0] != now {
		t.Errorf("a log that reaches further is gone on with at %d", next)
	}
	before := len(told) // what is found at an assignment is told too
	d.Assigned(t.Context(), []hop.Assignment{{Partition: 1, Offset: 5, LogEnd: 9}, {Partition: 2, Offset: 5, LogEnd: 5, Reached: 9}})
	if len(told) != before+1 || told[before] != "records_lost" {
		t.Errorf("told %v", told)
	}
}
