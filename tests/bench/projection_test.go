package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	benchOutcomes = 400_000 // of a measurement
	liveRate      = 50_000  // a second
	liveBatch     = 2_500   // outcomes of a transaction, about what a busy worker's has
)

// BenchmarkProjection is what the history of tasks costs: the processor time of the registry and of its Postgres for a
// million outcomes, what Postgres writes to its log, and how many rows there are afterwards. The outcomes are on Kafka as
// workers write them, in transactions; no service but the registry runs.
//
//	go test ./tests/bench -run '^$' -bench Projection -benchtime 1x
//
// Of each mixture, `behind` makes all outcomes visible at one moment, as after a registry's absence, and `live` as many
// a second as a busy machine settles. `plain` outcomes are those of tasks that complete at once; of `mixed` ones every
// tenth has a correlation id, and three in a hundred failed and were retried.
func BenchmarkProjection(b *testing.B) {
	bin, dir := b.TempDir(), b.TempDir()
	if err := harness.Build(b.Context(), bin); err != nil {
		b.Fatal(err)
	}
	k := testenv.Kafka(b)
	pg, err := testenv.StartPostgres(b.Context(), b.Logf)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = pg.Stop() })
	for _, kind := range []string{"plain", "mixed"} {
		for _, perSecond := range []int{0, liveRate} {
			name := kind + "/behind"
			if perSecond > 0 {
				name = kind + "/live"
			}
			b.Run(name, func(b *testing.B) {
				p := &projected{B: b, bench: &bench{bin: bin, dir: dir, kafka: k, postgres: pg}, mixed: kind == "mixed", perSecond: perSecond}
				for b.Loop() {
					p.round()
				}
			})
		}
	}
}

// projected is one measurement of the projection.
type projected struct {
	*testing.B
	bench     *bench
	mixed     bool
	perSecond int // 0: all at once

	db       *sql.DB
	registry *harness.Process
}

func (p *projected) round() {
	ctx, cancel := context.WithTimeout(p.Context(), 5*time.Minute)
	defer cancel()
	s, err := p.bench.installation(ctx)
	p.must(err)
	defer func() { p.must(errors.Join(s.close(), p.bench.drop())) }()
	p.db, err = sql.Open("postgres", s.sys.Database)
	p.must(err)
	defer p.db.Close()
	p.registry, err = s.sys.Start(ctx, "registry", "r0")
	p.must(err)
	w, err := newOutcomeWriter(s.sys.Brokers, s.sys.Names(), p.mixed)
	p.must(err)
	defer w.cl.Close()
	before := p.look(ctx)
	if p.perSecond == 0 {
		p.must(w.transaction(ctx, benchOutcomes, func() { before = p.look(ctx) }))
	} else {
		p.must(w.pace(ctx, benchOutcomes, p.perSecond))
	}
	p.await(ctx)
	p.report(before, p.look(ctx))
	p.check(ctx, w)
}

func (p *projected) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// usage is what has been used so far.
type usage struct {
	at                 time.Time
	registry, postgres float64 // CPU-s
	wal                float64 // bytes
}

func (p *projected) look(ctx context.Context) usage {
	p.Helper()
	u := usage{at: time.Now(), registry: cpu(p.registry), postgres: tree(p.bench.postgres.PID)}
	p.must(p.db.QueryRowContext(ctx, `SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')`).Scan(&u.wal))
	return u
}

// await waits until all outcomes are projected.
func (p *projected) await(ctx context.Context) {
	p.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var next int
		p.must(p.db.QueryRowContext(ctx, `SELECT next_id FROM attempts_head`).Scan(&next))
		if next >= benchOutcomes {
			return
		}
		select {
		case <-ctx.Done():
			p.Fatalf("%d of %d outcomes are projected: %v", next, benchOutcomes, ctx.Err())
		case <-tick.C:
		}
	}
}

func (p *projected) report(before, after usage) {
	const million = benchOutcomes / 1e6
	registry, postgres := (after.registry-before.registry)/million, (after.postgres-before.postgres)/million
	p.ReportMetric(registry, "registry-cpu-s/M")
	p.ReportMetric(postgres, "postgres-cpu-s/M")
	p.ReportMetric(registry+postgres, "cpu-s/M")
	p.ReportMetric((after.wal-before.wal)/benchOutcomes, "WAL-B/outcome")
	p.ReportMetric(0, "ns/op") // says nothing: most of it is the writing
	p.ReportMetric(benchOutcomes/after.at.Sub(before.at).Seconds(), "outcomes/s")
}

