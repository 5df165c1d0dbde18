package dispatch

import (
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
)

// alertInterval is how often one alert is repeated at most.
const alertInterval = time.Minute

// Reporter is a status.Reporter for what is met again and again while it lasts.
type Reporter struct {
	*status.Reporter

	mu     sync.Mutex
	alerts map[string]time.Time // when each was last sent
}

// NewReporter writes with a client that somebody else closes.
func NewReporter(cl *kgo.Client, names topics.Names, service, node string, logger *slog.Logger) *Reporter {
	return &Reporter{Reporter: status.NewReporter(cl, names, service, node, logger), alerts: make(map[string]time.Time)}
}

// Meet asks for a person because of what the caller meets again and again while it lasts, and never takes back. The same is
// sent once a minute at most.
func (r *Reporter) Meet(topic, agent, kind, message string) {
	if r.recent(topic+"/"+agent+"\x00"+kind+"\x00"+message, time.Now()) {
		return
	}
	r.Notice(status.Alert{Topic: topic, AgentName: agent, Kind: kind, Severity: "critical", Message: message})
}

// recent reports whether an alert was sent a moment ago; else it counts as sent now.
func (r *Reporter) recent(id string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.alerts[id]) < alertInterval {
		return true
	}
	for other, at := range r.alerts {
		if now.Sub(at) >= alertInterval {
			delete(r.alerts, other)
		}
	}
	r.alerts[id] = now
	return false
}
