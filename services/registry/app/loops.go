package app

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	minPause = 200 * time.Millisecond
	maxPause = 5 * time.Second
)

// again runs work until ctx ends, with a growing pause after each failure. One line is logged when it begins to fail,
// and one when the reason changes.
func again(ctx context.Context, log *slog.Logger, what string, work func(ctx context.Context) error) {
	pause, said := minPause, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := work(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause, said = minPause, ""
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			log.Warn(what+" stopped and is tried again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// follow keeps the live picture of the fleet.
func (p *parts) follow(ctx context.Context, caughtUp chan struct{}) {
	var once sync.Once
	topic := p.cfg.Kafka.Names().Status()
	again(ctx, p.cfg.Logger, "the reader of "+topic, func(ctx context.Context) error {
		return p.fleet.Follow(ctx, p.opts, topic, func() { once.Do(func() { close(caughtUp) }) }, func() {})
	})
}

// lead does what only one registry does, while it holds the lease.
func (p *parts) lead(ctx context.Context) {
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { again(ctx, p.cfg.Logger, "the relay", p.relay.Run) })
}
