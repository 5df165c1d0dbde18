package agents

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"github.com/reeve-run/reeve/pkg/spec"
)

// Store has the agents in Postgres. Its methods are safe for concurrent use.
type Store struct {
	db      *sqlx.DB
	rules   Rules
	changed func() // tells the relay that the outbox has grown
}

// NewStore makes a store; changed is called after every commit that published something.
func NewStore(db *sqlx.DB, rules Rules, changed func()) *Store {
	return &Store{db: db, rules: rules, changed: changed}
}

// Actor is who does something, and why.
type Actor struct{ Name, Reason string }

// DeleteOptions say what goes with an agent.
type DeleteOptions struct {
	Group bool // its group, its task topic, pending retries
	DLQ   bool
}

// Match is the generation that a change is meant for; 0 is any.
type Match int64

// ApplyOptions say how entries are applied.
type ApplyOptions struct {
	DryRun bool
	Prune  bool     // deletes the agents that aren't listed, but those that Go programs register themselves
	Keep   []string // topic/name of agents that Prune leaves alone all the same
	Match  Match
	List   bool // the entries are a list: faults name their places
	Actor  Actor
}

// Apply registers entries in one transaction: all or nothing.
func (s *Store) Apply(ctx context.Context, entries []json.RawMessage, o ApplyOptions) ([]Change, error) {
	wanted, err := s.rules.Read(entries, o.List)
	if err != nil {
		return nil, err
	}
	var changes []Change
	err = s.transact(ctx, o.DryRun, func(tx *tx) error {
		changes = changes[:0]
		for _, w := range wanted {
			c, err := tx.register(ctx, w, o)
			if err != nil {
				return err
			}
			changes = append(changes, c)
		}
		if !o.Prune {
			return nil
		}
		pruned, err := tx.prune(ctx, wanted, o)
		changes = append(changes, pruned...)
		return err
	})
	return changes, err
}

func (t *tx) register(ctx context.Context, w Wanted, o ApplyOptions) (Change, error) {
	before, err := t.lock(ctx, w.Spec.Topic, w.Spec.Name)
	if errors.Is(err, ErrNotFound) {
		before, err = t.lockNew(ctx, w.Spec)
	}
	if err != nil {
		return Change{}, err
	}
	if o.Match != 0 && (before == nil || before.Generation != int64(o.Match)) {
		return Change{}, ErrPrecondition
	}
	c, err := register(before, w, uuid.NewString, t.now)
	if err != nil || c.Action == Unchanged {
		return c, err
	}
	return c, t.put(ctx, before, c.After, string(c.Action), o.Actor)
}

func (t *tx) prune(ctx context.Context, wanted []Wanted, o ApplyOptions) ([]Change, error) {
	all, err := t.lockAll(ctx, "")
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, a := range all {
		listed := slices.ContainsFunc(wanted, func(w Wanted) bool { return w.Spec.Ref() == a.Ref() })
		if listed || slices.Contains(o.Keep, a.Ref()) || a.Runtime == spec.SDK {
			continue
		}
		after := terminate(a, DeleteOptions{}, t.now)
		if err := t.put(ctx, a, after, string(Deleted), o.Actor); err != nil {
			return nil, err
		}
		changes = append(changes, Change{Action: Deleted, Before: a, After: after})
	}
	return changes, nil
}

// Initialize makes an agent ready to be started.
func (s *Store) Initialize(ctx context.Context, topic, name string, m Match, by Actor) (*spec.Agent, bool, error) {
	return s.move(ctx, topic, name, Initialize, m, by, initialize)
}

// Start makes an initialized agent active. It reports whether that changed anything.
func (s *Store) Start(ctx context.Context, topic, name string, m Match, by Actor) (*spec.Agent, bool, error) {
	return s.move(ctx, topic, name, Start, m, by, start)
}

// Stop makes an active agent initialized: its processes end, and nothing of it is consumed. It reports whether that changed
// anything; an agent that doesn't run stays as it is.
func (s *Store) Stop(ctx context.Context, topic, name string, m Match, by Actor) (*spec.Agent, bool, error) {
	return s.move(ctx, topic, name, Stop, m, by, stop)
}

// Unsubscribe pauses an agent. It reports whether that changed anything.
func (s *Store) Unsubscribe(ctx context.Context, topic, name string, hold bool, m Match, by Actor) (*spec.Agent, bool, error) {
	return s.move(ctx, topic, name, Unsubscribe, m, by, func(a *spec.Agent, now time.Time) (*spec.Agent, bool, error) { return pause(a, hold, now) })
}

// Resume makes a paused agent active. It reports whether that changed anything.
func (s *Store) Resume(ctx context.Context, topic, name string, m Match, by Actor) (*spec.Agent, bool, error) {
	return s.move(ctx, topic, name, Resume, m, by, resume)
}

