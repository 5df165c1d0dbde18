// Package relay publishes the outbox to the control topic: in order, and level-triggered.
//
// Fencing: the relay's producer is transactional, with one id for the whole installation. A relay that starts makes
// Kafka fence every older one before it reads anything, so a replaced relay can publish nothing older over newer. Then it
// reads the control topic to its end, compares it with the database, publishes what is missing or differs, and only then
// goes on with the outbox.
package relay

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

const (
	lookEvery  = 250 * time.Millisecond // for changes that another registry made
	atOnce     = 500
	usualLimit = 15 * time.Second // of one transaction on Kafka
)

// Relay publishes from DB to the control topic of Names.
type Relay struct {
	DB     *sqlx.DB
	Opts   []kgo.Opt // of a client
	Names  topics.Names
	Logger *slog.Logger

	limit time.Duration // of one transaction on Kafka
	kick  chan struct{}
}

// New makes a relay; opts configure its Kafka clients.
func New(db *sqlx.DB, opts []kgo.Opt, names topics.Names, logger *slog.Logger) *Relay {
	return &Relay{DB: db, Opts: opts, Names: names, Logger: logger, limit: usualLimit, kick: make(chan struct{}, 1)}
}

// Kick says that the outbox has grown. It never blocks.
func (r *Relay) Kick() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// message is what goes to the control topic; a nil value is a tombstone.
type message struct {
	ID    int64
	Key   string
	Value *string
}

// Run publishes until ctx ends, or returns the error that ended it; another relay may have fenced this one.
func (r *Relay) Run(ctx context.Context) error {
	cl, err := kgo.NewClient(append(r.Opts[:len(r.Opts):len(r.Opts)], kgo.TransactionalID(r.Names.TransactionalID("registry", "relay", 0)),
		kgo.TransactionTimeout(10*time.Second), kgo.ProducerLinger(0), kgo.MetadataMinAge(10*time.Millisecond), kgo.ProducerBatchMaxBytes(16<<20),
		kgo.RecordDeliveryTimeout(r.limit), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return fmt.Errorf("configure the relay's producer: %w", err)
	}
	defer cl.Close()
	if _, _, err := cl.ProducerID(ctx); err != nil {
		return kafka.Explained("fence older relays", err)
	}
	if err := r.catchUp(ctx, cl); err != nil {
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := r.drain(ctx, cl); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-r.kick:
		}
	}
}

// catchUp publishes every record that the control topic doesn't have as the database does, and drops the outbox rows
// that this overtakes.
func (r *Relay) catchUp(ctx context.Context, cl *kgo.Client) error {
	published, err := r.control(ctx, cl)
	if err != nil {
		return err
	}
	wanted, overtaken, err := r.wanted(ctx)
	if err != nil {
		return err
	}
	missing, strays := compare(wanted, published)
	if len(strays) > 0 {
		r.Logger.Error("the control topic has agents that the database doesn't know: was it restored from a backup, or is it another one? They go on as they are; apply the agents.yaml that they come from, or register and delete them",
			slog.Any("agents", strays))
	}
	if err := r.publish(ctx, cl, missing); err != nil {
		return err
	}
	if len(missing) > 0 {
		r.Logger.Info("control topic brought up to date", slog.Int("records", len(missing)))
	}
	return r.drop(ctx, overtaken)
}

// control reads the control topic to its end, as key → latest value.
func (r *Relay) control(ctx context.Context, cl *kgo.Client) (map[string][]byte, error) {
	bounds, err := peek.PartitionBounds(ctx, cl, r.Names.Control())
	if err != nil {
		return nil, err
	}
	at := bounds[0]
	out := map[string][]byte{}
	for next := at.Start; next < at.End; {
		records, to, err := peek.Read(ctx, r.Opts, r.Names.Control(), 0, next, at.End, 10_000)
		if err != nil {
			return nil, err
		}
		for _, rec := range records {
			if rec.Value == nil {
				delete(out, string(rec.Key))
			} else {
				out[string(rec.Key)] = rec.Value
			}
		}
		next = to
	}
	return out, nil
}

// desired is what the control topic is to have of an agent.
type desired struct {
	record string
	buried bool // nothing: the record is that of an agent that was deleted long ago
}

