package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/internal/peek"
	"github.com/reeve-run/reeve/services/registry/internal/projection"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

const outcomesTopic = "outcomes"

type bench struct {
	*testing.T
	db    *sqlx.DB
	opts  []kgo.Opt
	cl    *kgo.Client
	order string // that has opened the rounds of what is settled
}

func newBench(t *testing.T) *bench {
	t.Helper()
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	opts := []kgo.Opt{kgo.SeedBrokers(testenv.Kfake(t).Address), kgo.MetadataMinAge(50 * time.Millisecond)}
	cl, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic(outcomesTopic))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := kafka.EnsureTopics(t.Context(), cl, -1, kafka.Topic{Name: outcomesTopic, Partitions: 3}); err != nil {
		t.Fatal(err)
	}
	return &bench{T: t, db: db, opts: opts, cl: cl}
}

// settle produces outcomes of tasks t/0/<task> for agent t/n, each written <task>:<attempt>:<outcome>:<settled>[:<redrives>].
func (b *bench) settle(task int, attempt int, outcome, settled string, redrives int) {
	b.Helper()
	b.produce(task, attempt, outcome, settled, redrives, "1 2 3 4")
}

func (b *bench) produce(task int, attempt int, outcome, settled string, redrives int, times string) {
	b.Helper()
	r := record("reeve-agent", "t/n", "reeve-origin", fmt.Sprintf("t/0/%d/UUID", task), "reeve-attempt", strconv.Itoa(attempt), "reeve-outcome", outcome,
		"reeve-settled", settled, "reeve-redrives", strconv.Itoa(redrives), "reeve-version", "1", "reeve-times", times, "reeve-event", "1 e\\\t\n\x00\xff",
		"reeve-runner", "node inst", "reeve-error-message", "tab\there")
	if outcome == "completed" {
		r.Headers = r.Headers[:len(r.Headers)-1]
	}
	b.ofOrder(r)
	r.Key, r.Value, r.Timestamp = []byte(strconv.Itoa(task)), []byte(`{"ok":true}`), time.Now()
	if err := b.cl.ProduceSync(b.Context(), r).FirstErr(); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) projection() *projection.Projection {
	quiet := slog.New(slog.DiscardHandler)
	return &projection.Projection{Name: "outcomes", Topic: outcomesTopic, DB: b.db, Client: b.cl, Opts: b.opts, Target: NewProjector(b.db, quiet), Logger: quiet}
}

// project runs a projection until it has read all.
func (b *bench) project(p *projection.Projection) {
	b.Helper()
	b.projectWhile(p, func() bool {
		behind, _, err := p.Progress(b.Context())
		return err == nil && behind == 0
	})
}

// projectWhile runs a projection until done says so.
func (b *bench) projectWhile(p *projection.Projection, enough func() bool) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if enough() {
			cancel()
		}
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				b.Fatal(err)
			}
			return
		case <-tick.C:
		}
	}
}

func (b *bench) counters() Counters {
	b.Helper()
	all, err := (&Store{b.db}).Counters(b.Context(), "t", "n")
	if err != nil {
		b.Fatal(err)
	}
	var sum Counters
	for _, c := range all {
		sum.Add(&c.Counters)
	}
	return sum
}

func TestCountersAreExactOverRestartsAndRounds(t *testing.T) {
	b := newBench(t)
	b.settle(1, 1, "completed", "done", 0)
	b.settle(2, 1, "failed", "retry", 0)
	b.settle(2, 2, "crashed", "retry", 0)
	b.settle(3, 1, "failed", "dlq", 0)
	b.project(b.projection())
	if c := b.counters(); c.Received != 3 || c.Completed != 1 || c.Retried != 2 || c.DeadLettered != 1 || c.Between() != 1 {
		t.Fatalf("%+v", c)
	}
	b.settle(2, 3, "completed", "done", 0)
	b.settle(3, 1, "completed", "done", 1) // redriven
	b.settle(4, 2, "completed", "done", 0) // repeated after a kill: its first outcome
	b.project(b.projection())
	if c := b.counters(); c.Received != 4 || c.Completed != 4 || c.Retried != 2 || c.DeadLettered != 0 || c.Between() != 0 {
		t.Fatalf("%+v", c)
	}
}

