package sweep

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// wait looks every 10 ms until done says so.
func wait(ctx context.Context, limit time.Duration, done func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return fmt.Errorf("not in %s", limit)
		case <-tick.C:
		}
	}
	return nil
}

// pause lets time pass: a blow has its moment.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func await(ctx context.Context, c <-chan time.Time, limit time.Duration) (time.Time, error) {
	select {
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	case <-time.After(limit):
		return time.Time{}, fmt.Errorf("not in %s", limit)
	case at := <-c:
		return at, nil
	}
}

// A moment is a point in time that is set once and looked at from another goroutine. Until then nothing is after it.
type moment struct{ nanos atomic.Int64 }

func (m *moment) set(t time.Time) { m.nanos.Store(t.UnixNano()) }

func (m *moment) get() time.Time { return time.Unix(0, m.nanos.Load()) }

func (m *moment) before(t time.Time) bool {
	n := m.nanos.Load()
	return n != 0 && t.UnixNano() > n
}
