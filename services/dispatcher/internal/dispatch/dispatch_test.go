package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// one reserves one place.
func one(r *Room, want int32) (p int32, ok bool) {
	wants := []int32{want}
	ok = r.Reserve(wants) == 1
	return wants[0], ok
}

func reserve(t *testing.T, r *Room, want int32, n int) {
	t.Helper()
	for range n {
		if _, ok := one(r, want); !ok {
			t.Fatalf("no place on partition %d", want)
		}
	}
}

func TestRoomIsTheBoundLessWhatIsUnsettledAndRouted(t *testing.T) {
	r := NewRoom(2)
	r.Look()(nil)
	reserve(t, r, 0, Bound)
	if _, ok := one(r, 0); ok {
		t.Error("the bound isn't kept")
	}
	if p, ok := one(r, -1); !ok || p != 1 {
		t.Errorf("a record without a key went to %d, %v", p, ok)
	}
	r.Ended(false)
	if r.Restless() {
		t.Error("places of an aborted transaction aren't free")
	}
	reserve(t, r, 0, 50)
	found := r.Look()
	r.Ended(true) // neither is in what the look finds
	reserve(t, r, 1, 5)
	r.Ended(true)
	found([]int64{100, 1})
	if n, ok := r.Unsettled(); n != 101 || !ok {
		t.Errorf("%d unsettled", n)
	}
	reserve(t, r, 0, Bound-150)
	if _, ok := one(r, 0); ok {
		t.Error("a look doesn't count")
	}
	reserve(t, r, 1, Bound-6)
	if _, ok := one(r, 1); ok {
		t.Error("what was routed during a look doesn't count")
	}
}

func TestAPlaceIsUsedUntilTheNextLook(t *testing.T) {
	r := NewRoom(2)
	for range Bound {
		if p, ok := r.Place(1); p != 1 || !ok {
			t.Fatal("no place on partition 1")
		}
	}
	if _, ok := r.Place(1); ok {
		t.Error("the bound isn't kept")
	}
	if _, ok := one(r, 1); ok {
		t.Error("the lane doesn't count it")
	}
	for range 10 {
		if p, ok := r.Place(-1); p != 0 || !ok {
			t.Errorf("what may go anywhere went to %d, %v", p, ok)
		}
	}
	r.Ended(false)
	if _, ok := r.Place(1); ok {
		t.Error("the end of another's transaction gave it back")
	}
	r.Look()([]int64{0, 0})
	if _, ok := r.Place(1); !ok {
		t.Error("a look doesn't count")
	}
}

// A small transaction touches one task partition, a large one all of them evenly.
func TestRecordsThatMayGoAnywhereAreSpreadByTransactions(t *testing.T) {
	for _, batch := range []int{1, 10, 500} {
		r := NewRoom(4)
		counts := make([]int, 4)
		for range 4000 / batch {
			touched := map[int32]bool{}
			for range batch {
				p, ok := one(r, -1)
				if !ok {
					t.Fatal("no place")
				}
				counts[p]++
				touched[p] = true
			}
			if want := min(4, (batch+maxStreak-1)/maxStreak); len(touched) != want {
				t.Fatalf("a transaction of %d touched %d partitions, want %d", batch, len(touched), want)
			}
			r.Ended(true)
		}
		for p, n := range counts {
			if n < 900 || n > 1100 {
				t.Errorf("by transactions of %d partition %d got %d of 4000", batch, p, n)
			}
		}
	}
}

func TestRecordsThatMayGoAnywhereGoWhereThereIsRoom(t *testing.T) {
	r := NewRoom(2)
	for range 2 * Bound {
		if _, ok := one(r, -1); !ok {
			t.Fatal("there is room on one of the partitions")
		}
	}
	if p, ok := one(r, -1); ok {
		t.Errorf("partition %d is full", p)
	}
}

