package hop

import (
	"context"
	"time"
)

const (
	// gathering is how long records are gathered between two small transactions that follow one another.
	gathering = 2 * time.Millisecond
	// crowd is how many records make a transaction whose own cost doesn't count.
	crowd = 500
)

// pause is how long to gather records after a transaction of n. One of a single record shows that there is time: what
// comes next shouldn't wait. One of few records shows that they come faster than transactions end; without a pause
// transactions would follow one another back to back, each with the few records of the last one's milliseconds, and take
// the broker's time from each other.
func pause(n int) time.Duration {
	if n < 2 || n >= crowd {
		return 0
	}
	return gathering
}

// Gather waits as long as is good for the next transaction after one of n records, or until the context ends.
func Gather(ctx context.Context, n int) {
	d := pause(n)
	if d == 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
