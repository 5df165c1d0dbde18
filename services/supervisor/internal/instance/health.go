package instance

import "time"

// Health is what pings say of an instance.
type Health string

// The healths.
const (
	Healthy      Health = "healthy"
	Unresponsive Health = "unresponsive" // idle, and it doesn't answer pings
	Stalled      Health = "stalled"      // busy, and neither a pong nor a result comes
	Dead         Health = "dead"
	NotRunning   Health = "not_running"
)

const (
	defaultPongTimeout = 5 * time.Second
	maxMisses          = 3
)

// heartbeat counts missed pongs. The zero value is right for a process that has just started.
type heartbeat struct {
	misses int
	id     uint64    // of the ping that waits for its pong, 0 for none
	sent   time.Time // when it was sent
}

// overdue judges a ping whose pong hasn't come in time. Any line of the agent since then counts as life: one that works
// through a queue answers the ping when its turn comes.
func (h *heartbeat) overdue(lastHeard time.Time) {
	h.id = 0
	if lastHeard.After(h.sent) {
		h.misses = 0
	} else {
		h.misses++
	}
}

// health says what the misses mean. A busy agent isn't deaf for certain: its attempts' timeouts decide.
func (h *heartbeat) health(inFlight int) Health {
	switch {
	case h.misses < maxMisses:
		return Healthy
	case inFlight > 0:
		return Stalled
	}
	return Unresponsive
}
