package dispatch

import (
	"context"
	"time"
)

const (
	// After a transaction that failed there is a pause, which doubles from one to the other while they go on failing.
	shortPause = 50 * time.Millisecond
	longPause  = 2 * time.Second
	// complainInterval is how often lasting failures are logged.
	complainInterval = 30 * time.Second
)

// failures counts transactions that failed in a row.
type failures struct {
	pause      time.Duration
	complained time.Time
}

// next says how long to pause after a transaction and whether to log its error.
func (f *failures) next(err error, now time.Time) (pause time.Duration, complain bool) {
	if err == nil {
		f.pause = 0
		return 0, false
	}
	f.pause = min(max(2*f.pause, shortPause), longPause)
	if now.Sub(f.complained) < complainInterval {
		return f.pause, false
	}
	f.complained = now
	return f.pause, true
}

// await waits for a time, one of two signals or the end.
func await(ctx context.Context, d time.Duration, one, other <-chan struct{}) {
	t := time.NewTimer(max(d, time.Millisecond))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-one:
	case <-other:
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
