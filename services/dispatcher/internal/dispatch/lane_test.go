package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

func values(vs ...string) []*kgo.Record {
	var rs []*kgo.Record
	for i, v := range vs {
		rs = append(rs, &kgo.Record{Topic: "orders", Offset: int64(i), Key: []byte(v), Value: []byte(v)})
	}
	return rs
}

func follow(t testing.TB, l *Lane, r spec.Routing) {
	t.Helper()
	a := *l.agent
	a.Routing = r
	if err := l.Follow(&a); err != nil {
		t.Fatal(err)
	}
}

func TestAFilterPassesOverWhatIsntTheAgents(t *testing.T) {
	var alerts []string
	l := lane(&alerts)
	follow(t, l, spec.Routing{Filter: `data.n > 1`})
	outs, _ := l.Take(0, values(`{"n":1}`, `{"n":2}`, `{"m":1}`, `{"n":0}`, `{"n":3}`), 10)
	var got []string
	for _, o := range outs {
		switch {
		case o == nil:
			got = append(got, "-")
		case route.Header(o, task.HeaderErrorClass) != "":
			got = append(got, route.Header(o, task.HeaderErrorClass)+" "+string(o.Value))
		default:
			got = append(got, string(o.Value))
		}
	}
	if s := strings.Join(got, " | "); s != `- | {"n":2} | invalid_input {"m":1} | - | {"n":3}` {
		t.Error(s)
	}
	if n := l.room.reserved; n[0]+n[1]+n[2]+n[3] != 3 {
		t.Errorf("%v places are taken", n)
	}
	l.Ended(true)
	follow(t, l, spec.Routing{}) // a change counts at once
	if outs, _ = l.Take(0, values(`{"n":1}`), 10); outs[0] == nil {
		t.Error("the filter is still there")
	}
	a := *l.agent
	a.Filter = "nonsense("
	if err := l.Follow(&a); err == nil {
		t.Error("nonsense is followed")
	}
	if outs, _ = l.Take(0, values(`{"n":1}`), 10); outs[0] == nil {
		t.Error("what can't be followed has changed something")
	}
}

func TestWhatIsntAcceptedIsRejectedOrSkipped(t *testing.T) {
	for on, want := range map[string]string{"": "reeve.tasks.orders.bill", "reject": "reeve.outcomes", "skip": ""} {
		var alerts []string
		l := lane(&alerts)
		follow(t, l, spec.Routing{Accepts: []string{"a"}, OnIncompatible: on})
		outs, _ := l.Take(0, values(`{"type":"a"}`, `{"type":"b"}`, `{"type":"a"}`), 10)
		got := ""
		if outs[1] != nil {
			got = outs[1].Topic
		}
		if got != want || outs[0].Topic != "reeve.tasks.orders.bill" || outs[2].Topic != outs[0].Topic || outs[1] != nil && route.Header(outs[1], task.HeaderErrorClass) != "incompatible_task" {
			t.Errorf("%q: it goes to %q", on, got)
		}
	}
}

// What doesn't pass yet, for want of a place or of its turn, is decided upon again.
func TestALaneStopsBeforeAnUnfitRecordWithoutAPlace(t *testing.T) {
	var alerts []string
	l := lane(&alerts)
	follow(t, l, spec.Routing{Accepts: []string{"a"}, Rate: 1})
	outs, wait := l.Take(0, values(`{"type":"a"}`, `{"type":"b"}`, `{"type":"a"}`), 10)
	if len(outs) != 1 || wait <= 0 || wait > time.Second {
		t.Fatalf("%d pass, the next in %v", len(outs), wait)
	}
	if route.Header(outs[0], task.HeaderErrorClass) != "" {
		t.Error("the wrong one is unfit")
	}
	l.Ended(false)
	if outs, _ = l.Take(0, values(`{"type":"a"}`), 10); len(outs) != 1 {
		t.Error("an event of a transaction that failed has used up its place")
	}
}

// A slow filter doesn't hold on to a partition, also where it passes nothing.
func TestATakeEndsWhereItsFilterIsSlow(t *testing.T) {
	for _, filter := range []string{`data.all(x, data.exists(y, x == y))`, `!data.all(x, data.exists(y, x == y))`} {
		var alerts []string
		l := lane(&alerts)
		follow(t, l, spec.Routing{Filter: filter})
		slow := "[" + strings.TrimSuffix(strings.Repeat("1,2,3,4,5,6,7,", 40), ",") + "]"
		many := make([]string, 2000)
		for i := range many {
			many[i] = slow
		}
		start := time.Now()
		outs, wait := l.Take(0, values(many...), len(many))
		if took := time.Since(start); len(outs) == 0 || len(outs) == len(many) || wait != 0 || took > 2*time.Second {
			t.Errorf("%s: %d of %d in %v, again in %v", filter, len(outs), len(many), took, wait)
		}
	}
}

