package history

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/reeve-run/reeve/pkg/task"
)

// Store reads the history. Its methods are safe for concurrent use, and every query is bounded.
type Store struct{ DB *sqlx.DB }

// Attempt is a row of the history.
type Attempt struct {
	ID            int64
	SourceID      int32 `db:"source_id"`
	Topic, Name   string
	Partition     int32
	Offset        int64
	Attempt       int
	Redrives      int
	StatusNumber  int16 `db:"status"`
	OutcomeNumber int16 `db:"outcome"`
	AtPartition   int32 `db:"at_partition"`
	AtOffset      int64 `db:"at_offset"`
	PublishedMS   int64 `db:"published_ms"`
	DispatchedMS  int64 `db:"dispatched_ms"`
	StartedMS     int64 `db:"started_ms"`
	SettledMS     int64 `db:"settled_ms"`
	Version       string
	Runner        string
	EventID       string `db:"event_id"`
	CorrelationID string `db:"correlation_id"`
	ErrorClass    string `db:"error_class"`
	ErrorMessage  string `db:"error_message"`
	Fingerprint   string
}

// Status is the task's status after the attempt.
func (a *Attempt) Status() Status { return statusName(a.StatusNumber) }

// Outcome is how the attempt ended.
func (a *Attempt) Outcome() task.Outcome {
	if a.OutcomeNumber < 1 || int(a.OutcomeNumber) >= len(outcomes) {
		return ""
	}
	return outcomes[a.OutcomeNumber]
}

// Settled is what was done with it.
func (a *Attempt) Settled() task.Settled { return settledName(a.StatusNumber) }

// Node and Instance are where it ran.
func (a *Attempt) Node() string { node, _, _ := strings.Cut(a.Runner, " "); return node }

// Instance is the process that it ran in, or "".
func (a *Attempt) Instance() string { _, instance, _ := strings.Cut(a.Runner, " "); return instance }

const selected = `a.id, a.source_id, s.topic, s.name, a.partition, a."offset", a.attempt, a.redrives, a.status, a.outcome, a.at_partition, a.at_offset, a.published_ms,
	a.dispatched_ms, a.started_ms, a.settled_ms, a.version, a.runner, coalesce(a.event_id, '') AS event_id, coalesce(a.correlation_id, '') AS correlation_id,
	coalesce(a.error_class, '') AS error_class, coalesce(a.error_message, '') AS error_message, coalesce(a.fingerprint, '') AS fingerprint`

// latest keeps only each task's latest attempt. That a round is opened may be known before how the one before has ended.
const latest = `NOT EXISTS (SELECT 1 FROM attempts n WHERE n.source_id = a.source_id AND n.partition = a.partition AND n."offset" = a."offset"
	AND (n.redrives, n.id) > (a.redrives, a.id))`

// Filter selects tasks by their latest attempt. Empty fields select all.
type Filter struct {
	Topic, Name   string // both or none
	Status        Status
	ErrorClass    string
	CorrelationID string
	Origin        *task.Origin
	Since         time.Time
	Below         int64 // the number of the last attempt of the page before
	Limit         int
}

// Tasks lists tasks, the latest attempt first.
func (s *Store) Tasks(ctx context.Context, f Filter) ([]Attempt, error) {
	rows, err := s.rowTasks(ctx, f)
	if err != nil {
		return nil, err
	}
	packed, err := s.packedPart(ctx, f)
	if err != nil {
		return nil, err
	}
	all := slices.Concat(rows, packed)
	slices.SortFunc(all, func(a, b Attempt) int { return cmp.Compare(b.ID, a.ID) })
	return all[:min(len(all), f.Limit)], nil
}

// packedPart lists what a filter finds in packs: nothing that is rare.
func (s *Store) packedPart(ctx context.Context, f Filter) ([]Attempt, error) {
	if f.Origin == nil && !f.rare() {
		return s.packedTasks(ctx, f)
	}
	if f.Origin == nil || f.ErrorClass != "" || f.CorrelationID != "" || f.Status != "" && f.Status != Completed {
		return nil, nil
	}
	sources, err := s.sources(ctx, f.Origin.Topic, f.Name)
	if err != nil {
		return nil, err
	}
	found, err := packedTask(ctx, s.DB, sources, f.Origin.Partition, f.Origin.Offset)
	if err != nil {
		return nil, err
	}
	return s.unsuperseded(ctx, slices.DeleteFunc(found, func(a Attempt) bool { return f.Below > 0 && a.ID >= f.Below || a.SettledMS < sinceMillis(f) }))
}

// sources gives the numbers of a topic's sources, of one agent's or with "" of all.
func (s *Store) sources(ctx context.Context, topic, name string) ([]int32, error) {
	var out []int32
	err := s.DB.SelectContext(ctx, &out, `SELECT id FROM sources WHERE topic = $1 AND ($2 = '' OR name = $2) LIMIT 10000`, topic, name)
	if err != nil {
		return nil, fmt.Errorf("read sources of %s: %w", topic, err)
	}
	return out, nil
}