func TestRoomIsLookedAtAgainOnlyWhereSomethingMoves(t *testing.T) {
	r := NewRoom(1)
	if _, ok := r.Unsettled(); ok || !r.Restless() {
		t.Error("nobody has looked yet")
	}
	r.Look()([]int64{0})
	if r.Restless() || r.Urgent() {
		t.Error("an empty queue is restless")
	}
	reserve(t, r, 0, Bound)
	r.Ended(true)
	one(r, 0)
	if !r.Restless() || r.Urgent() {
		t.Error("what was routed is looked at; nobody knows yet how fast the agent is")
	}
	r.Look()([]int64{100})
	reserve(t, r, 0, Bound-100)
	r.Ended(true)
	one(r, 0)
	if !r.Urgent() {
		t.Error("a fast agent's queue is looked at sooner")
	}
	r.Look()([]int64{Bound})
	one(r, 0)
	if r.Urgent() || !r.Restless() {
		t.Error("a slow agent's queue is looked at as usual")
	}
	r.Look()([]int64{0})
	if r.Restless() {
		t.Error("a settled queue is restless")
	}
}

func lane(refusals *[]string) *Lane {
	l := &Lane{
		agent: &spec.Agent{Topic: "orders", Name: "bill", Partitions: 4}, node: "n1", room: NewRoom(4), logger: quiet(),
		mend:    func(context.Context) error { return nil },
		alert:   func(kind, message string) { *refusals = append(*refusals, kind+": "+message) },
		routers: make(map[int32]*route.Router), refused: make(map[recordID]refusal),
	}
	l.Assigned(hop.Assignment{Partition: 0, TopicID: [16]byte{1}})
	_ = l.Follow(l.agent) // without a filter nothing can fail
	return l
}

func records(keys ...string) []*kgo.Record {
	var rs []*kgo.Record
	for i, k := range keys {
		rs = append(rs, &kgo.Record{Topic: "orders", Offset: int64(i), Key: []byte(k), Value: []byte("v")})
	}
	return rs
}

func TestALaneStopsAtTheFirstRecordWhosePartitionIsFull(t *testing.T) {
	l := lane(nil)
	hot := route.Partition([]byte("hot"), 4)
	if route.Partition([]byte("cold"), 4) == hot {
		t.Fatal("the keys share a partition")
	}
	reserve(t, l.room, hot, Bound)
	l.Ended(true)
	outs, wait := l.Take(0, records("cold", "hot", "cold"), 100)
	if len(outs) != 1 || wait != lookInterval {
		t.Errorf("%d records passed, wait %s", len(outs), wait)
	}
	if outs, _ = l.Take(0, records("cold", "cold", "cold"), 2); len(outs) != 2 {
		t.Errorf("%d records passed a limit of 2", len(outs))
	}
}

func TestARecordThatTheTaskTopicNeverTakesIsRejected(t *testing.T) {
	var alerts []string
	l := lane(&alerts)
	rs := records("a", "b")
	for range maxRefusals {
		outs, _ := l.Take(0, rs, 100)
		if outs[0].Topic != "reeve.tasks.orders.bill" {
			t.Fatalf("given up too soon: %+v", outs[0])
		}
		l.Refused(t.Context(), rs[0], kerr.MessageTooLarge)
	}
	outs, _ := l.Take(0, rs, 100)
	if outs[0].Topic != "reeve.outcomes" || route.Header(outs[0], task.HeaderOutcome) != "rejected" || route.Header(outs[0], task.HeaderErrorClass) != "permanent" {
		t.Errorf("%+v", outs[0])
	}
	if outs[1].Topic != "reeve.tasks.orders.bill" || len(alerts) != 0 {
		t.Errorf("%+v, %v", outs[1], alerts)
	}
	l.Take(0, rs[1:], 100)
	if len(l.refused) != 0 {
		t.Error("what has moved on isn't forgotten")
	}
}

