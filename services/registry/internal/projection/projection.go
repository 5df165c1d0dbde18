// Package projection reads a topic into Postgres: in batches, with the offset stored in the transaction of the rows.
//
// It reads partitions directly, without a group, since Kafka's own offsets would be a second truth. The offset row is also the
// fence: a batch commits only if the row still says what this projection started from, so a second one on the same
// topic is harmless; it starts again from what is stored. Polls are paced, because a batch for every small transaction of
// the writers would cost more than the records do.
package projection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

const (
	pace       = 100 * time.Millisecond // between polls that found little
	busyPace   = 300 * time.Millisecond // between those that found more
	little     = 2_000                  // records
	maxBatch   = 50_000                 // records of one transaction; after as many the next poll follows at once
	storeIdle  = time.Second            // after this long without records the offset behind markers is stored too
	batchLimit = 60 * time.Second       // of one transaction
)

// ErrFenced says that another projection has moved the offsets.
var ErrFenced = errors.New("another registry projects this topic")

// A Target makes rows of records.
type Target interface {
	// Prepare does what can't be undone with the batch: it runs outside its transaction.
	Prepare(ctx context.Context, records []*kgo.Record) error
	// Headers are the keys of the headers that it looks at by HeadersOf, where it looks at nothing else of a record but where
	// and when it stands: its records have no key and no value then. Nil where it looks at all.
	Headers() []string
	// Write writes the records' rows on a connection that has the batch's transaction open.
	Write(ctx context.Context, conn *sqlx.Conn, tx *sqlx.Tx, records []*kgo.Record) error
}

// Projection reads Topic into Target, under its name in the table of offsets.
type Projection struct {
	Name   string
	Topic  string
	DB     *sqlx.DB
	Client *kgo.Client // for questions about the topic
	Opts   []kgo.Opt   // of the client that reads it
	Target Target
	Logger *slog.Logger
	// Wrote is called after every batch, from Run's goroutine. May be nil.
	Wrote func()
}

// Run projects until ctx ends, or returns why it can't go on; it may be called again.
func (p *Projection) Run(ctx context.Context) error {
	stored, from, err := p.load(ctx)
	if err != nil {
		return err
	}
	start := make(map[int32]kgo.Offset, len(from))
	for partition, offset := range from {
		start[partition] = kgo.NewOffset().At(offset)
	}
	// Without a reset: an offset that the log doesn't have is for load to judge, not for the client to replace.
	opts := slices.Concat(p.Opts, []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{p.Topic: start}), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(time.Second),
		kgo.FetchMaxPartitionBytes(8 << 20), // a busy agent's outcomes stand on one partition
	})
	if keys := p.Target.Headers(); keys != nil {
		opts = append(opts, kgo.WithDecompressor(newHeadersOnly(keys)))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("configure the reader of %s: %w", p.Topic, err)
	}
	defer cl.Close()
	r := run{Projection: p, stored: stored, seen: from}
	return r.loop(ctx, cl)
}

// load reads what is stored, and from where to read on. Which topic an offset belongs to is told by the topic's UUID: one
// that was made again is read from its start. What retention has overtaken is reported.
func (p *Projection) load(ctx context.Context) (stored, from map[int32]int64, err error) {
	id, err := p.topicID(ctx)
	if err != nil {
		return nil, nil, err
	}
	bounds, err := peek.PartitionBounds(ctx, p.Client, p.Topic)
	if err != nil {
		return nil, nil, err
	}
	for partition, b := range bounds {
		_, err := p.DB.ExecContext(ctx, `INSERT INTO projections AS p (name, partition, topic_id, next_offset) VALUES ($1, $2, $3, $4)
			ON CONFLICT (name, partition) DO UPDATE SET topic_id = excluded.topic_id, next_offset = excluded.next_offset WHERE p.topic_id <> excluded.topic_id`,
			p.Name, partition, id, b.Start)
		if err != nil {
			return nil, nil, fmt.Errorf("store the first offset of %s: %w", p.Topic, err)
		}
	}
	if stored, err = p.Stored(ctx); err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(stored, func(partition int32, _ int64) bool { _, ok := bounds[partition]; return !ok })
	from = make(map[int32]int64, len(stored))
	for partition, b := range bounds {
		if from[partition] = max(stored[partition], b.Start); stored[partition] < b.Start {
			p.Logger.Error("records were deleted before they were projected", slog.String("topic", p.Topic), slog.Int("partition", int(partition)),
				slog.Int64("from", stored[partition]), slog.Int64("to", b.Start-1))
		}
	}
	return stored, from, nil
}

