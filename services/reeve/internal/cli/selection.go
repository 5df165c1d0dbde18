package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/admission"
	"github.com/reeve-run/reeve/services/reeve/internal/agentsfile"
)

// Selection is a file's agents, parted by whether they are registered here and now.
type Selection struct {
	Agents  []*spec.Agent
	places  []string       // of Agents, file:line
	Skipped []Unregistered // their when doesn't hold
	Failed  []Unregistered // what they require doesn't answer
}

// Unregistered is an agent that a file lists and that isn't registered. What is registered under its name stays as it is.
type Unregistered struct {
	Action string `json:"action"` // skip or fail, beside the actions that the registry knows
	Topic  string `json:"topic"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Select decides which of a file's agents are registered: it looks at the environment and tries what they require.
func Select(ctx context.Context, listed []agentsfile.Listed, environ []string) Selection {
	terms := make([]admission.Terms, len(listed))
	for n, l := range listed {
		terms[n] = l.Terms
	}
	var s Selection
	for n, r := range admission.Judge(ctx, terms, environ) {
		a := listed[n].Agent
		out := Unregistered{"skip", a.Topic, a.Name, r.Reason}
		switch r.Verdict {
		case admission.Admitted:
			s.Agents, s.places = append(s.Agents, a), append(s.places, listed[n].Place)
		case admission.Skipped:
			s.Skipped = append(s.Skipped, out)
		case admission.Failed:
			out.Action = "fail"
			s.Failed = append(s.Failed, out)
		}
	}
	return s
}

// Say tells which agents aren't registered, and why.
func (s Selection) Say(say func(format string, args ...any)) {
	for _, u := range s.Skipped {
		say("· %s/%s skipped: %s", u.Topic, u.Name, u.Reason)
	}
	for _, u := range s.Failed {
		say("! %s/%s not registered, its requirement failed: %s", u.Topic, u.Name, u.Reason)
	}
}

// among are the registry's changes with what isn't registered behind them, as one list for programs.
func (s Selection) among(changes []client.AgentChange) ([]any, error) {
	list := make([]any, 0, len(changes)+len(s.Skipped)+len(s.Failed))
	for _, ch := range changes {
		if ch.Agent == nil || !ch.DryRun || ch.Action != client.AgentChangeActionCreate {
			list = append(list, ch)
			continue
		}
		without, err := s.withoutMade(ch)
		if err != nil {
			return nil, err
		}
		list = append(list, without)
	}
	for _, u := range slices.Concat(s.Skipped, s.Failed) {
		list = append(list, u)
	}
	return list, nil
}

// withoutMade is a change that would make an agent, without what is made only then: another one each time it is asked.
func (s Selection) withoutMade(ch client.AgentChange) (map[string]any, error) {
	b, err := json.Marshal(ch)
	if err != nil {
		return nil, fmt.Errorf("write the change of %s/%s: %w", ch.Topic, ch.Name, err)
	}
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("read the change of %s/%s: %w", ch.Topic, ch.Name, err)
	}
	agent, _ := all["agent"].(map[string]any)
	for _, key := range []string{"created_at", "registered_at", "updated_at"} {
		delete(agent, key)
	}
	if !slices.ContainsFunc(s.Agents, func(a *spec.Agent) bool { return a.Topic == ch.Topic && a.Name == ch.Name && a.ID != "" }) {
		delete(agent, "id")
	}
	return all, nil
}

// keep are the agents that prune must leave alone.
func (s Selection) keep() []string {
	var refs []string
	for _, u := range slices.Concat(s.Skipped, s.Failed) {
		refs = append(refs, u.Topic+"/"+u.Name)
	}
	return refs
}

// err is the failure that failed requirements are.
func (s Selection) err() error {
	if len(s.Failed) == 0 {
		return nil
	}
	what := "1 agent isn't registered, because a requirement failed"
	if n := len(s.Failed); n > 1 {
		what = fmt.Sprintf("%d agents aren't registered, because requirements failed", n)
	}
	return failure(Failed, "%s: provide what is missing, or mend requires in the file, and apply again", what)
}
