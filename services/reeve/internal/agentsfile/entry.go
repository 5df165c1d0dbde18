package agentsfile

import (
	"encoding/json"
	"fmt"

	"github.com/reeve-run/reeve/pkg/spec"
)

// Entry is an agent as the registry takes it: what a person may say, without what the registry decides.
func Entry(a *spec.Agent) (json.RawMessage, error) {
	b, err := json.Marshal(struct {
		Topic       string            `json:"topic"`
		Name        string            `json:"name"`
		ID          string            `json:"id,omitempty"`
		Type        string            `json:"type,omitempty"`
		Description *string           `json:"description"`
		Version     string            `json:"version"`
		Tags        []string          `json:"tags"`
		Runtime     string            `json:"runtime"`
		Dir         string            `json:"dir,omitempty"`
		Callback    string            `json:"callback,omitempty"`
		Command     []string          `json:"command,omitempty"`
		Env         map[string]string `json:"env,omitempty"`
		Config      spec.Config       `json:"config"`
		Process     spec.Process      `json:"process"`
		Pool        spec.Pool         `json:"pool"`
		Partitions  int32             `json:"partitions"`
		Activate    *bool             `json:"activate,omitempty"`
		spec.Routing
	}{a.Topic, a.Name, a.ID, a.Type, a.Description, a.Version, a.Tags, a.Runtime, a.Dir, a.Callback, a.Command, a.Env, a.Config, a.Process, a.Pool, a.Partitions, activate(a), routing(a)})
	if err != nil {
		return nil, fmt.Errorf("write the agent %s: %w", a.Ref(), err)
	}
	return b, nil
}

// activate is given only where it isn't what the registry takes it for anyway.
func activate(a *spec.Agent) *bool {
	if !a.Inactive {
		return nil
	}
	return new(bool)
}

// routing is without what the registry sets.
func routing(a *spec.Agent) spec.Routing {
	r := a.Routing
	r.StartAt = nil
	return r
}
