package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/security"
)

// rights names the rights that the services need and this client doesn't have.
func (e *Examination) rights(ctx context.Context, cl *kgo.Client) {
	ctx, cancel := context.WithTimeout(ctx, askLimit+coordinatorLimit)
	defer cancel()
	p := prober{ctx: ctx, cl: cl, adm: kadm.NewClient(cl), installation: e.Installation, node: e.Config.Node, patience: &patience{left: coordinatorLimit}}
	for _, service := range e.Services {
		needed := e.Installation.Rights(kafka.Grant{Services: []string{service}})
		lacking := 0
		for _, r := range needed {
			lacking += e.right(p, r)
		}
		if lacking == 0 {
			e.ok("rights of the "+service, "all that it needs, as far as there are topics to ask about (%d)%s", len(needed), unmended(p, service))
		}
	}
}

// unmended names the rights that a service does without for so long as no broker forgets to end a transaction.
func unmended(p prober, service string) string {
	var lacks []string
	for _, r := range p.installation.Mending(service) {
		for _, resource := range p.resources(r) {
			a := p.ask(r.Resource, resource)
			if a.err == nil && !a.unknown && !slices.ContainsFunc(r.Operations, func(op string) bool { return slices.Contains(a.may, op) }) {
				lacks = append(lacks, fmt.Sprintf("%s on %s %s", strings.Join(r.Operations, ", "), r.Resource, resource))
			}
		}
	}
	if len(lacks) == 0 {
		return ""
	}
	const most = 3
	text := strings.Join(lacks[:min(len(lacks), most)], "; ")
	if more := len(lacks) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return "; where a broker that died forgets to end a transaction a person has to: for that it lacks " + text + " (`reeve acls --mend`)"
}

// right reports what is missing of one right, and how much of it that is.
func (e *Examination) right(p prober, r kafka.Right) int {
	name := "rights of the " + r.Service
	n := 0
	for _, resource := range p.resources(r) {
		a := p.ask(r.Resource, resource)
		if a.err != nil {
			e.fail(name, remedy(r.Resource, a.err), "ask what it may do with %s %s: %v", r.Resource, resource, a.err)
			n++
			continue
		}
		var hard, soft []string
		for _, op := range r.Operations {
			switch {
			case a.unknown || slices.Contains(a.may, op):
			case dispensable(op):
				soft = append(soft, op)
			default:
				hard = append(hard, op)
			}
		}
		if len(hard) > 0 {
			n++
			e.fail(name, e.grant(r, hard), "it lacks %s on %s %s: it %s", strings.Join(hard, ", "), r.Resource, resource, r.Why)
		}
		if len(soft) > 0 {
			n++
			e.warn(name, e.grant(r, soft), "it lacks %s on %s %s, without which it goes on: %s", strings.Join(soft, ", "), r.Resource, resource, without(soft))
		}
	}
	return n
}

// dispensable reports whether a service goes on without an operation, with a warning.
func dispensable(op string) bool {
	return op == kafka.Delete || op == kafka.DescribeConfigs
}

func without(ops []string) string {
	var parts []string
	if slices.Contains(ops, kafka.Delete) {
		parts = append(parts, "what is settled isn't trimmed or deleted")
	}
	if slices.Contains(ops, kafka.DescribeConfigs) {
		parts = append(parts, "records larger than 1 MB aren't carried")
	}
	return strings.Join(parts, ", ")
}

// grant is the line that grants operations.
func (e *Examination) grant(r kafka.Right, ops []string) string {
	who := "User:" + e.Config.Kafka.Security.Username
	if e.Config.Kafka.Security.Username == "" {
		who = "User:…"
	}
	return fmt.Sprintf("kafka-acls.sh --add --allow-principal %s --operation %s --%s %s --resource-pattern-type %s", who, strings.Join(ops, " --operation "), r.Resource, r.Name, r.Pattern())
}

// answer is what a client may do with a resource.
type answer struct {
	may     []string
	unknown bool // nothing can be said of a resource that isn't there
	err     error
}

// prober asks what this client may do.
type prober struct {
	ctx          context.Context
	cl           *kgo.Client
	adm          *kadm.Client
	installation kafka.Installation
	node         string
	patience     *patience // shared by all questions
}

