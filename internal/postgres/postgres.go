// Package postgres opens the registry's database: with patience at start, and with errors that say where it looked and
// what to do, never with the password.
package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

const (
	patience   = 10 * time.Second // Open waits this long for a database that isn't up yet
	retryEvery = 250 * time.Millisecond
	dialLimit  = 3 * time.Second
)

// Options are the pool's limits, and how it is opened.
type Options struct {
	// MaxConns is how many connections may be open. Defaults to 16.
	MaxConns int
	// Patience is how long Open waits for a database that doesn't answer. Defaults to 10 s.
	Patience time.Duration
	// Logger hears, once, that Open waits. Nil for nobody.
	Logger *slog.Logger
}

// Unreachable says that the database doesn't answer; where is its address without user and password.
type Unreachable struct {
	Where string
	Err   error
}

func (e *Unreachable) Error() string {
	return fmt.Sprintf("reach Postgres at %s: %v: start it, or give its address in REEVE_DATABASE_URL (postgres://user:password@host:5432/database)", e.Where, e.Err)
}

// Refused says that the database answers, and doesn't let us in; Where is as in Unreachable.
type Refused struct {
	Where string
	Err   error
}

func (e *Refused) Error() string {
	return fmt.Sprintf("use Postgres at %s: %v: create the role or the database, or correct REEVE_DATABASE_URL (postgres://user:password@host:5432/database)", e.Where, e.Err)
}

// Unwrap gives the driver's error.
func (e *Refused) Unwrap() error { return e.Err }

// Unwrap gives the driver's error.
func (e *Unreachable) Unwrap() error { return e.Err }

// ExitCode is the exit code of a process that ends for it.
func (e *Unreachable) ExitCode() int { return 5 }

// Open connects and waits until the database answers. The error is an *Unreachable or a
// *Refused, or says what is wrong with the URL.
func Open(ctx context.Context, databaseURL string, o Options) (*sqlx.DB, error) {
	if o.MaxConns == 0 {
		o.MaxConns = 16
	}
	if o.Patience == 0 {
		o.Patience = patience
	}
	connector, where, err := connectorFor(databaseURL)
	if err != nil {
		return nil, err
	}
	db := sqlx.NewDb(sql.OpenDB(connector), "postgres")
	db.SetMaxOpenConns(o.MaxConns)
	db.SetMaxIdleConns(o.MaxConns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	if err := wait(ctx, db, o, where); err != nil {
		_ = db.Close() // nothing was sent
		if answer := (*pq.Error)(nil); errors.As(err, &answer) && !passing(err) {
			return nil, &Refused{Where: where, Err: Plain(err)}
		}
		return nil, &Unreachable{Where: where, Err: Plain(err)}
	}
	return db, nil
}

// wait pings until the database answers, or gives an answer that waiting won't change. That it waits it logs once.
func wait(ctx context.Context, db *sqlx.DB, o Options, where string) error {
	ctx, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for said := false; ; said = true {
		err := db.PingContext(ctx)
		if err == nil || !passing(err) {
			return err
		}
		if !said && o.Logger != nil {
			o.Logger.Warn("wait for Postgres, which doesn't answer", slog.String("at", where), slog.Duration("at_most", o.Patience), slog.Any("error", Plain(err)))
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// passing reports whether a database that gives this error may still come up.
func passing(err error) bool {
	var answer *pq.Error
	if errors.As(err, &answer) {
		return answer.Code == "57P03" || answer.Code.Class() == "53" // starting up, or out of connections
	}
	return true
}

// Down reports whether an error means that the database can't be reached, as opposed to an answer of it.
func Down(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var answer *pq.Error
	if errors.As(err, &answer) {
		return answer.Code == "57P03" || answer.Code.Class() == "57" && answer.Code != "57014" || answer.Code.Class() == "53" || answer.Code.Class() == "08"
	}
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, driver.ErrBadConn) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, sql.ErrConnDone)
}

// Plain makes a driver's error short: without the driver's prefix and without connection strings.
func Plain(err error) error {
	var answer *pq.Error
	if errors.As(err, &answer) {
		return errors.New(answer.Message)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}

var errURL = errors.New("read REEVE_DATABASE_URL: it is no Postgres URL: write postgres://user:password@host:5432/database")

// where is the part of the URL that may be shown.
func where(databaseURL string) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return "", errURL
	}
	host := u.Host
	if host == "" {
		host = u.Query().Get("host")
	}
	return host + u.Path, nil
}
