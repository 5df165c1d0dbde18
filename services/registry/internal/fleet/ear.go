package fleet

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// fetchWait is how long Kafka keeps a fetch of the status topic that finds nothing.
	fetchWait = time.Second
	// deaf is how long no fetch is answered before the silence of nodes says nothing of them.
	deaf = 3 * time.Second
)

// Gap is a time in which nothing could be read. Until is zero while it lasts.
type Gap struct{ From, Until time.Time }

// ear knows when the status topic could be read. Kafka answers a fetch that finds nothing as well.
type ear struct {
	last time.Time // when a fetch was answered last; zero before the first
	was  Gap       // the latest
}

func (e *ear) answered(now time.Time) {
	if !e.last.IsZero() && now.Sub(e.last) > deaf {
		e.was = Gap{e.last, now}
	}
	e.last = now
}

// gap is the gap because of which a node that lives may count as dead at a time, or nil. After a gap nodes have as long to
// be heard of as they may be silent.
func (e *ear) gap(now time.Time) *Gap {
	switch {
	case e.last.IsZero():
		return nil
	case now.Sub(e.last) > deaf:
		return &Gap{From: e.last}
	case now.Sub(e.was.Until) < Dead:
		was := e.was
		return &was
	}
	return nil
}

// listener tells a fleet of fetches that were answered.
type listener struct{ fleet *Fleet }

var _ kgo.HookBrokerE2E = listener{}

// OnBrokerE2E is called by the client after every request.
func (l listener) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key != int16(kmsg.Fetch) || e2e.Err() != nil {
		return
	}
	l.fleet.mu.Lock()
	defer l.fleet.mu.Unlock()
	l.fleet.ear.answered(time.Now())
}