// topicID is the topic's UUID.
func (p *Projection) topicID(ctx context.Context) (string, error) {
	listed, err := kadm.NewClient(p.Client).ListTopics(ctx, p.Topic)
	if err == nil {
		err = listed[p.Topic].Err
	}
	if err != nil {
		return "", fmt.Errorf("look at topic %s: %w", p.Topic, err)
	}
	return listed[p.Topic].ID.String(), nil
}

// Stored reads up to where each partition is projected.
func (p *Projection) Stored(ctx context.Context) (map[int32]int64, error) {
	var rows []struct {
		Partition  int32
		NextOffset int64 `db:"next_offset"`
	}
	if err := p.DB.SelectContext(ctx, &rows, `SELECT partition, next_offset FROM projections WHERE name = $1`, p.Name); err != nil {
		return nil, fmt.Errorf("read the offsets of %s: %w", p.Topic, err)
	}
	out := make(map[int32]int64, len(rows))
	for _, row := range rows {
		out[row.Partition] = row.NextOffset
	}
	return out, nil
}

// Durable is Stored, and a crash of the database forgets none of it: batches commit without waiting for the disk, so that
// what Kafka is to delete must be asked for here.
func (p *Projection) Durable(ctx context.Context) (map[int32]int64, error) {
	stored, err := p.Stored(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := p.DB.BeginTxx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("make the offsets of %s durable: %w", p.Topic, err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	// A commit that waits for the disk waits for all that were before it. It has to have written something; one row, since
	// a batch locks several.
	_, err = tx.ExecContext(ctx, `SET LOCAL synchronous_commit = on`)
	if err == nil {
		_, err = tx.ExecContext(ctx, `UPDATE projections SET updated_at = now()
			WHERE name = $1 AND partition = (SELECT min(partition) FROM projections WHERE name = $1)`, p.Name)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return nil, fmt.Errorf("make the offsets of %s durable: %w", p.Topic, err)
	}
	return stored, nil
}

// Progress counts the records (and markers) that are still to be projected, and gives how far it has come: that grows as
// long as it works.
func (p *Projection) Progress(ctx context.Context) (behind, at int64, err error) {
	bounds, err := peek.PartitionBounds(ctx, p.Client, p.Topic)
	if err != nil {
		return 0, 0, err
	}
	stored, err := p.Stored(ctx)
	if err != nil {
		return 0, 0, err
	}
	for partition, b := range bounds {
		behind += max(0, b.End-max(stored[partition], b.Start))
		at += stored[partition]
	}
	return behind, at, nil
}

// run is one run of a projection: what is stored, and what has been seen beyond it.
type run struct {
	*Projection
	stored, seen map[int32]int64
	active       time.Time // when records last came
}

func (r *run) loop(ctx context.Context, cl *kgo.Client) error {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		}
		records, found, err := r.poll(ctx, cl)
		if err != nil {
			return err
		}
		polled := time.Now()
		if err := r.store(ctx, records); err != nil {
			return err
		}
		next.Reset(time.Until(polled.Add(pause(found))))
	}
}

// pause is how long after a poll the next one is made, given how many records it found. What comes meanwhile is one fetch
// and one transaction, where it would have been one for each transaction of the writers.
func pause(found int) time.Duration {
	switch {
	case found >= maxBatch: // there are more
		return 0
	case found >= little:
		return busyPace
	}
	return pace
}

