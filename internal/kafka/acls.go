package kafka

import (
	"slices"
	"strings"

	"github.com/reeve-run/reeve/internal/config"
)

// Resource is a kind of thing that Kafka's ACLs are about, as kafka-acls.sh calls it.
type Resource string

// The resources that Reeve needs rights on.
const (
	OnTopic Resource = "topic"
	OnGroup Resource = "group"
	OnTxnID Resource = "transactional-id"
	// OnCluster is needed for mending alone.
	OnCluster Resource = "cluster"
)

// Operations, as Kafka's tools call them.
const (
	Read            = "Read"
	Write           = "Write"
	Create          = "Create"
	Delete          = "Delete"
	Describe        = "Describe"
	Alter           = "Alter"
	AlterConfigs    = "AlterConfigs"
	DescribeConfigs = "DescribeConfigs"
)

// Right is what one service needs to be allowed.
type Right struct {
	Service  string
	Resource Resource
	Name     string
	// Prefixed says that Name is the beginning of the resources' names.
	Prefixed   bool
	Operations []string
	Why        string
}

// Pattern is the pattern type, as Kafka's tools call it.
func (r Right) Pattern() string {
	if r.Prefixed {
		return "prefixed"
	}
	return "literal"
}

// A Grant says which rights are wanted.
type Grant struct {
	// Services are whose. Defaults to all.
	Services []string
	// Topics are user topics beside those of the agents; one that ends in * stands for all that begin so.
	Topics []string
	// ReplyTopics are those that events name in reply_to, or that SDK agents publish to; written as Topics.
	ReplyTopics []string
	// Create adds the rights to make topics and raise their record limits, where that isn't left to somebody else.
	Create bool
	// Mend adds the rights to end a transaction that a broker which died forgot to end. Without them a person does that.
	Mend bool
}

