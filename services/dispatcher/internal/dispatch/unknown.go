package dispatch

import (
	"fmt"
	"time"

	"github.com/reeve-run/reeve/pkg/status"
)

const (
	// kindUnknownAgent is the alert that retries wait for an agent that the control topic doesn't know.
	kindUnknownAgent = "agent_unknown"
	// roundGrace is how much longer than its delay a round of a tier may take: what goes round is moved when its turn comes.
	roundGrace = time.Minute
)

// meet tells of an agent whose retries go round because nobody knows it. The alert stands until none was met for a round.
func (t *Tier) meet(ref string, now time.Time) {
	if t.unknown == nil {
		t.unknown = make(map[string]time.Time)
	}
	if _, told := t.unknown[ref]; !told {
		t.tellUnknown(ref, fmt.Sprintf("retries of %s wait in %s: the control topic doesn't know the agent. Register it again, and they go on; register and delete it, and they are discarded",
			ref, t.names.Retry(t.delay)), false)
	}
	t.unknown[ref] = now
}

// retract takes back what has been told of agents that are known by now, or of which no retry was met for a round.
func (t *Tier) retract() {
	for ref, met := range t.unknown {
		switch {
		case t.agents(ref) != nil:
			t.tellUnknown(ref, fmt.Sprintf("the agent %s is known again: its retries go on", ref), true)
		case t.now().Sub(met) > t.delay+roundGrace:
			t.tellUnknown(ref, fmt.Sprintf("no retry of %s waits in %s here any more", ref, t.names.Retry(t.delay)), true)
		default:
			continue
		}
		delete(t.unknown, ref)
	}
}

// tellUnknown tells it as a matter of this node's, since the registry knows no such agent, of this tier and this agent.
func (t *Tier) tellUnknown(ref, message string, resolved bool) {
	t.stands(status.Alert{Kind: kindUnknownAgent, Severity: "critical", Subject: t.names.Retry(t.delay) + "/" + ref, Message: message, Resolved: resolved})
}
