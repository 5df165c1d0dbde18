package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/services/registry/internal/history"
	"github.com/reeve-run/reeve/services/registry/internal/orders"
	"github.com/reeve-run/reeve/services/registry/internal/wishes"
)

// Store has what the fleet reported in Postgres: nodes, instances of agents, alerts that are open. It is the target of
// the status topic's projection.
type Store struct{ DB *sqlx.DB }

const (
	// keepReports is how long an instance or a node is kept after it was last heard of.
	keepReports = 24 * time.Hour
	// keepStopped is how long an instance that has ended is still listed.
	keepStopped = 10 * time.Minute
)

// Prepare has nothing to do.
func (Store) Prepare(context.Context, []*kgo.Record) error { return nil }

// Headers says that it looks at all of a record: a report is its value.
func (Store) Headers() []string { return nil }

// batch holds the latest report of each subject: of a batch of heartbeats only the last one matters.
type batch struct {
	nodes   map[string]status.Node
	changes map[string]status.StateChange
	checks  map[string]status.HealthCheck
	alerts  map[string]status.Alert
	counts  counts // of all heartbeats
	lines   []status.LogLine
	orders  map[string]status.DLQOrder // by id
	wishes  []status.CommandResult     // what became of them
	lost    []status.Lost
	hooks   webhooks
	moved   orders.Outcomes // of webhooks
	rounds  []status.Rounds
}

// Write stores the latest of what the records say. Records that don't parse were written by no service of Reeve and are
// left out, and so are those that Postgres has no place for: programs of others report too, and one bad record must not
// stop what all the others say.
func (s Store) Write(ctx context.Context, _ *sqlx.Conn, tx *sqlx.Tx, records []*kgo.Record) error {
	err := attempt(ctx, tx, records)
	if !unfit(err) {
		return err
	}
	for _, r := range records {
		if err := attempt(ctx, tx, []*kgo.Record{r}); err != nil && !unfit(err) {
			return err
		}
	}
	return nil
}

// unfit reports whether Postgres refused a value for what it is: out of range, too long for an index, or no text.
func unfit(err error) bool {
	var answer *pq.Error
	return errors.As(err, &answer) && (answer.Code.Class() == "22" || answer.Code.Class() == "54")
}

// attempt writes records so that the transaction lives on if it fails.
func attempt(ctx context.Context, tx *sqlx.Tx, records []*kgo.Record) error {
	if _, err := tx.ExecContext(ctx, `SAVEPOINT reports`); err != nil {
		return fmt.Errorf("begin to store reports: %w", err)
	}
	end := `RELEASE SAVEPOINT reports`
	err := write(ctx, tx, collect(records))
	if err != nil {
		end = `ROLLBACK TO SAVEPOINT reports`
	}
	if _, ended := tx.ExecContext(ctx, end); ended != nil {
		return errors.Join(err, fmt.Errorf("end storing reports: %w", ended))
	}
	return err
}

func write(ctx context.Context, tx *sqlx.Tx, b batch) error {
	for _, n := range b.nodes {
		if err := storeNode(ctx, tx, n); err != nil {
			return fmt.Errorf("store node %s: %w", n.Node, err)
		}
	}
	for _, c := range b.changes {
		if err := storeChange(ctx, tx, c); err != nil {
			return fmt.Errorf("store state of instance %s: %w", c.Instance, err)
		}
	}
	for _, c := range b.checks {
		if err := storeCheck(ctx, tx, c); err != nil {
			return fmt.Errorf("store health of instance %s: %w", c.Instance, err)
		}
	}
	for _, a := range b.alerts {
		if err := storeAlert(ctx, tx, a); err != nil {
			return fmt.Errorf("store alert %s: %w", a.Kind, err)
		}
	}
	if err := storeDispatched(ctx, tx, b.counts); err != nil {
		return fmt.Errorf("store counts of dispatched tasks: %w", err)
	}
	for _, l := range b.lost {
		if err := storeLost(ctx, tx, l); err != nil {
			return fmt.Errorf("store lost events of %s/%s: %w", l.Topic, l.AgentName, err)
		}
	}
	for _, o := range b.orders {
		if err := orders.Report(ctx, tx, o); err != nil {
			return fmt.Errorf("store how far the order %s has come: %w", o.ID, err)
		}
	}
	for _, r := range b.wishes {
		if err := wishes.Report(ctx, tx, r); err != nil {
			return fmt.Errorf("store what became of the command %s: %w", r.ID, err)
		}
	}
	if err := storeLines(ctx, tx, b.lines); err != nil {
		return fmt.Errorf("store lines of agents' logs: %w", err)
	}
	if err := storeWebhooks(ctx, tx, b.hooks); err != nil {
		return fmt.Errorf("store what became of webhooks: %w", err)
	}
	if err := b.moved.Store(ctx, tx); err != nil {
		return err
	}
	if err := history.OpenRounds(ctx, tx, b.rounds); err != nil { // last: it holds back the projection of outcomes
		return fmt.Errorf("store which rounds of tasks are opened: %w", err)
	}
	return nil
}

