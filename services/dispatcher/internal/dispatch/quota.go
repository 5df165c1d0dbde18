package dispatch

import "time"

// burstTime is how much of a rate may be saved up while nothing comes, or while Kafka is slow.
const burstTime = 250 * time.Millisecond

// quota lets events pass at a rate, in events a second; a rate of 0 is no limit. It begins with one event, so that a
// dispatcher that is started again and again doesn't add to the rate by more than that. It is for one goroutine.
type quota struct {
	left  float64
	at    time.Time // of the last refill
	taken float64   // by the transaction under way
}

// refill adds what the time since the last refill has brought.
func (q *quota) refill(rate float64, now time.Time) {
	if rate == 0 {
		q.at = time.Time{}
		return
	}
	if q.at.IsZero() {
		q.left = 1
	} else {
		q.left = min(q.left+rate*now.Sub(q.at).Seconds(), max(1, rate*burstTime.Seconds()))
	}
	q.at = now
}

// take takes an event's place. Where there is none, wait says when there will be.
func (q *quota) take(rate float64) (wait time.Duration) {
	if rate == 0 {
		return 0
	}
	if q.left < 1 {
		return max(time.Duration((1-q.left)/rate*float64(time.Second)), time.Microsecond)
	}
	q.left--
	q.taken++
	return 0
}

// giveBack undoes the last n takes.
func (q *quota) giveBack(n int) {
	q.left += float64(n)
	q.taken -= float64(n)
}

// ended says whether the events that took places were routed.
func (q *quota) ended(committed bool) {
	if !committed {
		q.left += q.taken
	}
	q.taken = 0
}
