package kafka

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

func installation() Installation {
	return Installation{Names: topics.Names{Prefix: "acme"}, Tiers: []time.Duration{time.Second, time.Minute}, Agents: []*spec.Agent{
		{Topic: "orders", Name: "a_1", Partitions: 8, Config: spec.Config{DLQEnabled: true}},
		{Topic: "orders", Name: "b", Partitions: 8, Runtime: "sdk", Config: spec.Config{DLQEnabled: true}},
	}}
}

// covers reports whether one of the rights lets a service do something with a topic.
func covers(rights []Right, service, topic, operation string) bool {
	return slices.ContainsFunc(rights, func(r Right) bool {
		named := r.Name == topic || r.Prefixed && strings.HasPrefix(topic, r.Name)
		return r.Service == service && r.Resource == OnTopic && named && slices.Contains(r.Operations, operation)
	})
}

func TestWhoWritesAndReadsATopicHasTheRightTo(t *testing.T) {
	i := installation()
	least, all := i.Rights(Grant{}), i.Rights(Grant{Create: true})
	for _, p := range i.Topics() {
		for _, s := range p.WrittenBy {
			if !covers(least, s, p.Name, Write) {
				t.Errorf("%s may not write %s", s, p.Name)
			}
		}
		for _, s := range p.ReadBy {
			if !covers(least, s, p.Name, Read) {
				t.Errorf("%s may not read %s", s, p.Name)
			}
		}
		for _, s := range p.CreatedBy {
			if covers(least, s, p.Name, Create) || !covers(all, s, p.Name, Create) {
				t.Errorf("%s: the right of the %s to create it is asked for where it isn't wanted, or the other way round", p.Name, s)
			}
		}
	}
	if !covers(least, "dispatcher", "orders", Read) || covers(least, "supervisor", "orders", Read) {
		t.Error("the user's topic is the dispatcher's to read, and not the supervisor's")
	}
}

// Whoever settles a task writes its reply: a worker, or a dispatcher where it never ran.
func TestRepliesMayBeWrittenByAllWhoSettle(t *testing.T) {
	rights := installation().Rights(Grant{ReplyTopics: []string{"answers"}})
	for service, writes := range map[string]bool{"dispatcher": true, "supervisor": true, Worker: true, "registry": false} {
		if covers(rights, service, "answers", Write) != writes || covers(rights, service, "answers", DescribeConfigs) != writes {
			t.Errorf("the %s writes replies: %v, want %v", service, !writes, writes)
		}
	}
}

func TestAPatternOfTopicsIsAPrefixOrAll(t *testing.T) {
	rights := installation().Rights(Grant{Services: []string{"dispatcher"}, Topics: []string{"web.*", "*"}})
	for name, pattern := range map[string]string{"orders": "literal", "web.": "prefixed", "*": "literal"} {
		if !slices.ContainsFunc(rights, func(r Right) bool { return r.Name == name && r.Pattern() == pattern }) {
			t.Errorf("there is no %s right on %s: %+v", pattern, name, rights)
		}
	}
	for _, r := range rights {
		if r.Service != "dispatcher" || r.Why == "" {
			t.Errorf("%+v", r)
		}
	}
}