func collect(records []*kgo.Record) batch {
	b := batch{nodes: map[string]status.Node{}, changes: map[string]status.StateChange{}, checks: map[string]status.HealthCheck{}, alerts: map[string]status.Alert{}, counts: counts{},
		hooks: webhooks{}, moved: orders.Outcomes{}, orders: map[string]status.DLQOrder{}}
	for _, r := range records {
		var head struct{ Event string }
		value := storable(r.Value)
		if json.Unmarshal(value, &head) != nil {
			continue
		}
		switch head.Event {
		case status.EventNode:
			keep(value, b.nodes, func(n status.Node) string {
				b.counts.add(n.Agents)
				return n.Service + "/" + n.Node
			})
		case status.EventStateChange:
			keep(value, b.changes, func(c status.StateChange) string { return c.Topic + "/" + c.AgentName + "/" + c.Instance })
		case status.EventHealthCheck:
			keep(value, b.checks, func(c status.HealthCheck) string { return c.Topic + "/" + c.AgentName + "/" + c.Instance })
		case status.EventAlert:
			keep(value, b.alerts, func(a status.Alert) string {
				return strings.Join([]string{a.Topic, a.AgentName, a.Kind, a.Subject, a.Service, a.Node}, "\x00")
			})
		case status.EventLost:
			var l status.Lost
			if json.Unmarshal(value, &l) == nil && l.From < l.To {
				b.lost = append(b.lost, l)
			}
		case status.EventDLQOrder:
			keep(value, b.orders, func(o status.DLQOrder) string { return o.ID })
		case status.EventCommand:
			var c status.CommandResult
			if json.Unmarshal(value, &c) == nil {
				b.wishes = append(b.wishes, c)
			}
		case status.EventLog:
			var l status.LogLine
			if json.Unmarshal(value, &l) == nil {
				b.lines = append(b.lines, l)
			}
		case status.EventWebhook:
			var w status.Webhook
			if json.Unmarshal(value, &w) == nil {
				b.hooks.add(w)
				b.moved.Add(w.Order, w.State == status.WebhookDelivered)
			}
		case status.EventRounds:
			var rounds status.Rounds
			if json.Unmarshal(value, &rounds) == nil {
				b.rounds = append(b.rounds, rounds)
			}
		}
	}
	return b
}

// storable takes the character out of a record that Postgres has no place for in text: what an agent writes may hold it,
// and the record would be refused for ever.
func storable(value []byte) []byte {
	return bytes.ReplaceAll(value, []byte(`\u0000`), []byte(`\ufffd`))
}

func keep[T any](value []byte, in map[string]T, key func(T) string) {
	var v T
	if json.Unmarshal(value, &v) == nil {
		in[key(v)] = v
	}
}

func storeNode(ctx context.Context, tx *sqlx.Tx, n status.Node) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO nodes (service, node, host, pid, started_at, last_seen_at, leaving) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (service, node) DO UPDATE SET host = excluded.host, pid = excluded.pid, started_at = excluded.started_at,
			last_seen_at = excluded.last_seen_at, leaving = excluded.leaving`,
		n.Service, n.Node, n.Host, n.PID, floatTime(n.StartedAt), floatTime(n.Timestamp), n.Leaving)
	return err
}

func storeChange(ctx context.Context, tx *sqlx.Tx, c status.StateChange) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO instances AS i (topic, name, instance, node, state, reason, pid, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (topic, name, instance) DO UPDATE SET node = excluded.node, state = excluded.state, reason = excluded.reason,
			health = CASE WHEN excluded.state = 'RUNNING' THEN i.health WHEN excluded.state IN ('CRASHED', 'RESTARTING') THEN 'dead' ELSE 'not_running' END,
			pid = CASE WHEN excluded.pid > 0 THEN excluded.pid ELSE i.pid END, updated_at = excluded.updated_at`,
		c.Topic, c.AgentName, c.Instance, c.Node, c.NewState, c.Reason, c.PID, floatTime(c.Timestamp))
	return err
}

