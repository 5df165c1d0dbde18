package positions

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// position is where a group stands on a partition.
type position struct {
	Next     int64
	Metadata string
}

// copied is what is kept of a group.
type copied struct {
	topic, topicID string
	life           int64
	at             map[int32]position
}

// asOf is how far the outcomes topic went at the last whole look.
type asOf struct {
	topicID string
	ends    map[int32]int64
}

// store has the copies in Postgres.
type store struct{ db *sqlx.DB }

// load reads all copies, by group.
func (s store) load(ctx context.Context) (map[string]*copied, error) {
	var rows []struct {
		Consumer, Topic string
		TopicID         string `db:"topic_id"`
		Partition       int32
		Life, Next      int64
		Metadata        string
	}
	if err := s.db.SelectContext(ctx, &rows, `SELECT consumer, partition, topic, topic_id, life, next, metadata FROM positions LIMIT 10000000`); err != nil {
		return nil, fmt.Errorf("read the kept positions: %w", err)
	}
	out := map[string]*copied{}
	for _, r := range rows {
		c := out[r.Consumer]
		if c == nil {
			c = &copied{topic: r.Topic, topicID: r.TopicID, life: r.Life, at: map[int32]position{}}
			out[r.Consumer] = c
		}
		c.at[r.Partition] = position{r.Next, r.Metadata}
	}
	return out, nil
}

func (s store) loadAsOf(ctx context.Context) (asOf, error) {
	var rows []struct {
		TopicID   string `db:"topic_id"`
		Partition int32
		Next      int64
	}
	if err := s.db.SelectContext(ctx, &rows, `SELECT partition, topic_id, next FROM positions_as_of LIMIT 10000`); err != nil {
		return asOf{}, fmt.Errorf("read up to where positions are kept: %w", err)
	}
	out := asOf{ends: map[int32]int64{}}
	for _, r := range rows {
		out.topicID, out.ends[r.Partition] = r.TopicID, r.Next
	}
	return out, nil
}

// errOvertaken says that somebody else has stored a look since.
var errOvertaken = errors.New("another registry has kept positions since: they are read anew")

// save stores what a look has changed, in one transaction: groups whole, those that are gone, and as of when. last is as of
// when the database was, as far as the caller knows: a registry that stood still, and doesn't know yet that another leads,
// must not put older positions in the place of later ones, which are what is put back.
func (s store) save(ctx context.Context, last asOf, changed map[string]*copied, gone []string, to *asOf) error {
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin to keep positions: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := notOvertaken(ctx, tx, last); err != nil {
		return err
	}
	for group := range changed {
		gone = append(gone, group)
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM positions WHERE consumer = ANY($1)`, pq.Array(gone)); err != nil {
		return fmt.Errorf("forget positions: %w", err)
	}
	var groups, topics, ids, metadata []string
	var partitions []int32
	var lives, nexts []int64
	for group, c := range changed {
		for p, at := range c.at {
			groups, topics, ids, metadata = append(groups, group), append(topics, c.topic), append(ids, c.topicID), append(metadata, at.Metadata)
			partitions, lives, nexts = append(partitions, p), append(lives, c.life), append(nexts, at.Next)
		}
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO positions (consumer, partition, topic, topic_id, life, next, metadata)
		SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[])`,
		pq.Array(groups), pq.Array(partitions), pq.Array(topics), pq.Array(ids), pq.Array(lives), pq.Array(nexts), pq.Array(metadata))
	if err != nil {
		return fmt.Errorf("keep positions: %w", err)
	}
	if err := saveAsOf(ctx, tx, to); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit kept positions: %w", err)
	}
	return nil
}

// notOvertaken is errOvertaken where the database is as of another time than the last.
func notOvertaken(ctx context.Context, tx *sqlx.Tx, last asOf) error {
	var partitions []int32
	var nexts []int64
	for p, next := range last.ends {
		partitions, nexts = append(partitions, p), append(nexts, next)
	}
	var overtaken bool
	err := tx.GetContext(ctx, &overtaken, `SELECT EXISTS (SELECT 1 FROM positions_as_of a JOIN unnest($1::int[], $2::bigint[]) AS l (partition, next) USING (partition)
		WHERE a.topic_id <> $3 OR a.next <> l.next)`, pq.Array(partitions), pq.Array(nexts), last.topicID)
	if err != nil {
		return fmt.Errorf("see whether positions were kept since: %w", err)
	}
	if overtaken {
		return errOvertaken
	}
	return nil
}

func saveAsOf(ctx context.Context, tx *sqlx.Tx, to *asOf) error {
	if to == nil {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM positions_as_of WHERE topic_id <> $1`, to.topicID); err != nil {
		return fmt.Errorf("forget an earlier topic of outcomes: %w", err)
	}
	for p, next := range to.ends {
		_, err := tx.ExecContext(ctx, `INSERT INTO positions_as_of AS a (partition, topic_id, next) VALUES ($1, $2, $3)
			ON CONFLICT (partition) DO UPDATE SET topic_id = excluded.topic_id, next = excluded.next WHERE a.next <> excluded.next OR a.topic_id <> excluded.topic_id`,
			p, to.topicID, next)
		if err != nil {
			return fmt.Errorf("note up to where positions are kept: %w", err)
		}
	}
	return nil
}

// Needed gives the offsets of the outcomes topic from which on it may be needed to bring positions up to date.
func Needed(ctx context.Context, db *sqlx.DB) (map[int32]int64, error) {
	as, err := store{db}.loadAsOf(ctx)
	return as.ends, err
}