// poll gives the next records, without markers, and says how many it found with them. It returns after a second at the
// latest.
func (r *run) poll(ctx context.Context, cl *kgo.Client) (records []*kgo.Record, found int, err error) {
	wait, cancel := context.WithTimeout(ctx, storeIdle)
	defer cancel()
	fetches := cl.PollRecords(wait, maxBatch)
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	for _, e := range fetches.Errors() {
		if !errors.Is(e.Err, context.DeadlineExceeded) {
			return nil, 0, fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
	}
	found = fetches.NumRecords()
	records = make([]*kgo.Record, 0, found)
	fetches.EachRecord(func(rec *kgo.Record) {
		r.seen[rec.Partition] = rec.Offset + 1
		if !rec.Attrs.IsControl() {
			records = append(records, rec)
		}
	})
	return records, found, nil
}

// store writes a batch; without records only offsets, and that only where it has been quiet for a while.
func (r *run) store(ctx context.Context, records []*kgo.Record) error {
	now := time.Now()
	if len(records) > 0 {
		r.active = now
	} else if now.Sub(r.active) < storeIdle || maps.Equal(r.stored, r.seen) {
		return nil
	}
	// A batch that has begun is finished even while the process stops: it is a matter of milliseconds, and spares the
	// next one the work.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), batchLimit)
	defer cancel()
	if len(records) > 0 {
		if err := r.Target.Prepare(ctx, records); err != nil {
			return fmt.Errorf("prepare a batch of %s: %w", r.Topic, err)
		}
	}
	if err := r.transact(ctx, records); err != nil {
		return err
	}
	r.stored = maps.Clone(r.seen)
	if r.Wrote != nil && len(records) > 0 {
		r.Wrote()
	}
	return nil
}

func (r *run) transact(ctx context.Context, records []*kgo.Record) error {
	conn, err := r.DB.Connx(ctx)
	if err != nil {
		return fmt.Errorf("connect for a batch of %s: %w", r.Topic, err)
	}
	defer func() { _ = conn.Close() }() // gives it back to the pool
	tx, err := conn.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin a batch of %s: %w", r.Topic, err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	// A batch that a crash of the database forgets is read again: rows and offset are forgotten together.
	if _, err := tx.ExecContext(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
		return fmt.Errorf("begin a batch of %s: %w", r.Topic, err)
	}
	if err := r.advance(ctx, tx); err != nil {
		return err
	}
	if len(records) > 0 {
		if err := r.Target.Write(ctx, conn, tx, records); err != nil {
			return fmt.Errorf("write a batch of %s: %w", r.Topic, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit a batch of %s: %w", r.Topic, err)
	}
	return nil
}

// advance moves the stored offsets, if they are still those that this run knows.
func (r *run) advance(ctx context.Context, tx *sqlx.Tx) error {
	var partitions []int32
	var before, after []int64
	for _, partition := range slices.Sorted(maps.Keys(r.seen)) {
		if r.seen[partition] != r.stored[partition] {
			partitions, before, after = append(partitions, partition), append(before, r.stored[partition]), append(after, r.seen[partition])
		}
	}
	res, err := tx.ExecContext(ctx, `UPDATE projections p SET next_offset = n.after, updated_at = now()
		FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS n (partition, before, after)
		WHERE p.name = $1 AND p.partition = n.partition AND p.next_offset = n.before`, r.Name, pq.Array(partitions), pq.Array(before), pq.Array(after))
	if err != nil {
		return fmt.Errorf("store the offsets of %s: %w", r.Topic, err)
	}
	if n, err := res.RowsAffected(); err != nil || n != int64(len(partitions)) {
		return errors.Join(fmt.Errorf("store the offsets of %s: %w", r.Topic, ErrFenced), err)
	}
	return nil
}
