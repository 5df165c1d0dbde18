package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/reeve-run/reeve/pkg/status"
)

// Alert is an alert that is open, as one: of several processes that tell of the same it has the worst.
type Alert struct {
	Topic, Name, Kind, Subject, Severity, Message string
	Since                                         time.Time
	Nodes                                         pq.StringArray // who tells of it, as service/node
}

// mostAlerts is how many alerts a list has.
const mostAlerts = 100

// stands says of a row of alerts whether its kind lets it stand yet. When it was told last is known by the database's clock
// alone: those of the nodes may be off.
var stands = fmt.Sprintf(`(CASE a.kind WHEN '%s' THEN true WHEN '%s' THEN a.updated_at > now() - interval '%d seconds'
	ELSE a.updated_at > now() - interval '%d seconds' OR a.kind IN ('%s', '%s')
		AND EXISTS (SELECT 1 FROM agents g WHERE g.topic = a.topic AND g.name = a.name AND g.phase = 'error') END)`,
	status.KindRetentionNear, status.KindRecordsLost, status.EventLapse/time.Second, status.AlertLapse/time.Second, status.KindCircuitOpen, status.KindAgentError)

// storeAlert stores what one process tells. Since when it lasts is what it has said first.
func storeAlert(ctx context.Context, tx *sqlx.Tx, a status.Alert) error {
	if a.Resolved {
		_, err := tx.ExecContext(ctx, `DELETE FROM alerts WHERE topic = $1 AND name = $2 AND kind = $3 AND subject = $4 AND service = $5 AND node = $6`,
			a.Topic, a.AgentName, a.Kind, a.Subject, a.Service, a.Node)
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO alerts AS a (topic, name, kind, subject, service, node, severity, message, since, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now())
		ON CONFLICT (topic, name, kind, subject, service, node) DO UPDATE SET severity = excluded.severity, message = excluded.message, updated_at = excluded.updated_at,
			since = CASE WHEN `+stands+` THEN least(a.since, excluded.since) ELSE excluded.since END`,
		a.Topic, a.AgentName, a.Kind, a.Subject, a.Service, a.Node, a.Severity, a.Message, floatTime(a.Since))
	return err
}

// Alerts lists open alerts, the newest first, at most 100; those of deleted agents are nobody's business any more.
func (s Store) Alerts(ctx context.Context) ([]Alert, error) {
	var out []Alert
	err := s.DB.SelectContext(ctx, &out, `SELECT topic, name, kind, subject, min(since) AS since,
			(array_agg(severity ORDER BY severity, since))[1] AS severity, (array_agg(message ORDER BY severity, since))[1] AS message,
			coalesce(array_agg(service || '/' || node ORDER BY service, node) FILTER (WHERE node <> ''), '{}') AS nodes
		FROM alerts a WHERE NOT EXISTS (SELECT 1 FROM agents g WHERE g.topic = a.topic AND g.name = a.name AND g.phase = 'terminated') AND `+stands+`
		GROUP BY topic, name, kind, subject ORDER BY min(since) DESC LIMIT $1`, mostAlerts) // critical is before warning
	if err != nil {
		return nil, fmt.Errorf("list alerts: %w", err)
	}
	return out, nil
}

// pruneAlerts forgets those that stand no longer, and after a day those of deleted agents.
func pruneAlerts(ctx context.Context, db *sqlx.DB) error {
	_, err := db.ExecContext(ctx, `DELETE FROM alerts a WHERE NOT `+stands+` OR a.updated_at < now() - interval '1 day'
		AND EXISTS (SELECT 1 FROM agents g WHERE g.topic = a.topic AND g.name = a.name AND g.phase = 'terminated')`)
	if err != nil {
		return fmt.Errorf("prune alerts: %w", err)
	}
	return nil
}

// Raise opens an alert that the registry itself has to tell of, or with Resolved takes it back.
func (s Store) Raise(ctx context.Context, a status.Alert) error {
	tx, err := s.DB.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin to raise an alert: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := storeAlert(ctx, tx, a); err != nil {
		return fmt.Errorf("raise alert %s: %w", a.Kind, err)
	}
	return tx.Commit()
}
