package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/reeve-run/reeve/internal/kafka"
)

const (
	dialLimit = 5 * time.Second  // of one broker
	askLimit  = 15 * time.Second // of one question to the cluster
)

// Kafka looks at everything that has to do with Kafka, as far as each step allows the next.
func (e *Examination) Kafka(ctx context.Context) {
	if e.seeds(ctx) == 0 {
		e.skip("kafka", "no broker can be reached, so nothing was asked of any")
		return
	}
	cl, err := kafka.Connect(ctx, e.Config.Kafka, quiet())
	how := e.Config.Kafka.Security
	if refused := (*kafka.Refused)(nil); errors.As(err, &refused) {
		e.fail("kafka", refused.Problem.Remedy, "%s (%s)", refused.Problem.What, how.Protocol())
		return
	}
	if err != nil {
		e.fail("kafka", "", "%v", err)
		return
	}
	cl.Close()
	who := "nobody in particular"
	if how.UsesSASL() {
		who = how.Mechanism
		if how.Username != "" {
			who = fmt.Sprintf("%q by %s", how.Username, how.Mechanism)
		}
	} else if how.TLSCert != "" {
		who = "the client certificate"
	}
	e.ok("kafka", "let in as %s, over %s; transaction.version is 2", who, how.Protocol())
	// A description of a group that doesn't exist says only up to this version what may be done with it.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.NewPtrDescribeGroupsRequest().Key(), 5)
	cl, err = kgo.NewClient(append(kafka.Options(e.Config.Kafka, quiet()), kgo.MaxVersions(versions), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		e.fail("kafka", "", "%v", err)
		return
	}
	defer cl.Close()
	e.advertised(ctx, cl)
	e.topics(ctx, cl)
	e.rights(ctx, cl)
}

// seeds dials the brokers that the configuration names, and counts those that answer.
func (e *Examination) seeds(ctx context.Context) int {
	n := 0
	for _, address := range e.Config.Kafka.Brokers {
		if e.dial(ctx, "broker "+address, address, "REEVE_KAFKA_BROKERS") {
			n++
		}
	}
	return n
}

// advertised dials the brokers that the cluster says it has: clients go to these, and they may be addresses that only the
// brokers can reach.
func (e *Examination) advertised(ctx context.Context, cl *kgo.Client) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	brokers, err := kadm.NewClient(cl).ListBrokers(ctx)
	if err != nil {
		e.fail("brokers", "", "list the brokers: %v", err)
		return
	}
	for _, b := range brokers {
		address := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
		if !slices.Contains(e.Config.Kafka.Brokers, address) {
			e.dial(ctx, fmt.Sprintf("broker %d, %s", b.NodeID, address), address, "the broker's advertised.listeners")
		}
	}
}

func (e *Examination) dial(ctx context.Context, name, address, where string) bool {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := e.Config.Kafka.Security.Dialer()(ctx, "tcp", address)
	if problem, ok := e.Config.Kafka.Security.Diagnose(err); ok {
		e.fail(name, problem.Remedy, "%s", problem.What)
		return false
	}
	if err != nil {
		e.fail(name, "start it, open the way to it, or correct "+where, "%v", err)
		return false
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	secure, ok := conn.(*tls.Conn)
	if !ok {
		e.ok(name, "reachable, without TLS")
		return true
	}
	state := secure.ConnectionState()
	leaf := state.PeerCertificates[0]
	detail := fmt.Sprintf("reachable, %s, certificate of %s until %s", tls.VersionName(state.Version), strings.TrimPrefix(leaf.Subject.String(), "CN="), leaf.NotAfter.UTC().Format(time.RFC3339))
	if left := time.Until(leaf.NotAfter); left < 7*24*time.Hour {
		e.warn(name, "renew the broker's certificate", "%s, which is in %s", detail, left.Round(time.Hour))
		return true
	}
	e.ok(name, "%s", detail)
	return true
}
