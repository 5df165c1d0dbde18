package agents

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/filter"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Rules are what an installation asks of every agent.
type Rules struct {
	Names topics.Names
	Tiers []time.Duration
	// Start finds out on Kafka what a start other than earliest means now. Without it every agent begins at its topic's
	// beginning.
	Start func(ctx context.Context, a *spec.Agent) (*spec.StartAt, error)
}

// Read parses and checks entries. The error is an *Invalid with every fault of all of them; list says that the faults'
// fields shall name the entry's place.
func (r Rules) Read(entries []json.RawMessage, list bool) ([]Wanted, error) {
	var faults []spec.Fault
	wanted := make([]Wanted, 0, len(entries))
	seen := map[string]int{}
	for i, raw := range entries {
		a, fs := spec.ParseEntry(raw)
		if len(fs) == 0 {
			fs = r.check(a)
		}
		if first, twice := seen[a.Ref()]; twice && len(fs) == 0 {
			fs = append(fs, spec.Fault{Field: "name", Message: fmt.Sprintf("%s is the same agent as entry %d: give one of them another name", a.Ref(), first)})
		}
		seen[a.Ref()] = i
		for _, f := range fs {
			if list {
				f.Field = strings.TrimSuffix(fmt.Sprintf("agents[%d].%s", i, f.Field), ".")
			}
			faults = append(faults, f)
		}
		wanted = append(wanted, Wanted{Spec: a, HasPartitions: gives(raw, "partitions")})
	}
	if len(faults) > 0 {
		return nil, &Invalid{faults}
	}
	return wanted, nil
}

func (r Rules) check(a *spec.Agent) []spec.Fault {
	fs := a.Check(r.Tiers)
	if r.Names.Reserved(a.Topic) {
		fs = append(fs, spec.Fault{Field: "topic", Message: fmt.Sprintf("%s is one of Reeve's own topics, which no agent may listen to: name a topic of yours", a.Topic)})
	}
	if len(fs) > 0 {
		return fs
	}
	if err := r.Names.Check(a.Topic, a.Name); err != nil {
		fs = append(fs, spec.Fault{Field: "name", Message: err.Error()})
	}
	if err := filter.Check(a.Filter); err != nil {
		fs = append(fs, spec.Fault{Field: "filter", Message: err.Error()})
	}
	return fs
}

func gives(raw json.RawMessage, key string) bool {
	var keys map[string]json.RawMessage
	if json.Unmarshal(raw, &keys) != nil {
		return false
	}
	v, ok := keys[key]
	return ok && string(v) != "null"
}

// collision finds another agent, or one of the installation's own groups, whose derived names are those of an agent.
func (r Rules) collision(topic, name string, others [][2]string) error {
	taken := map[string]string{}
	for _, tier := range r.Tiers {
		taken[r.Names.RetryGroup(tier)] = "the retry tier " + topics.Tier(tier)
	}
	for _, o := range others {
		for _, derived := range r.derived(o[0], o[1]) {
			taken[derived] = "the agent " + o[0] + "/" + o[1]
		}
	}
	for _, derived := range r.derived(topic, name) {
		if holder, ok := taken[derived]; ok {
			return &Conflict{Code: "name_collision", Message: fmt.Sprintf("%s/%s would use the name %s on Kafka, which %s uses", topic, name, derived, holder),
				Remedy: "give it another name"}
		}
	}
	return nil
}

func (r Rules) derived(topic, name string) []string {
	return []string{r.Names.Tasks(topic, name), r.Names.DLQ(topic, name), r.Names.Group(topic, name), r.Names.WorkGroup(topic, name)}
}