// rowTasks lists what a filter finds in attempts.
func (s *Store) rowTasks(ctx context.Context, f Filter) ([]Attempt, error) {
	q := query{}
	if f.Name != "" {
		q.and(`s.topic = ? AND s.name = ?`, f.Topic, f.Name)
	}
	if f.Origin != nil {
		q.and(`s.topic = ? AND a.partition = ? AND a."offset" = ?`, f.Origin.Topic, f.Origin.Partition, f.Origin.Offset)
	}
	if f.Status != "" {
		q.and(`a.status = ?`, statusNumber(f.Status))
		if f.Status != Completed {
			q.and(`a.status <> 1`) // names the index
		}
	}
	if f.ErrorClass != "" {
		q.and(`a.error_class = ?`, f.ErrorClass)
	}
	if f.CorrelationID != "" {
		q.and(`a.correlation_id = ?`, f.CorrelationID)
	}
	if !f.Since.IsZero() {
		q.and(`a.settled_ms >= ?`, f.Since.UnixMilli())
	}
	if f.Below > 0 {
		q.and(`a.id < ?`, f.Below)
	}
	if f.rare() {
		return s.rareRows(ctx, f, q)
	}
	return s.latestRows(ctx, f, q)
}

// rare reports whether a filter asks for what has an index of its own.
func (f Filter) rare() bool {
	return f.ErrorClass != "" || f.CorrelationID != "" || f.Origin != nil || f.Status != "" && f.Status != Completed
}

// latestRows lets each source give its latest, by its index; the sources are few.
func (s *Store) latestRows(ctx context.Context, f Filter, q query) ([]Attempt, error) {
	q.and(latest)
	var out []Attempt
	err := s.DB.SelectContext(ctx, &out, s.DB.Rebind(`SELECT a.* FROM sources s CROSS JOIN LATERAL
		(SELECT `+selected+` FROM attempts a WHERE a.source_id = s.id AND `+q.where()+` ORDER BY a.id DESC LIMIT ?) a ORDER BY a.id DESC LIMIT ?`),
		append(q.args, f.Limit, f.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	return out, nil
}

const (
	window  = 2_000 // rows that a search for something rare looks at at a time
	windows = 10    // and how many times at most
)

// rareRows finds what is rare by its own index, and then leaves out the tasks that have gone on since: of retries that is
// nearly all. It looks at the latest 20,000 rows at most, so that no question takes long; what is older and still
// the task's latest is found with another filter, or page by page.
func (s *Store) rareRows(ctx context.Context, f Filter, q query) ([]Attempt, error) {
	var out []Attempt
	below := int64(1 << 62)
	text := s.DB.Rebind(`SELECT ` + selected + ` FROM attempts a JOIN sources s ON s.id = a.source_id WHERE ` + q.where() + ` AND a.id < ? ORDER BY a.id DESC LIMIT ?`)
	for range windows {
		var rows []Attempt
		if err := s.DB.SelectContext(ctx, &rows, text, append(q.args[:len(q.args):len(q.args)], below, window)...); err != nil {
			return nil, fmt.Errorf("list tasks: %w", err)
		}
		more := len(rows) == window
		if more {
			below = rows[window-1].ID
		}
		rows, err := s.unsuperseded(ctx, rows)
		if err != nil {
			return nil, err
		}
		if out = append(out, rows...); !more || len(out) >= f.Limit {
			break
		}
	}
	return out[:min(len(out), f.Limit)], nil
}

// query collects conditions with their arguments.
type query struct {
	conditions []string
	args       []any
}

func (q *query) and(condition string, args ...any) {
	q.conditions, q.args = append(q.conditions, condition), append(q.args, args...)
}

func (q *query) where() string { return strings.Join(append(q.conditions, "true"), " AND ") }

// Task gives the attempts of an agent's task, the earliest first, at most 1000. A further round that has settled none yet is the
// last of them. Where the topic was made again, it is the task of the topic that the latest attempt belongs to.
func (s *Store) Task(ctx context.Context, topic, name string, partition int32, offset int64) ([]Attempt, error) {
	sources, err := s.sources(ctx, topic, name)
	if err != nil || len(sources) == 0 {
		return nil, err
	}
	all, err := packedTask(ctx, s.DB, sources, partition, offset)
	if err != nil {
		return nil, err
	}
	var rows []Attempt
	err = s.DB.SelectContext(ctx, &rows, `SELECT `+selected+` FROM attempts a JOIN sources s ON s.id = a.source_id
		WHERE a.source_id = ANY($1) AND a.partition = $2 AND a."offset" = $3 ORDER BY a.id DESC LIMIT 1000`, pq.Array(sources), partition, offset)
	if err != nil {
		return nil, fmt.Errorf("read task %s/%s %d/%d: %w", topic, name, partition, offset, err)
	}
	all = append(all, rows...)
	if len(all) == 0 {
		return nil, nil
	}
	newest := slices.MaxFunc(all, func(a, b Attempt) int { return cmp.Compare(a.ID, b.ID) }).SourceID
	all = slices.DeleteFunc(all, func(a Attempt) bool { return a.SourceID != newest })
	slices.SortFunc(all, inRounds)
	last := all[len(all)-1].ID
	return slices.DeleteFunc(all, func(a Attempt) bool { return a.Opened() && a.ID != last }), nil
}

// inRounds is the order of a task's attempts.
func inRounds(a, b Attempt) int {
	return cmp.Or(cmp.Compare(a.Redrives, b.Redrives), cmp.Compare(a.ID, b.ID))
}