func TestARedriveLowersNothingThatIsExported(t *testing.T) {
	b := newBench(t)
	const hour = int64(3_600_000)
	now := time.Now().UnixMilli()
	at := func(dispatched int64) string {
		return fmt.Sprintf("%d %d %d %d", now-hour, dispatched, dispatched, dispatched)
	}
	b.produce(1, 1, "failed", "dlq", 0, at(now-hour))
	b.produce(2, 1, "rejected", "failed", 0, at(now-hour))
	b.produce(3, 1, "failed", "failed", 0, at(now-hour))
	b.project(b.projection())
	before := b.counters()
	for task := 1; task <= 3; task++ { // a round in two batches, so that its beginning is looked up
		b.produce(task, 1, "failed", "retry", 1, at(now))
	}
	b.project(b.projection())
	if c, ever := b.counters(), b.counters(); c.DeadLettered+c.Rejected+c.Failed != 0 || ever.Ever().DeadLettered != 1 || ever.Ever().Rejected != 1 || ever.Ever().Failed != 1 {
		t.Fatalf("under way: %+v", c)
	}
	for task := 1; task <= 3; task++ {
		b.produce(task, 2, "completed", "done", 1, at(now+1))
	}
	b.project(b.projection())
	c := b.counters()
	if ever := c.Ever(); c.Completed != 3 || c.Finished() != 3 || ever.Completed != 3 || ever.Finished() != 6 {
		t.Errorf("redriven: %+v", c)
	}
	if took := (c.LatencyMS - before.LatencyMS) / 3; took > hour/2 {
		t.Errorf("a redriven round counts %d ms: what it waited for its redrive too", took)
	}
}

// open is how many of the agent's tasks were dispatched and aren't finished, as the counters have it.
func (b *bench) open() int64 {
	b.Helper()
	var before int64
	if err := b.db.Get(&before, `SELECT coalesce(sum(finished), 0) FROM dispatched_before`); err != nil {
		b.Fatal(err)
	}
	const dispatched = 4 // that settle tells of
	c := b.counters()
	return dispatched - before - c.Finished()
}

// A deletion drops retries that wait, with the number of the attempt that failed.
func TestWhatIsDroppedAfterItsFirstAttemptIsNotReceivedTwice(t *testing.T) {
	b := newBench(t)
	drop := func(task, attempt int) {
		b.produce(task, attempt, "discarded", "dropped", 0, "1 2 0 0")
	}
	b.settle(1, 1, "failed", "retry", 0)
	b.settle(2, 1, "failed", "retry", 0)
	b.settle(2, 2, "failed", "retry", 0)
	b.project(b.projection())
	drop(1, 1)
	drop(2, 2)
	drop(3, 0) // never begun
	drop(4, 1) // begun, and its host died
	b.settle(5, 1, "failed", "retry", 0)
	drop(5, 1) // in the same batch
	b.project(b.projection())
	if c := b.counters(); c.Received != 5 || c.Discarded != 5 || c.Retried != 4 || c.Between() != 0 {
		t.Errorf("%+v", c)
	}
}

func TestATaskFromBeforeAClearingCountsAsOpenInItsNewRound(t *testing.T) {
	b := newBench(t)
	b.settle(1, 1, "completed", "done", 0) // goes into a pack
	b.settle(2, 1, "failed", "dlq", 0)
	b.settle(3, 1, "failed", "retry", 0)
	b.project(b.projection()) // the fourth waits all the while
	if _, err := (&Store{b.db}).ClearMetrics(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.open(); n != 2 {
		t.Errorf("%d are open, want 2", n)
	}
	b.settle(2, 1, "failed", "retry", 1)
	b.project(b.projection())
	if n := b.open(); n != 3 {
		t.Errorf("%d are open while one is retried in its second round, want 3", n)
	}
	b.settle(1, 1, "completed", "done", 1)
	b.settle(2, 2, "completed", "done", 1)
	b.settle(3, 2, "completed", "done", 0)
	b.project(b.projection())
	if n := b.open(); n != 1 {
		t.Errorf("%d are open, want 1", n)
	}
}

func TestTwoProjectionsAtOnceCountOnce(t *testing.T) {
	b := newBench(t)
	b.settle(0, 1, "completed", "done", 0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 2)
	for range 2 {
		go func() {
			var err error
			for ctx.Err() == nil {
				if err = b.projection().Run(ctx); err != nil && !errors.Is(err, projection.ErrFenced) && ctx.Err() == nil {
					break
				}
			}
			done <- err
		}()
	}
	for i := 1; i < 300; i++ {
		b.settle(i, 1, "completed", "done", 0)
	}
	b.waitFor(func() bool { return b.counters().Completed >= 300 })
	cancel()
	for range 2 {
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, projection.ErrFenced) {
			t.Error(err)
		}
	}
	if c := b.counters(); c.Completed != 300 || c.Received != 300 {
		t.Errorf("%+v", c)
	}
}