// Reset closes an agent's circuits and brings it back from error.
func (s *Store) Reset(ctx context.Context, topic, name string, m Match, by Actor) (*spec.Agent, bool, error) {
	return s.move(ctx, topic, name, Reset, m, by, reset)
}

// Restart replaces an agent's processes and brings it back from error.
func (s *Store) Restart(ctx context.Context, topic, name string, m Match, by Actor) (*spec.Agent, bool, error) {
	return s.move(ctx, topic, name, Restart, m, by, restart)
}

// Fail moves an agent to error if its generation is still the given one. It reports whether it did.
func (s *Store) Fail(ctx context.Context, topic, name string, generation int64, cause spec.Cause, by Actor) (bool, error) {
	_, changed, err := s.move(ctx, topic, name, Fail, 0, by, func(a *spec.Agent, now time.Time) (*spec.Agent, bool, error) {
		after, changed := fail(a, generation, cause, now)
		return after, changed, nil
	})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return changed, err
}

// Delete terminates an agent. One that is gone already is ErrNotFound.
func (s *Store) Delete(ctx context.Context, topic, name string, o DeleteOptions, m Match, by Actor) (*spec.Agent, error) {
	a, _, err := s.move(ctx, topic, name, Delete, m, by, func(a *spec.Agent, now time.Time) (*spec.Agent, bool, error) {
		return terminate(a, o, now), true, nil
	})
	return a, err
}

// DeleteTopic terminates all agents of a topic, or with "" of all topics.
func (s *Store) DeleteTopic(ctx context.Context, topic string, o DeleteOptions, by Actor) ([]*spec.Agent, error) {
	var gone []*spec.Agent
	err := s.transact(ctx, false, func(tx *tx) error {
		gone = gone[:0]
		all, err := tx.lockAll(ctx, topic)
		if err != nil {
			return err
		}
		for _, a := range all {
			after := terminate(a, o, tx.now)
			if err := tx.put(ctx, a, after, string(Delete), by); err != nil {
				return err
			}
			gone = append(gone, after)
		}
		return nil
	})
	return gone, err
}

// Kept notes of which topics an agent's positions are kept, if the agent is still the one that was looked at.
func (s *Store) Kept(ctx context.Context, seen *spec.Agent, kept spec.Kept) error {
	return s.revise(ctx, seen.Topic, seen.Name, func(a *spec.Agent) bool {
		if a.Life != seen.Life || a.Kept == kept {
			return false
		}
		a.Kept = kept
		return true
	})
}

// Cleaned notes that the remains are gone which the deletion of a generation asked for. floor is spec.Agent's RetryFloor.
func (s *Store) Cleaned(ctx context.Context, topic, name string, since int64, floor map[string][]int64) error {
	return s.revise(ctx, topic, name, func(a *spec.Agent) bool { return cleaned(a, since, floor) })
}