func storeCheck(ctx context.Context, tx *sqlx.Tx, c status.HealthCheck) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO instances (topic, name, instance, node, state, health, cpu_percent, memory_mb, latency_ms, restart_count, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (topic, name, instance) DO UPDATE SET node = excluded.node, state = excluded.state, health = excluded.health, cpu_percent = excluded.cpu_percent,
			memory_mb = excluded.memory_mb, latency_ms = excluded.latency_ms, restart_count = excluded.restart_count, updated_at = excluded.updated_at`,
		c.Topic, c.AgentName, c.Instance, c.Node, c.State, c.Health, c.CPUPercent, c.MemoryMB, c.LatencyMS, c.RestartCount, floatTime(c.Timestamp))
	return err
}

// Instance is an agent's process as last reported.
type Instance struct {
	Topic, Name, Instance, Node, State, Health, Reason string
	PID                                                int
	CPUPercent                                         float64   `db:"cpu_percent"`
	MemoryMB                                           float64   `db:"memory_mb"`
	LatencyMS                                          float64   `db:"latency_ms"`
	RestartCount                                       int       `db:"restart_count"`
	UpdatedAt                                          time.Time `db:"updated_at"`
}

// Instances lists instances as they are by what is known of their nodes now; an empty topic or name selects all.
func (s Store) Instances(ctx context.Context, topic, name string, live View, now time.Time) ([]Instance, error) {
	var out []Instance
	err := s.DB.SelectContext(ctx, &out, `SELECT topic, name, instance, node, state, health, reason, pid, cpu_percent, memory_mb, latency_ms, restart_count, updated_at
		FROM instances WHERE ($1 = '' OR topic = $1) AND ($2 = '' OR name = $2) ORDER BY topic, name, instance LIMIT 10000`, topic, name)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	for i := range out {
		out[i].judge(live)
	}
	return slices.DeleteFunc(out, func(i Instance) bool { return i.State == stopped && now.Sub(i.UpdatedAt) > keepStopped }), nil
}

const stopped = "STOPPED"

// judge corrects what an instance's node can't report any more: that the node is gone, and its instances with it.
func (i *Instance) judge(live View) {
	at := slices.IndexFunc(live.Nodes, func(n Node) bool { return n.Node == i.Node && n.Service != dispatcher && n.Alive })
	if i.State == stopped || at >= 0 && !i.UpdatedAt.Before(live.Nodes[at].StartedAt) {
		return
	}
	i.State, i.Health, i.Reason = stopped, "dead", "its node is gone"
	if at >= 0 {
		i.Reason = "its node was started again"
	}
}

// Missing lists the nodes that were heard of in the last day and aren't in a view: they died before this registry began.
func (s Store) Missing(ctx context.Context, live View) ([]Node, error) {
	var rows []struct {
		Service, Node, Host string
		PID                 int
		StartedAt           time.Time `db:"started_at"`
		LastSeenAt          time.Time `db:"last_seen_at"`
	}
	err := s.DB.SelectContext(ctx, &rows, `SELECT service, node, host, pid, started_at, last_seen_at FROM nodes WHERE NOT leaving ORDER BY service, node LIMIT 1000`)
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var out []Node
	for _, r := range rows {
		if !slices.ContainsFunc(live.Nodes, func(n Node) bool { return n.Service == r.Service && n.Node == r.Node }) {
			out = append(out, Node{Service: r.Service, Node: r.Node, Host: r.Host, PID: r.PID, StartedAt: r.StartedAt.UTC(), SeenAt: r.LastSeenAt.UTC()})
		}
	}
	return out, nil
}

// Prune forgets instances and nodes that weren't heard of for a day, alerts that have lapsed, what became of old webhooks, and
// ranges of lost events and lines of logs that there is no room for.
func (s Store) Prune(ctx context.Context, now time.Time) error {
	for _, statement := range []string{
		`DELETE FROM instances WHERE updated_at < $1`,
		`DELETE FROM nodes WHERE last_seen_at < $1`,
	} {
		if _, err := s.DB.ExecContext(ctx, statement, now.Add(-keepReports)); err != nil {
			return fmt.Errorf("prune reports: %w", err)
		}
	}
	if err := pruneAlerts(ctx, s.DB); err != nil {
		return err
	}
	if err := pruneLost(ctx, s.DB); err != nil {
		return err
	}
	if err := pruneWebhooks(ctx, s.DB, now); err != nil {
		return err
	}
	return pruneLogs(ctx, s.DB, now)
}