func (b *bench) waitFor(ok func() bool) {
	b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-limit:
			b.Fatal("waited in vain")
		}
	}
}

func TestATopicThatWasMadeAgainIsProjectedFromItsStart(t *testing.T) {
	b := newBench(t)
	if _, err := b.db.ExecContext(t.Context(), `INSERT INTO projections (name, partition, topic_id, next_offset)
		VALUES ('outcomes', 0, 'other', 99), ('outcomes', 1, 'other', 99), ('outcomes', 2, 'other', 99)`); err != nil {
		t.Fatal(err)
	}
	b.settle(1, 1, "completed", "done", 0)
	b.projectWhile(b.projection(), func() bool { return b.counters().Completed == 1 })
}

func TestTasksAreListedByTheirLatestAttempt(t *testing.T) {
	b := newBench(t)
	b.settle(1, 1, "failed", "retry", 0)
	b.settle(1, 2, "completed", "done", 0)
	b.settle(2, 1, "failed", "dlq", 0)
	b.settle(3, 1, "failed", "retry", 0)
	b.project(b.projection())
	s := &Store{b.db}
	for name, c := range map[string]struct {
		f    Filter
		want []int64 // offsets, the latest first
	}{
		"all":               {Filter{}, []int64{3, 2, 1}},
		"of the agent":      {Filter{Topic: "t", Name: "n"}, []int64{3, 2, 1}},
		"of another":        {Filter{Topic: "t", Name: "m"}, nil},
		"completed":         {Filter{Status: Completed}, []int64{1}},
		"retrying":          {Filter{Status: Retrying}, []int64{3}},
		"dead-lettered":     {Filter{Topic: "t", Name: "n", Status: DeadLettered}, []int64{2}},
		"of an event":       {Filter{Origin: &task.Origin{Topic: "t", Offset: 1}}, []int64{1}},
		"of another's":      {Filter{Origin: &task.Origin{Topic: "u", Offset: 1}}, nil},
		"since now":         {Filter{Since: time.Now().Add(time.Hour)}, nil},
		"a limit":           {Filter{Limit: 2}, []int64{3, 2}},
		"a correlation":     {Filter{CorrelationID: "x"}, nil},
		"by an error class": {Filter{ErrorClass: "x"}, nil},
	} {
		if c.f.Limit == 0 {
			c.f.Limit = 10
		}
		got, err := s.Tasks(t.Context(), c.f)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		offsets := []int64{}
		for _, a := range got {
			offsets = append(offsets, a.Offset)
		}
		if fmt.Sprint(offsets) != fmt.Sprint(append([]int64{}, c.want...)) {
			t.Errorf("%s: got %v, want %v", name, offsets, c.want)
		}
	}
	attempts, err := s.Task(t.Context(), "t", "n", 0, 1)
	if err != nil || len(attempts) != 2 || attempts[0].Status() != Retrying || attempts[1].Outcome() != task.Completed || attempts[1].Instance() != "inst" {
		t.Fatalf("%+v, %v", attempts, err)
	}
	if attempts[0].EventID != "e\\\t\n\uFFFD" || attempts[0].ErrorMessage != "tab\there" {
		t.Errorf("texts came back as %q and %q", attempts[0].EventID, attempts[0].ErrorMessage)
	}
}