// revise changes what is the installation's in an agent's record: its generation and its history stay.
func (s *Store) revise(ctx context.Context, topic, name string, change func(a *spec.Agent) bool) error {
	return s.transact(ctx, false, func(tx *tx) error {
		a, err := tx.lock(ctx, topic, name)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil || !change(a) {
			return err
		}
		a.Revision++
		record, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("encode agent %s: %w", a.Ref(), err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE agents SET record = $3, buried = false WHERE topic = $1 AND name = $2`, topic, name, record); err != nil {
			return fmt.Errorf("store agent %s: %w", a.Ref(), err)
		}
		return tx.publish(ctx, a, record)
	})
}

func (s *Store) move(ctx context.Context, topic, name string, verb Verb, m Match, by Actor,
	decide func(a *spec.Agent, now time.Time) (*spec.Agent, bool, error),
) (after *spec.Agent, changed bool, err error) {
	err = s.transact(ctx, false, func(tx *tx) error {
		before, err := tx.lock(ctx, topic, name)
		if err == nil && before.Phase == spec.Terminated {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		if m != 0 && before.Generation != int64(m) {
			return ErrPrecondition
		}
		after, changed, err = decide(before, tx.now)
		if err != nil || !changed {
			return err
		}
		return tx.put(ctx, before, after, string(verb), by)
	})
	return after, changed, err
}

// tx is a database transaction on agents' rows.
type tx struct {
	*sqlx.Tx
	rules     Rules
	now       time.Time
	published bool
}

func (s *Store) transact(ctx context.Context, dryRun bool, work func(tx *tx) error) error {
	dbtx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer func() { _ = dbtx.Rollback() }() // after a commit it does nothing
	t := &tx{Tx: dbtx, rules: s.rules, now: time.Now().UTC().Truncate(time.Microsecond)}
	if err := work(t); err != nil || dryRun {
		return err
	}
	if err := dbtx.Commit(); err != nil {
		return fmt.Errorf("commit change of agents: %w", err)
	}
	if t.published {
		s.changed()
	}
	return nil
}

// lock reads an agent's record, deleted ones too, and holds its row.
func (t *tx) lock(ctx context.Context, topic, name string) (*spec.Agent, error) {
	var raw []byte
	err := t.GetContext(ctx, &raw, `SELECT record FROM agents WHERE topic = $1 AND name = $2 FOR UPDATE`, topic, name)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("lock agent %s/%s: %w", topic, name, err)
	}
	return decode(raw)
}

// lockAll reads and holds the agents that aren't deleted, of one topic or, with "", of all.
func (t *tx) lockAll(ctx context.Context, topic string) ([]*spec.Agent, error) {
	var raws [][]byte
	err := t.SelectContext(ctx, &raws, `SELECT record FROM agents WHERE phase <> 'terminated' AND ($1 = '' OR topic = $1)
		ORDER BY topic, name LIMIT 100000 FOR UPDATE`, topic)
	if err != nil {
		return nil, fmt.Errorf("lock agents: %w", err)
	}
	return decodeAll(raws)
}

// lockNew makes sure that an agent which wasn't there may be made. Another transaction may just have made it: then it is
// read after all.
func (t *tx) lockNew(ctx context.Context, a *spec.Agent) (*spec.Agent, error) {
	if err := t.unique(ctx, a); err != nil {
		return nil, err
	}
	made, err := t.lock(ctx, a.Topic, a.Name)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return made, err
}

// unique refuses an agent whose derived names, or whose id, belong to another. The lock makes two registrations that
// collide follow one another.
func (t *tx) unique(ctx context.Context, a *spec.Agent) error {
	if _, err := t.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtext(current_schema() || '.agents'))`); err != nil {
		return fmt.Errorf("lock the agents' names: %w", err)
	}
	var rows []struct{ Topic, Name, ID string }
	if err := t.SelectContext(ctx, &rows, `SELECT topic, name, id FROM agents LIMIT 100000`); err != nil {
		return fmt.Errorf("read the agents' names: %w", err)
	}
	others := make([][2]string, 0, len(rows))
	for _, r := range rows {
		if a.ID != "" && r.ID == a.ID {
			return &Conflict{Code: "id_taken", Message: fmt.Sprintf("the id %s belongs to %s/%s", a.ID, r.Topic, r.Name), Remedy: "leave id out, or give another"}
		}
		if r.Topic != a.Topic || r.Name != a.Name {
			others = append(others, [2]string{r.Topic, r.Name})
		}
	}
	return t.rules.collision(a.Topic, a.Name, others)
}

// put writes an agent's record with its history and its outbox row.
func (t *tx) put(ctx context.Context, before, a *spec.Agent, action string, by Actor) error {
	ready := a.Phase == spec.Active || a.Phase == spec.Initialized
	if ready {
		if err := t.begin(ctx, before, a); err != nil {
			return err
		}
	}
	record, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode agent %s: %w", a.Ref(), err)
	}
	initialized := ready && (before == nil || slices.Contains([]spec.Phase{spec.Created, spec.Terminated, spec.Error}, before.Phase))
	_, err = t.ExecContext(ctx, `INSERT INTO agents (topic, name, id, phase, generation, record, initialized_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $8 THEN $7::timestamptz END, $7)
		ON CONFLICT (topic, name) DO UPDATE SET id = excluded.id, phase = excluded.phase, generation = excluded.generation,
			record = excluded.record, initialized_at = coalesce(excluded.initialized_at, agents.initialized_at), updated_at = excluded.updated_at, buried = false`,
		a.Topic, a.Name, a.ID, a.Phase, a.Generation, record, t.now, initialized)
	if err != nil {
		return fmt.Errorf("store agent %s: %w", a.Ref(), err)
	}
	var old *spec.Phase
	if before != nil {
		old = &before.Phase
	}
	_, err = t.ExecContext(ctx, `INSERT INTO agent_history (topic, name, at, action, old_phase, phase, generation, actor, reason)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, a.Topic, a.Name, t.now, action, old, a.Phase, a.Generation, by.Name, by.Reason)
	if err != nil {
		return fmt.Errorf("store history of agent %s: %w", a.Ref(), err)
	}
	return t.publish(ctx, a, record)
}

// publish writes an agent's record to the outbox.
func (t *tx) publish(ctx context.Context, a *spec.Agent, record []byte) error {
	if _, err := t.ExecContext(ctx, `INSERT INTO outbox (key, value) VALUES ($1, $2)`, a.Key(), string(record)); err != nil {
		return fmt.Errorf("store outbox row of agent %s: %w", a.Ref(), err)
	}
	t.published = true
	return nil
}

func decode(raw []byte) (*spec.Agent, error) {
	var a spec.Agent
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("decode an agent's record: %w", err)
	}
	return &a, nil
}

func decodeAll(raws [][]byte) ([]*spec.Agent, error) {
	out := make([]*spec.Agent, 0, len(raws))
	for _, raw := range raws {
		a, err := decode(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}