func TestATopicThatCantBeWrittenIsWaitedForAndPeopleAreTold(t *testing.T) {
	var alerts []string
	l := lane(&alerts)
	rs := records("a")
	l.Refused(t.Context(), rs[0], kerr.TopicAuthorizationFailed)
	if len(alerts) != 0 {
		t.Errorf("told at once: %v", alerts)
	}
	l.patience.since = l.patience.since.Add(-2 * alertAfter)
	l.Refused(t.Context(), rs[0], kerr.TopicAuthorizationFailed)
	if outs, _ := l.Take(0, rs, 1); len(alerts) != 1 || outs[0].Topic != "reeve.tasks.orders.bill" {
		t.Errorf("%v", alerts)
	}
}

func TestATierLetsPassWhatIsDue(t *testing.T) {
	now := time.UnixMilli(100_000)
	a := &spec.Agent{Topic: "orders", Name: "bill", Partitions: 4, Phase: spec.Paused}
	gone := &spec.Agent{Topic: "orders", Name: "gone", Partitions: 4, Phase: spec.Terminated, CleanUp: true}
	tier := &Tier{
		delay: 5 * time.Second, now: func() time.Time { return now }, logger: quiet(), alert: func(string, string) {},
		refused: make(map[recordID]bool), mend: func(context.Context, string) error { return nil },
		agents: func(ref string) *spec.Agent { return map[string]*spec.Agent{a.Ref(): a, gone.Ref(): gone}[ref] },
	}
	at := func(offset int64, appended int64, agent string) *kgo.Record {
		return &kgo.Record{Topic: "reeve.retry.5s", Offset: offset, Timestamp: time.UnixMilli(appended), Key: []byte("k"), Headers: []kgo.RecordHeader{
			{Key: task.HeaderAgent, Value: []byte(agent)}, {Key: task.HeaderOrigin, Value: []byte("orders/0/1")}}}
	}
	rs := []*kgo.Record{at(0, 94_000, "orders/bill"), at(1, 95_000, "orders/gone"), at(2, 95_001, "orders/bill")}
	outs, wait := tier.Take(0, rs, 100)
	if len(outs) != 2 || wait != together || outs[0].Topic != "reeve.tasks.orders.bill" || outs[1].Topic != "reeve.outcomes" {
		t.Fatalf("%+v, wait %s", outs, wait)
	}
	tier.Refused(t.Context(), rs[0], kerr.TopicAuthorizationFailed)
	if outs, _ = tier.Take(0, rs, 100); outs[0].Topic != "reeve.retry.5s" || outs[1].Topic != "reeve.outcomes" {
		t.Errorf("a refused retry holds up its tier: %+v", outs[0])
	}
}

// Retries that are due about the same time pass together: none early, none much later.
func TestRetriesPassTogetherAndNeverEarly(t *testing.T) {
	seen := map[time.Time]int{}
	for ms := range int64(1000) {
		due := time.UnixMilli(1_700_000_000_000 + ms)
		at := passes(due)
		if at.Before(due) || at.Sub(due) >= together {
			t.Errorf("what is due at %s passes at %s", due, at)
		}
		seen[at]++
	}
	if n := int(time.Second/together) + 1; len(seen) > n {
		t.Errorf("a second's retries are %d transactions, not %d", len(seen), n)
	}
}

func TestPurgeLeavesOutWhatIsSettled(t *testing.T) {
	var settled offsets.Set
	settled.Add(1)
	u := &Purge{agent: &spec.Agent{Topic: "orders", Name: "bill"}, node: "n1", logger: quiet(), assigned: make(map[int32]purged)}
	u.Assigned(hop.Assignment{Partition: 0, Offset: 10, Metadata: offsets.Metadata{Settled: settled, Entries: []offsets.Entry{{Offset: 12, Attempt: 3}}}})
	var rs []*kgo.Record
	for i := range int64(3) {
		rs = append(rs, &kgo.Record{Offset: 10 + i, Headers: []kgo.RecordHeader{{Key: task.HeaderOrigin, Value: []byte("orders/0/1")}, {Key: task.HeaderAttempt, Value: []byte("1")}}})
	}
	outs, _ := u.Take(0, rs, 10)
	if outs[0] == nil || outs[1] != nil || route.Header(outs[0], task.HeaderAttempt) != "0" || route.Header(outs[2], task.HeaderAttempt) != "3" {
		t.Errorf("%+v", outs)
	}
}