func TestWhatIsPackedIsFoundLikeTheRest(t *testing.T) {
	b := newBench(t)
	const n = 40 // three partitions of the outcomes topic, several batches
	for i := range n {
		b.settle(i, 1, "completed", "done", 0)
		if i%10 == 0 {
			b.project(b.projection())
		}
	}
	b.settle(n, 1, "failed", "dlq", 0)
	b.project(b.projection())
	s := &Store{b.db}
	var packs, rows int
	if err := b.db.GetContext(t.Context(), &packs, `SELECT count(*) FROM packs`); err != nil || packs < 2 || packs > 10 {
		t.Errorf("%d packs, %v", packs, err)
	}
	if err := b.db.GetContext(t.Context(), &rows, `SELECT count(*) FROM attempts`); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
	seen := map[int64]bool{}
	f := Filter{Topic: "t", Name: "n", Limit: 7}
	for {
		page, err := s.Tasks(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			if seen[a.Offset] || f.Below > 0 && a.ID >= f.Below {
				t.Errorf("task %d again", a.Offset)
			}
			seen[a.Offset] = true
			f.Below = a.ID
		}
		if len(page) < f.Limit {
			break
		}
	}
	if len(seen) != n+1 {
		t.Errorf("%d tasks on all pages", len(seen))
	}
	for i := range int64(n) {
		got, err := s.Task(t.Context(), "t", "n", 0, i)
		if err != nil || len(got) != 1 || got[0].Status() != Completed || got[0].EventID != "e\\\t\n\uFFFD" || got[0].Node() != "node" || got[0].Version != "1" || got[0].StartedMS != 3 {
			t.Fatalf("task %d: %+v, %v", i, got, err)
		}
		record := b.outcomeAt(got[0].AtPartition, got[0].AtOffset)
		if string(record.Key) != strconv.FormatInt(i, 10) {
			t.Errorf("task %d points at the outcome of %s", i, record.Key)
		}
	}
	b.settle(5, 1, "failed", "retry", 1) // redriven
	b.project(b.projection())
	if got, err := s.Tasks(t.Context(), Filter{Origin: &task.Origin{Topic: "t", Offset: 5}, Limit: 9}); err != nil || len(got) != 1 || got[0].Status() != Retrying {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Tasks(t.Context(), Filter{Status: Completed, Limit: 100}); err != nil || len(got) != n-1 {
		t.Errorf("%d completed, %v", len(got), err)
	}
	if c := b.counters(); c.Completed != n-1 || c.Received != n+1 || c.Between() != 1 {
		t.Errorf("%+v", c)
	}
}

// outcomeAt reads a record of the outcomes topic.
func (b *bench) outcomeAt(partition int32, offset int64) *kgo.Record {
	b.Helper()
	records, _, err := peek.Read(b.Context(), b.opts, outcomesTopic, partition, offset, offset+1, 1)
	if err != nil || len(records) != 1 {
		b.Fatalf("%d records, %v", len(records), err)
	}
	return records[0]
}

func TestOldTablesAreDropped(t *testing.T) {
	b := newBench(t)
	b.settle(1, 1, "completed", "done", 0)
	b.project(b.projection())
	p := NewProjector(b.db, slog.Default())
	if err := p.makeTables(t.Context(), 0, KeepTables*perTable); err != nil { // one more than is kept
		t.Fatal(err)
	}
	dropped, err := Prune(t.Context(), b.db, time.Now())
	if err != nil || len(dropped) != 1 || dropped[0] != tableName(0) {
		t.Fatalf("dropped %v, %v", dropped, err)
	}
	if dropped, err = Prune(t.Context(), b.db, time.Now()); err != nil || len(dropped) != 0 {
		t.Errorf("then dropped %v, %v", dropped, err)
	}
	if dropped, err = Prune(t.Context(), b.db, time.Now().Add(KeepFor+time.Hour)); err != nil || len(dropped) != KeepTables-1 {
		t.Errorf("of old ones dropped %v, %v", dropped, err)
	}
	if c := b.counters(); c.Completed != 1 {
		t.Errorf("counters went with the attempts: %+v", c)
	}
}