// Rights are the least rights that suffice, in a fixed order.
func (i Installation) Rights(g Grant) []Right {
	users := append(i.UserTopics(), g.Topics...)
	slices.Sort(users)
	users = slices.Compact(users)
	all := slices.Concat(i.registry(users), i.dispatcher(users, g.ReplyTopics), i.worker(config.Supervisor, g.ReplyTopics), i.worker(Worker, g.ReplyTopics))
	if g.Mend {
		for _, s := range Services() {
			all = append(all, i.Mending(s)...)
		}
	}
	var out []Right
	for _, r := range all {
		if len(g.Services) > 0 && !slices.Contains(g.Services, r.Service) {
			continue
		}
		if !g.Create {
			r.Operations = slices.DeleteFunc(r.Operations, func(op string) bool { return op == Create || op == AlterConfigs })
		}
		if len(r.Operations) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// below is the beginning of the names of a kind of topics.
func (i Installation) below(kind string) string {
	return strings.TrimSuffix(i.Names.Control(), "control") + kind
}

func topic(service, name, why string, operations ...string) Right {
	return Right{Service: service, Resource: OnTopic, Name: name, Operations: operations, Why: why}
}

func prefixed(r Right) Right {
	r.Prefixed = true
	return r
}

// ofUser are the rights on user topics, of which some are patterns.
func ofUser(service string, names []string, why string, operations ...string) []Right {
	var out []Right
	for _, name := range names {
		start, pattern := strings.CutSuffix(name, "*")
		r := topic(service, start, why, slices.Clone(operations)...)
		if r.Prefixed = pattern; pattern && start == "" {
			r.Name, r.Prefixed = "*", false // Kafka's own way of writing all
		}
		out = append(out, r)
	}
	return out
}

func (i Installation) registry(users []string) []Right {
	const s = config.Registry
	return append([]Right{
		topic(s, i.Names.Control(), "publishes the agents' desired state and compares it", Read, Write, Create),
		topic(s, i.Names.Commands(), "asks the other services to cancel and retry tasks", Write, Create),
		topic(s, i.Names.Status(), "reads what the services report", Read, Create),
		topic(s, i.Names.Outcomes(), "reads outcomes, and trims them when they are kept no longer", Read, Delete, Create),
		prefixed(topic(s, i.below("tasks."), "shows where a task stands, and puts back positions that Kafka has forgotten", Read)),
		prefixed(topic(s, i.below("retry."), "puts back positions that Kafka has forgotten", Read)),
		prefixed(topic(s, i.below("webhooks"), "puts back positions that Kafka has forgotten", Read)),
		prefixed(topic(s, i.below("dlq."), "shows dead letters", Read)),
		{Service: s, Resource: OnGroup, Name: i.below(""), Prefixed: true, Operations: []string{Read}, Why: "shows the agents' groups and positions, and puts back those that Kafka has forgotten"},
		{Service: s, Resource: OnTxnID, Name: i.Names.TransactionalID(s, "relay", 0), Operations: []string{Write}, Why: "publishes in order, fenced"},
	}, ofUser(s, users, "publishes events, shows them, and says when they expire", Read, Write, DescribeConfigs)...)
}

func (i Installation) dispatcher(users, replies []string) []Right {
	const s = config.Dispatcher
	return slices.Concat([]Right{
		topic(s, i.Names.Control(), "follows the agents' desired state", Read),
		topic(s, i.Names.Commands(), "carries out what people ask, and notes that it is done", Read, Write),
		topic(s, i.Names.Status(), "reports, and finds who took over its name", Read, Write, Create),
		topic(s, i.Names.Outcomes(), "settles what never ran, and sees what becomes of redriven tasks", Read, Write, DescribeConfigs, Create),
		prefixed(topic(s, i.below("retry."), "moves due retries, and trims behind them", Read, Delete, DescribeConfigs, Create, AlterConfigs)),
		prefixed(topic(s, i.below("tasks."), "routes events, trims behind settled tasks, discards those of deleted agents", Read, Write, Delete, DescribeConfigs, Create, AlterConfigs)),
		prefixed(topic(s, i.below("dlq."), "redrives and purges dead letters, and deletes them with the agent where that is asked for", Read, Delete)),
		prefixed(topic(s, i.below("webhooks"), "sends webhooks, lets those wait that failed, and trims behind them", Read, Write, Delete, DescribeConfigs, Create, AlterConfigs)),
		topic(s, i.Names.WebhookDLQ(), "keeps webhooks that were given up", Write, DescribeConfigs, Create),
		{Service: s, Resource: OnGroup, Name: i.below(""), Prefixed: true, Operations: []string{Read, Delete}, Why: "consumes in the agents' groups, and deletes those of deleted agents"},
		{Service: s, Resource: OnTxnID, Name: i.transactional(s), Prefixed: true, Operations: []string{Write}, Why: "moves events in transactions"},
	}, ofUser(s, users, "consumes events", Read, DescribeConfigs),
		ofUser(s, replies, "writes the replies of tasks that end unrun", Write, DescribeConfigs))
}

// worker is what whoever runs agents needs: the supervisor, or a program with the SDK.
func (i Installation) worker(s string, replies []string) []Right {
	return append([]Right{
		topic(s, i.Names.Control(), "follows the agents' desired state", Read),
		topic(s, i.Names.Commands(), "carries out what people ask", Read),
		topic(s, i.Names.Status(), "reports, and finds who took over its name", Read, Write, Create),
		topic(s, i.Names.Outcomes(), "settles attempts", Write, DescribeConfigs, Create),
		prefixed(topic(s, i.below("retry."), "sends failed tasks there", Write, DescribeConfigs, Create)),
		prefixed(topic(s, i.below("tasks."), "consumes tasks", Read, DescribeConfigs)),
		topic(s, i.Names.Webhooks(), "hands over what is to be sent to URLs", Write, DescribeConfigs, Create),
		prefixed(topic(s, i.below("dlq."), "sends dead letters there", Write, DescribeConfigs, Create)),
		{Service: s, Resource: OnGroup, Name: i.below("work."), Prefixed: true, Operations: []string{Read}, Why: "consumes in the agents' work groups"},
		{Service: s, Resource: OnTxnID, Name: i.transactional(s), Prefixed: true, Operations: []string{Write}, Why: "settles attempts in transactions"},
	}, ofUser(s, replies, "writes replies and published events", Write, DescribeConfigs)...)
}

// Mending are the rights by which a service that moves events in transactions ends one that a broker forgot to end: to see
// what isn't ended on Reeve's topics, and to write the markers. It has none for other services.
func (i Installation) Mending(service string) []Right {
	const why = "sees whether a broker that died has forgotten to end a transaction"
	if service == config.Registry {
		return nil
	}
	return []Right{
		prefixed(topic(service, i.below(""), why, Read)),
		topic(service, "__consumer_offsets", why, Read),
		{Service: service, Resource: OnCluster, Name: "kafka-cluster", Operations: []string{Alter}, Why: "ends such a transaction"},
	}
}

// transactional is the beginning of a service's transactional ids, of all its nodes: a node ends what a dead one left open.
func (i Installation) transactional(service string) string {
	return strings.TrimSuffix(i.Names.TransactionalID(service, "", 0), "-0")
}