func TestFailuresSlowDownAndAreLoggedNowAndThen(t *testing.T) {
	var f failures
	now := time.Now()
	logged, last := 0, time.Duration(0)
	for range 10 {
		pause, complain := f.next(errors.New("x"), now)
		if pause < last || pause > longPause {
			t.Errorf("pause %s after %s", pause, last)
		}
		last = pause
		if complain {
			logged++
		}
	}
	if last != longPause || logged != 1 {
		t.Errorf("pause %s, logged %d times", last, logged)
	}
	f.next(nil, now)
	if pause, complain := f.next(errors.New("x"), now.Add(complainInterval)); pause != shortPause || !complain {
		t.Errorf("%s, %v", pause, complain)
	}
}

func TestLagCountsFromPositionsOrTheStart(t *testing.T) {
	listed := func(offsets ...int64) kadm.ListedOffsets {
		ps := map[int32]kadm.ListedOffset{}
		for p, o := range offsets {
			ps[int32(p)] = kadm.ListedOffset{Topic: "t", Partition: int32(p), Offset: o}
		}
		return kadm.ListedOffsets{"t": ps}
	}
	starts, ends := listed(0, 5, 5), listed(10, 20, 30)
	for name, tt := range map[string]struct {
		at   map[int32]int64
		want int64
	}{
		"own partitions only":     {map[int32]int64{0: 4}, 6},
		"trimmed below its start": {map[int32]int64{1: 2}, 15},
		"a whole topic":           {map[int32]int64{wholeTopic: 0, 0: 10}, 40},
	} {
		if got := lag("t", tt.at, starts, ends); got == nil || *got != tt.want {
			t.Errorf("%s: %v, want %d", name, got, tt.want)
		}
	}
	if lag("t", nil, starts, ends) != nil {
		t.Error("an unknown lag has a figure")
	}
}

func environment(t *testing.T) *Environment {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return environmentOn(t, c)
}

func environmentOn(t *testing.T, c *kfake.Cluster) *Environment {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &Environment{Rights: &kafka.Tolerance{Logger: quiet()}, Kafka: config.Kafka{RetryTiers: []time.Duration{time.Second}}, Tiers: []time.Duration{time.Second}, Names: topics.Names{}, Service: config.Dispatcher, Node: "n1", Opts: []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, Client: cl, Logger: quiet()}
}

func TestUpkeepTrimsBehindCommittedOffsetsAndKeepsIdleGroups(t *testing.T) {
	env := environment(t)
	a := &spec.Agent{Topic: "orders", Name: "bill", Partitions: 2, Phase: spec.Paused}
	tasks, work := env.Names.Tasks("orders", "bill"), env.Names.WorkGroup("orders", "bill")
	if err := kafka.EnsureTopics(t.Context(), env.Client, -1, kafka.TasksTopic(env.Names, a, 1<<20)); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		if err := env.Client.ProduceSync(t.Context(), &kgo.Record{Topic: tasks, Partition: 1}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	adm := env.admin()
	var at kadm.Offsets
	at.Add(kadm.Offset{Topic: tasks, Partition: 1, At: 4, LeaderEpoch: -1, Metadata: "m"})
	if err := adm.CommitAllOffsets(t.Context(), work, at); err != nil {
		t.Fatal(err)
	}
	u := newUpkeep(env)
	trimmed := map[string]map[int32]int64{}
	u.trim(t.Context(), []*spec.Agent{a}, trimmed)
	starts, err := adm.ListStartOffsets(t.Context(), tasks)
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := starts.Lookup(tasks, 1); o.Offset != 4 || trimmed[tasks][1] != 4 {
		t.Errorf("the log starts at %d", o.Offset)
	}
	room := NewRoom(2)
	if err := look(t.Context(), adm, []queue{{tasks, work, room}, {"none", "none", NewRoom(1)}}); err != nil {
		t.Error(err)
	}
	if n, ok := room.Unsettled(); n != 2 || !ok {
		t.Errorf("%d unsettled", n)
	}
}