// wanted reads every agent's record, and the outbox rows that they include, from one snapshot. The rows are told by their
// numbers one by one: a row of a transaction that began earlier may yet appear below the highest.
func (r *Relay) wanted(ctx context.Context) (map[string]desired, []int64, error) {
	tx, err := r.DB.BeginTxx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, nil, fmt.Errorf("read agents for the control topic: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	var overtaken []int64
	if err := tx.SelectContext(ctx, &overtaken, `SELECT id FROM outbox ORDER BY id LIMIT 1000000`); err != nil {
		return nil, nil, fmt.Errorf("read the outbox: %w", err)
	}
	var rows []struct {
		Topic, Name, Record string
		Buried              bool
	}
	if err := tx.SelectContext(ctx, &rows, `SELECT topic, name, record, buried FROM agents ORDER BY topic, name LIMIT 100000`); err != nil {
		return nil, nil, fmt.Errorf("read agents for the control topic: %w", err)
	}
	out := make(map[string]desired, len(rows))
	for _, row := range rows {
		out[(&spec.Agent{Topic: row.Topic, Name: row.Name}).Key()] = desired{row.Record, row.Buried}
	}
	return out, overtaken, nil
}

// compare lists what is to be published: records whose generation or revision differs from the published one, and tombstones
// of what is buried. strays are the agents that the database doesn't know, or not as of this life. It keeps what it once knew,
// deleted ones too, so that it is the database that lacks something, and a tombstone would stop an agent at work.
func compare(wanted map[string]desired, published map[string][]byte) (out []message, strays []string) {
	var later []string
	for key, want := range wanted {
		old, ok := published[key]
		same, newer := versions(want.record, old)
		switch {
		case want.buried && ok && newer:
			later = append(later, key)
		case want.buried && ok:
			out = append(out, message{Key: key})
		case !want.buried && !(ok && same):
			out = append(out, message{Key: key, Value: &want.record})
		}
	}
	for key := range published {
		topic, name, isAgent := spec.ParseKey(key)
		if _, ok := wanted[key]; isAgent && (!ok || slices.Contains(later, key)) {
			strays = append(strays, topic+"/"+name)
		}
	}
	slices.Sort(strays)
	return out, strays
}

// versions compares a record with the published one: whether it is the same, and whether that is of a later generation.
func versions(record string, published []byte) (same, later bool) {
	var have, want struct{ Generation, Revision int64 }
	if json.Unmarshal(published, &have) != nil || json.Unmarshal([]byte(record), &want) != nil {
		return false, false
	}
	return have == want, have.Generation > want.Generation
}

// drain publishes the outbox until it is empty.
func (r *Relay) drain(ctx context.Context, cl *kgo.Client) error {
	for {
		var rows []message
		if err := r.DB.SelectContext(ctx, &rows, `SELECT id, key, value FROM outbox ORDER BY id LIMIT $1`, atOnce); err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		if err := r.publish(ctx, cl, rows); err != nil {
			return err
		}
		ids := make([]int64, len(rows))
		for i, row := range rows {
			ids[i] = row.ID
		}
		if err := r.drop(ctx, ids); err != nil {
			return err
		}
	}
}

// Backlog is what the relay has still to publish.
type Backlog struct {
	Changes int64         // of agents
	Age     time.Duration // of the oldest; 0 where there is none
}

// Backlog reads what the relay has still to publish, whichever registry's it is.
func (r *Relay) Backlog(ctx context.Context) (Backlog, error) {
	var row struct {
		Changes int64
		Seconds float64
	}
	err := r.DB.GetContext(ctx, &row, `SELECT count(*) AS changes, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0) AS seconds FROM outbox`)
	if err != nil {
		return Backlog{}, fmt.Errorf("look how far the outbox is behind: %w", err)
	}
	return Backlog{row.Changes, time.Duration(row.Seconds * float64(time.Second))}, nil
}

// drop removes published rows.
func (r *Relay) drop(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	if _, err := r.DB.ExecContext(ctx, `DELETE FROM outbox WHERE id = ANY($1)`, pq.Array(ids)); err != nil {
		return fmt.Errorf("drop published outbox rows: %w", err)
	}
	return nil
}

// publish writes messages in one Kafka transaction.
func (r *Relay) publish(ctx context.Context, cl *kgo.Client, messages []message) error {
	if len(messages) == 0 {
		return nil
	}
	if err := cl.BeginTransaction(); err != nil {
		return fmt.Errorf("begin control transaction: %w", err)
	}
	records := make([]*kgo.Record, len(messages))
	for i, m := range messages {
		records[i] = &kgo.Record{Topic: r.Names.Control(), Key: []byte(m.Key)}
		if m.Value != nil {
			records[i].Value = []byte(*m.Value)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.limit)
	defer cancel()
	// A record whose answer never comes isn't given up by any limit of the client, since nobody knows whether it is there;
	// only by the client's end. The next relay's producer decides the transaction, and what the topic has tells the rest.
	defer context.AfterFunc(ctx, cl.Close)()
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		_ = cl.EndTransaction(ctx, kgo.TryAbort) // the relay starts again with a new producer in any case
		return kafka.Explained("publish to "+r.Names.Control(), err)
	}
	if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("commit to %s: %w", r.Names.Control(), err)
	}
	return nil
}
