// Package leader lets one registry of several do what only one may do: publish the outbox, project topics, prune history.
//
// The lease is a row in Postgres that its holder renews; a registry that dies loses it within Term. It spares work and
// keeps things orderly, but nothing rests on it: the relay is fenced by its transactional id on Kafka, and projections by
// the offset that they store with their rows.
package leader

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	// Term is how long a lease lasts without being renewed.
	Term   = 8 * time.Second
	renew  = 2 * time.Second
	waits  = time.Second
	leases = "registry"
)

// Lease is one registry's part in the election.
type Lease struct {
	DB     *sqlx.DB
	Holder string // the process's node: a successor of the same name takes over at once
	Logger *slog.Logger

	held atomic.Bool
}

// Held reports whether this registry leads.
func (l *Lease) Held() bool { return l.held.Load() }

// Run takes the lease whenever it is free and runs work while it is held; work's context ends when the lease is lost.
// It returns when ctx ends, after work has returned and the lease was given back.
func (l *Lease) Run(ctx context.Context, work func(ctx context.Context)) {
	tick := time.NewTicker(waits)
	defer tick.Stop()
	first := true
	for ctx.Err() == nil {
		epoch, err := l.take(ctx, first)
		first = first && err != nil
		if err == nil && epoch > 0 {
			l.Logger.Info("leading", slog.String("holder", l.Holder), slog.Int64("epoch", epoch))
			l.lead(ctx, epoch, work)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (l *Lease) lead(ctx context.Context, epoch int64, work func(ctx context.Context)) {
	l.held.Store(true)
	defer l.held.Store(false)
	leading, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); work(leading) }()
	l.keep(leading, epoch, done)
	stop()
	<-done
	l.giveBack(context.WithoutCancel(ctx), epoch)
}

// keep renews the lease until it is lost, the work ends or ctx does.
func (l *Lease) keep(ctx context.Context, epoch int64, done <-chan struct{}) {
	tick := time.NewTicker(renew)
	defer tick.Stop()
	until := time.Now().Add(Term)
	for {
		select {
		case <-ctx.Done():
			return
		case <-done:
			return
		case <-tick.C:
		}
		asked := time.Now()
		mine, err := l.renew(ctx, epoch)
		switch {
		case err == nil && mine:
			until = asked.Add(Term)
		case err == nil:
			l.Logger.Warn("another registry leads now", slog.String("holder", l.Holder))
			return
		case time.Now().After(until):
			l.Logger.Warn("the lease ran out while the database was away", slog.Any("error", err))
			return
		}
	}
}

// take gives the new epoch, or 0 where another holds the lease. A process that just began takes it from one of the same
// name, which is its own earlier life; only then, or two of one name would take it from each other for ever.
func (l *Lease) take(ctx context.Context, began bool) (int64, error) {
	var epoch int64
	err := l.DB.GetContext(ctx, &epoch, `INSERT INTO leases AS l (name, holder, epoch, expires_at) VALUES ($1, $2, 1, now() + $3 * interval '1 second')
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = l.epoch + 1, expires_at = excluded.expires_at
		WHERE l.expires_at < now() OR $4 AND l.holder = excluded.holder RETURNING epoch`, leases, l.Holder, Term.Seconds(), began)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("take the lease: %w", err)
	}
	return epoch, nil
}

func (l *Lease) renew(ctx context.Context, epoch int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, renew)
	defer cancel()
	res, err := l.DB.ExecContext(ctx, `UPDATE leases SET expires_at = now() + $3 * interval '1 second' WHERE name = $1 AND epoch = $2`, leases, epoch, Term.Seconds())
	if err != nil {
		return false, fmt.Errorf("renew the lease: %w", err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// giveBack lets the next registry lead at once. If it can't, the lease runs out by itself.
func (l *Lease) giveBack(ctx context.Context, epoch int64) {
	ctx, cancel := context.WithTimeout(ctx, renew)
	defer cancel()
	_, err := l.DB.ExecContext(ctx, `UPDATE leases SET expires_at = now() - interval '1 second' WHERE name = $1 AND epoch = $2`, leases, epoch)
	if err != nil {
		l.Logger.Warn("the lease could not be given back and will run out", slog.Any("error", err))
	}
}
