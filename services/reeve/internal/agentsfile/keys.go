package agentsfile

import (
	"slices"
	"strings"

	"github.com/reeve-run/reeve/pkg/spec"
)

// later are the keys that a coming version carries out. They are refused by name: what is accepted and ignored
// would be believed.
var later = map[string][]string{
	"":        {"resources", "coordination", "init_args", "labels", "state", "env_from", "profile", "canary", "history", "store_results"},
	"config":  {},
	"process": {},
	"pool":    {},
}

// unknown tells that a section has no such key.
func (d *decoder) unknown(section string, p pair, known []string) {
	full := p.key
	if section != "" {
		full = section + "." + p.key
	}
	if slices.Contains(later[section], p.key) {
		d.faults.at(p.token, "%s is not available in this version: leave it out", full)
		return
	}
	if m := meant(p.key, known); m != "" {
		d.faults.at(p.token, "%s is no key%s", full, m)
		return
	}
	if other := elsewhere(p.key, section); other != "" {
		d.faults.at(p.token, "%s is no key here: it belongs to %s", full, other)
		return
	}
	d.faults.at(p.token, "%s is no key: known are %s", full, strings.Join(known, ", "))
}

func meant(key string, known []string) string {
	if n := spec.Nearest(key, known); n != "" {
		return ", did you mean " + n + "?"
	}
	return ""
}

// elsewhere names the section that has the key, if another one has.
func elsewhere(key, section string) string {
	for _, other := range []struct {
		section, name string
		keys          map[string]setter
	}{{"config", "config", configKeys()}, {"process", "process", processKeys()}, {"", "the agent itself", agentKeys()}} {
		if _, has := other.keys[key]; has && other.section != section {
			return other.name
		}
	}
	return ""
}