func TestARateIsSharedByPartitions(t *testing.T) {
	for _, c := range []struct {
		own, spans int
		want       float64
	}{{1, 1, 10}, {1, 4, 2.5}, {4, 4, 10}, {2, 0, 10}, {3, 2, 10}, {0, 4, 0}} {
		var alerts []string
		l := lane(&alerts)
		l.Released(0)
		for p := range int32(c.own) {
			l.Assigned(hop.Assignment{Partition: p, TopicID: [16]byte{1}})
		}
		l.Spans(c.spans)
		if got := l.share(10); got != c.want {
			t.Errorf("%d of %d partitions: %v", c.own, c.spans, got)
		}
	}
}

func TestAQuotaKeepsItsRate(t *testing.T) {
	for _, c := range []struct {
		rate        float64
		step        time.Duration // of looks
		low, high   int           // events in a minute
		first, most int           // at once: at the start, and ever
	}{
		{0.5, 100 * time.Millisecond, 30, 31, 1, 1},
		{1, 7 * time.Millisecond, 60, 61, 1, 1},
		{10, 10 * time.Millisecond, 599, 601, 1, 2},
		{1000, 3 * time.Millisecond, 59_990, 60_001, 1, 250},
		{1000, time.Second, 14_700, 15_010, 1, 250}, // who looks seldom doesn't get what was missed
	} {
		var q quota
		now := time.Unix(1000, 0)
		total, most := 0, 0
		for i := range int(time.Minute / c.step) {
			q.refill(c.rate, now)
			n := 0
			for q.take(c.rate) == 0 {
				n++
			}
			q.ended(true)
			if i == 0 && n != c.first {
				t.Errorf("rate %v begins with %d", c.rate, n)
			}
			most, total = max(most, n), total+n
			now = now.Add(c.step)
		}
		if total < c.low || total > c.high || most > c.most {
			t.Errorf("rate %v, looked at every %v: %d in a minute, at most %d at once", c.rate, c.step, total, most)
		}
	}
}

func TestAQuotaSaysWhenTheNextMayPass(t *testing.T) {
	var q quota
	now := time.Unix(1000, 0)
	q.refill(0.5, now)
	if q.take(0.5) != 0 {
		t.Error("the first may pass")
	}
	if wait := q.take(0.5); wait != 2*time.Second {
		t.Errorf("the second in %v", wait)
	}
	q.ended(false)
	if q.take(0.5) != 0 {
		t.Error("what wasn't routed takes no place")
	}
	q.ended(true)
	q.refill(0, now)
	for range 1000 {
		if q.take(0) != 0 {
			t.Fatal("no limit is none")
		}
	}
	q.refill(0.5, now.Add(time.Hour)) // a limit that is new begins anew
	if q.take(0.5) != 0 || q.take(0.5) == 0 {
		t.Error("a new limit has saved something up")
	}
}

// What an agent without a filter costs, and what a filter adds.
func BenchmarkTake(b *testing.B) {
	for _, c := range []struct {
		name    string
		routing spec.Routing
	}{
		{"plain", spec.Routing{}}, {"rate", spec.Routing{Rate: spec.MaxRate}}, {"accepts", spec.Routing{Accepts: []string{"order"}}},
		{"filter on a header", spec.Routing{Filter: `headers["h"] == "x"`}}, {"filter on a field", spec.Routing{Filter: `data.action == "opened"`}},
		{"filter that passes over all", spec.Routing{Filter: `data.action == "closed"`}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var alerts []string
			l := lane(&alerts)
			follow(b, l, c.routing)
			rs := make([]*kgo.Record, 1000)
			for i := range rs {
				rs[i] = &kgo.Record{Topic: "orders", Offset: int64(i), Key: fmt.Appendf(nil, "k%d", i), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("x")}},
					Value: fmt.Appendf(nil, `{"type":"order","action":"opened","number":%d,"issue":{"title":"a title that is about as long as titles are","labels":["a","b"],"user":{"login":"someone","id":12345}},"repository":{"full_name":"owner/name"}}`, i)}
			}
			b.ReportAllocs()
			for b.Loop() {
				l.Take(0, rs, len(rs))
				l.Ended(false)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(rs)), "ns/event")
		})
	}
}