// resources are the ones by which a right is tried: those that there are or will be, of its pattern.
func (p prober) resources(r kafka.Right) []string {
	if r.Resource == kafka.OnTxnID {
		if r.Prefixed {
			return []string{r.Name + p.node + "-0"}
		}
		return []string{r.Name}
	}
	if !r.Prefixed {
		return []string{r.Name}
	}
	var all []string
	if r.Resource == kafka.OnTopic {
		for _, planned := range p.installation.Topics() {
			all = append(all, planned.Name)
		}
	} else {
		all = p.groupNames(r.Service)
	}
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, r.Name) })
}

// groupNames are the groups that a service has to do with.
func (p prober) groupNames(service string) []string {
	names := p.installation.Names
	var all []string
	for _, a := range p.installation.Agents {
		all = append(all, names.WorkGroup(a.Topic, a.Name))
		if service != "supervisor" && service != kafka.Worker {
			all = append(all, names.Group(a.Topic, a.Name))
		}
	}
	if service == "dispatcher" {
		for _, tier := range p.installation.Tiers {
			all = append(all, names.RetryGroup(tier))
		}
	}
	if len(all) == 0 { // without agents a name stands for those to come
		all = append(all, names.WorkGroup("doctor", "probe"))
	}
	return all
}

func (p prober) ask(resource kafka.Resource, name string) answer {
	switch resource {
	case kafka.OnTopic:
		return p.askTopic(name)
	case kafka.OnGroup:
		return p.askGroup(name)
	case kafka.OnCluster:
		return p.askCluster()
	}
	return p.askTransactionalID(name)
}

func (p prober) askTopic(name string) answer {
	found, err := kafka.ListTopics(p.ctx, p.cl, name)
	if err != nil {
		return answer{err: err}
	}
	t := found[name]
	switch {
	case security.Denied(t.Err):
		return answer{}
	case t.Err != nil || len(t.Partitions) == 0:
		return answer{unknown: true} // that it is missing is a check of its own
	}
	return answer{may: operations(t.AuthorizedOperations)}
}

func (p prober) askGroup(name string) answer {
	var described kadm.DescribedGroups
	err := p.patience.ask(p.ctx, func(ctx context.Context) (err error) {
		if described, err = p.adm.DescribeGroups(ctx, name); err != nil {
			return err
		}
		return described[name].Err
	})
	switch {
	case security.Denied(err):
		return answer{}
	case errors.Is(err, kerr.GroupIDNotFound):
		return answer{unknown: true}
	case err != nil:
		return answer{err: err}
	}
	return answer{may: operations(described[name].AuthorizedOperations)}
}

func (p prober) askCluster() answer {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeClusterAuthorizedOperations = true
	resp, err := req.RequestWith(p.ctx, p.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	switch {
	case security.Denied(err):
		return answer{}
	case err != nil:
		return answer{err: err}
	case resp.ClusterAuthorizedOperations < 0: // it has none of authorization
		return answer{unknown: true}
	}
	return answer{may: operations(kadm.DecodeACLOperations(resp.ClusterAuthorizedOperations))}
}

// askTransactionalID ends a transaction that nobody has: the right to write is looked at first, and then the producer
// isn't the one that the id belongs to, if it belongs to any.
func (p prober) askTransactionalID(id string) answer {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = id, -1, -1
	err := p.patience.ask(p.ctx, func(ctx context.Context) error {
		resp, err := req.RequestWith(ctx, p.cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	switch {
	case security.Denied(err):
		return answer{}
	case err == nil, errors.Is(err, kerr.InvalidProducerIDMapping), errors.Is(err, kerr.InvalidTxnState), errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.ProducerFenced):
		return answer{may: []string{kafka.Write}}
	}
	return answer{err: err}
}

// operations are the names that Kafka's tools have for them.
func operations(ops []kadm.ACLOperation) []string {
	names := map[kadm.ACLOperation]string{kadm.OpRead: kafka.Read, kadm.OpWrite: kafka.Write, kadm.OpCreate: kafka.Create, kadm.OpDelete: kafka.Delete,
		kadm.OpDescribe: kafka.Describe, kadm.OpDescribeConfigs: kafka.DescribeConfigs, kadm.OpAlterConfigs: kafka.AlterConfigs, kadm.OpAlter: kafka.Alter}
	var out []string
	for _, op := range ops {
		if name, ok := names[op]; ok {
			out = append(out, name)
		}
	}
	return out
}
