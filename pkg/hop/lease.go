package hop

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// lease is the heartbeat gate: work may start only while the last answered heartbeat was sent less than 0.6 session
// timeouts ago. The monotonic clock runs on while a process is stopped, so a process that wakes up after its partitions
// went to another starts nothing before it has heard from the coordinator. The first answer after a gap may say
// UNKNOWN_MEMBER_ID, which a hook can't see; by the second one the client has told of the loss.
type lease struct {
	session time.Duration

	mu         sync.Mutex
	sent       time.Time // when the last answered heartbeat was sent
	sentBefore time.Time // and the one before it
	awaited    int       // answers still needed after a gap
}

var _ kgo.HookBrokerE2E = (*lease)(nil)

const heartbeatKey = 12 // the request that a classic group member proves itself with

// OnBrokerE2E learns of answered heartbeats.
func (l *lease) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key != heartbeatKey || e2e.Err() != nil {
		return
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.sent) >= l.limit() {
		l.awaited = 2
	}
	l.sentBefore, l.sent = l.sent, now.Add(-e2e.DurationE2E())
	if l.awaited > 0 {
		l.awaited--
	}
}

func (l *lease) limit() time.Duration { return l.session * 6 / 10 }

// joined starts the lease: the coordinator has just assigned partitions.
func (l *lease) joined() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent, l.awaited = time.Now(), 0
}

func (l *lease) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.awaited == 0 && time.Since(l.sent) < l.limit()
}

// confirmedSince reports whether two heartbeats that were sent after t have been answered.
func (l *lease) confirmedSince(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sentBefore.After(t)
}
