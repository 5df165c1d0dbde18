package dispatch

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

// cutOff is a rule that lets nothing pass and hears of lost ends.
type cutOff struct {
	awaited
	told []int64
}

func (r *cutOff) Take(int32, []*kgo.Record, int) ([]*kgo.Record, time.Duration) {
	return nil, time.Hour
}
func (r *cutOff) Truncated(_ int32, end, read int64) { r.told = append(r.told, end, read) }

// A log that has lost its end gets new events at offsets that were held, or moved out of their turn, or passed. They are moved
// like any others, and the position that says so is committed at once.
func TestEventsAtOffsetsThatALogHasLostAreMoved(t *testing.T) {
	env := environment(t)
	adm := kadm.NewClient(env.Client)
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	pool, err := hop.NewPool(t.Context(), hop.PoolConfig{Opts: env.Opts, Names: env.Names, Service: env.Service, Node: env.Node})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	rule := &cutOff{awaited: awaited{assigned: make(chan int32, 2)}}
	c, err := NewCarrier(CarrierConfig{
		Member: hop.MemberConfig{Opts: env.Opts, Names: env.Names, Group: "g", Topic: "orders", Service: env.Service, Node: env.Node},
		Pool:   pool, Rule: rule, Logger: quiet(),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Member().Close)
	<-rule.assigned
	fetched := func(offsets ...int64) kgo.Fetches {
		var rs []*kgo.Record
		for _, at := range offsets {
			rs = append(rs, &kgo.Record{Offset: at})
		}
		return kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "orders", Partitions: []kgo.FetchPartition{{Records: rs}}}}}}
	}
	h := c.parts[0]
	h.next, h.end = 10, 10
	h.passed = offsets.Count{Since: 1, N: 10}
	h.ahead = map[int64]bool{12: true, 17: true}
	c.hold(fetched(10, 11, 13, 14, 15, 16, 18, 19))
	if next := c.Truncated(t.Context(), 0, 15); next != 15 {
		t.Errorf("it goes on at %d", next)
	}
	c.hold(fetched(15, 16, 17))
	var held []int64
	size := 0
	for _, r := range h.queue {
		held = append(held, r.Offset)
		size += 200
	}
	if !slices.Equal(held, []int64{10, 11, 13, 14, 15, 16, 17}) || h.next != 10 || h.bytes != size || !slices.Equal(rule.told, []int64{15, 20}) {
		t.Errorf("%v are held, from %d, %d bytes; told %v", held, h.next, h.bytes, rule.told)
	}
	if next := c.Truncated(t.Context(), 0, 5); next != 5 || len(h.queue) != 0 {
		t.Errorf("it goes on at %d with %d held", next, len(h.queue))
	}
	committed, err := adm.FetchOffsets(t.Context(), "g")
	if o, _ := committed.Lookup("orders", 0); err != nil || o.At != 5 {
		t.Errorf("%d is committed, %v", o.At, err)
	} else if m, err := offsets.Decode(o.At, o.Metadata); err != nil || m.Settled.Len() != 0 || m.Passed.N != 10 {
		t.Errorf("%+v, %v", m, err)
	}
	if next := c.Truncated(t.Context(), 0, 100); next != 5 {
		t.Errorf("a log that reaches further is gone on with at %d", next)
	}
	rule.told = nil // what is found at an assignment is told too
	for _, a := range []hop.Assignment{{Offset: 5, LogEnd: 5, Reached: 9}, {Offset: 5, LogEnd: 9}} {
		c.Assigned(t.Context(), []hop.Assignment{a})
	}
	if !slices.Equal(rule.told, []int64{5, 9}) {
		t.Errorf("told %v", rule.told)
	}
}

func TestRulesForgetWhatTheyKnewOfLostOffsets(t *testing.T) {
	var told []string
	alert := func(kind, message string) { told = append(told, kind+": "+message) }
	refused := map[recordID]bool{{0, 4}: true, {0, 5}: true, {1, 9}: true}
	tier := &Tier{delay: time.Second, alert: alert, refused: refused, looked: map[int32]int64{0: 7, 1: 7}}
	tier.Truncated(0, 5, 9)
	if len(refused) != 2 || refused[recordID{0, 5}] || len(tier.looked) != 1 {
		t.Errorf("%v, %v", refused, tier.looked)
	}
	if len(told) != 1 || !strings.HasPrefix(told[0], "records_lost: ") || !strings.Contains(told[0], "partition 0: offsets 5 to 8") {
		t.Errorf("%v", told)
	}
	l := lane(nil)
	l.alert = alert
	l.refused = map[recordID]refusal{{0, 4}: {}, {0, 5}: {}, {1, 9}: {}}
	if l.Truncated(0, 5, 9); len(l.refused) != 2 || len(told) != 2 {
		t.Errorf("%v, told %v", l.refused, told)
	}
	var settled offsets.Set
	settled.Add(1)
	settled.Add(5)
	u := &Purge{assigned: map[int32]purged{}}
	u.Assigned(hop.Assignment{Offset: 10, Metadata: offsets.Metadata{Settled: settled}})
	u.Truncated(0, 13, 20)
	if left := u.assigned[0].metadata.Settled; !left.Has(1) || left.Has(5) {
		t.Errorf("%v", left)
	}
}