// check counts the rows, and holds the counters against what was written.
func (p *projected) check(ctx context.Context, w *outcomeWriter) {
	p.Helper()
	var got tally
	p.must(p.db.QueryRowContext(ctx, `SELECT sum(received), sum(completed), sum(retried) FROM counters`).Scan(&got.received, &got.completed, &got.retried))
	if got != w.told {
		p.Errorf("the counters say %+v of %+v", got, w.told)
	}
	var rows float64
	p.must(p.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM packs) + (SELECT count(*) FROM attempts) + (SELECT count(*) FROM event_pages)`).Scan(&rows))
	p.ReportMetric(rows, "rows")
}

// tally is what outcomes come to.
type tally struct{ received, completed, retried int }

// outcomeWriter writes outcomes to their topic as workers do.
type outcomeWriter struct {
	cl    *kgo.Client
	topic string
	mixed bool
	n     int // written
	told  tally
	again int // the event, if not negative, whose second attempt is next
}

func newOutcomeWriter(brokers []string, names topics.Names, mixed bool) (*outcomeWriter, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID("bench-"+testenv.Unique()), kgo.TransactionTimeout(5*time.Minute),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.ProducerLinger(time.Millisecond), kgo.MaxBufferedRecords(50_000), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	return &outcomeWriter{cl: cl, topic: names.Outcomes(), mixed: mixed, again: -1}, err
}

// pace writes n outcomes at an even rate.
func (w *outcomeWriter) pace(ctx context.Context, n, perSecond int) error {
	begun := time.Now()
	for done := 0; done < n; done += liveBatch {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(begun.Add(time.Duration(done) * time.Second / time.Duration(perSecond)))):
		}
		if err := w.transaction(ctx, min(liveBatch, n-done), func() {}); err != nil {
			return err
		}
	}
	return nil
}

// transaction writes n outcomes in one transaction, and calls ready just before they become visible.
func (w *outcomeWriter) transaction(ctx context.Context, n int, ready func()) error {
	if err := w.cl.BeginTransaction(); err != nil {
		return err
	}
	var failed error // set before Flush returns
	for range n {
		w.cl.Produce(ctx, w.next(), func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err
			}
		})
	}
	if err := errors.Join(w.cl.Flush(ctx), failed); err != nil {
		return errors.Join(err, w.cl.EndTransaction(ctx, kgo.TryAbort))
	}
	ready()
	return w.cl.EndTransaction(ctx, kgo.TryCommit)
}

// next makes the next outcome. The events come of eight partitions in turn, as a dispatcher's batches do, a few hundred
// of each.
func (w *outcomeWriter) next() *kgo.Record {
	event, attempt := w.n, 1
	if w.again >= 0 {
		event, attempt, w.again = w.again, 2, -1
	} else {
		w.told.received++
	}
	w.n++
	fails := w.mixed && attempt == 1 && event%33 == 7 && w.n < benchOutcomes
	const run = 300
	partition := event / run % partitions
	offset := event/(run*partitions)*run + event%run
	id := fmt.Sprintf("orders/%d/%d", partition, offset)
	now := time.Now().UnixMilli()
	said := fmt.Sprintf("orders:%d:%d", partition, offset)
	if w.mixed {
		said = fmt.Sprintf("%08x-0b5c-4f0e-9d6a-%012x", uint32(event*2654435761), event*48271)
	}
	r := &kgo.Record{Topic: w.topic, Partition: 3, Key: []byte(id), Value: []byte("{}"), Timestamp: time.UnixMilli(now)}
	add := func(key, value string) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	outcome, settled, final := string(task.Completed), string(task.SettledDone), "true"
	if fails {
		outcome, settled, final = string(task.Failed), string(task.SettledRetry), "false"
		w.again = event
		w.told.retried++
	} else {
		w.told.completed++
	}
	add(task.HeaderAgent, "orders/bill")
	add(task.HeaderOrigin, id+"/4hJ3k2l1QmmZx0a9S8d7Fg")
	add(task.HeaderAttempt, strconv.Itoa(attempt))
	add(task.HeaderOutcome, outcome)
	add(task.HeaderSettled, settled)
	add(task.HeaderRedrives, "0")
	add(task.HeaderFinal, final)
	add(task.HeaderVersion, "1.0.0")
	add(task.HeaderTimes, fmt.Sprintf("%d %d %d %d", now-2000-int64(event%7), now-40, now-int64(event%5), now))
	add(task.HeaderRunner, "s0 bill-"+strconv.Itoa(event%4))
	add(task.HeaderEvent, fmt.Sprintf("%d %s", now-2000-int64(event%7), said))
	if w.mixed && event%10 == 3 {
		add(task.HeaderCorrelationID, "order-"+strconv.Itoa(event/3))
	}
	if fails {
		add(task.HeaderErrorClass, string(task.ClassNetwork))
		add(task.HeaderErrorMessage, "connection to 10.0.0.7:443 was reset by the peer while the answer was awaited")
		add(task.HeaderErrorFingerprint, "b1946ac92492d234")
		r.Value = []byte(`{"error":"connection to 10.0.0.7:443 was reset by the peer while the answer was awaited","error_class":"network","error_type":"ConnectionResetError"}`)
	}
	return r
}
