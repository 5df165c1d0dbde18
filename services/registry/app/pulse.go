package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/health"
	"github.com/reeve-run/reeve/services/registry/internal/projection"
	"github.com/reeve-run/reeve/services/registry/internal/relay"
)

const (
	beat      = 2 * time.Second  // how often Kafka and Postgres are asked
	beatLimit = 2 * time.Second  // how long either may take
	stalled   = 15 * time.Second // a history counts as stalled when it has come no further for this long
)

// pulse asks Kafka and Postgres again and again, so that a health request answers at once from what is known.
type pulse struct {
	parts *parts

	mu              sync.Mutex
	kafka, postgres error
	agents          []*spec.Agent
	tasks, reports  progress
	outbox          relay.Backlog
}

// progress is how a projection comes along.
type progress struct {
	behind int64     // records that it has still to read
	at     int64     // how far it has come
	moved  time.Time // when that last changed, or there was nothing to read
}

func (p *progress) note(behind, at int64, now time.Time) {
	if behind == 0 || at != p.at || p.moved.IsZero() {
		p.moved = now
	}
	p.behind, p.at = behind, at
}

// stalled says that a projection has come no further for long; "" says that it goes on.
func (p *progress) stalled(what string, now time.Time) string {
	if p.behind == 0 || now.Sub(p.moved) <= stalled {
		return ""
	}
	return fmt.Sprintf("the history of %s is %d records behind and does not catch up: the log of the registry that leads says why", what, p.behind)
}

func newPulse(p *parts) *pulse {
	first := errors.New("not asked yet")
	return &pulse{parts: p, kafka: first, postgres: first}
}

func (p *pulse) run(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		p.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *pulse) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatLimit)
	defer cancel()
	var both sync.WaitGroup
	var kafkaErr, postgresErr error
	var registered []*spec.Agent
	both.Go(func() { kafkaErr = p.askKafka(ctx) })
	both.Go(func() { registered, postgresErr = p.askPostgres(ctx) })
	both.Wait()
	var asked [2]struct {
		behind, at int64
		err        error
	}
	var outbox relay.Backlog
	var outboxErr error
	if kafkaErr == nil && postgresErr == nil {
		for i, projected := range []*projection.Projection{p.parts.outcomes, p.parts.reports} {
			both.Go(func() { asked[i].behind, asked[i].at, asked[i].err = projected.Progress(ctx) })
		}
		both.Go(func() { outbox, outboxErr = p.parts.relay.Backlog(ctx) })
		both.Wait()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kafka, p.postgres = kafkaErr, postgresErr
	if postgresErr == nil {
		p.agents = registered
	}
	if kafkaErr != nil || postgresErr != nil { // nobody comes along, and all have their time once both are back
		p.tasks.moved, p.reports.moved = time.Now(), time.Now()
		return
	}
	if outboxErr == nil {
		p.outbox = outbox
	}
	for i, projected := range []*progress{&p.tasks, &p.reports} {
		if asked[i].err == nil {
			projected.note(asked[i].behind, asked[i].at, time.Now())
		}
	}
}

// askKafka asks any broker for its metadata: an answer costs it nothing and says that it takes requests.
func (p *pulse) askKafka(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	_, err := req.RequestWith(ctx, p.parts.client)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no broker answered within " + beatLimit.String())
	}
	return err
}

func (p *pulse) askPostgres(ctx context.Context) ([]*spec.Agent, error) {
	rows, err := p.parts.store.List(ctx, agents.Filter{Limit: 100_000})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, errors.New("no answer within " + beatLimit.String())
	}
	if err != nil {
		return nil, postgres.Plain(err)
	}
	out := make([]*spec.Agent, len(rows))
	for i, r := range rows {
		out[i] = r.Agent
	}
	return out, nil
}

// health is the answer of /health. The agents are read anew where the database answers, so that a registration shows at
// once.
func (p *pulse) health(ctx context.Context) (health.Inputs, health.Report) {
	p.mu.Lock()
	now := time.Now()
	in := health.Inputs{Now: now, Kafka: p.kafka, Postgres: p.postgres, Agents: p.agents, Behind: p.tasks.behind, Outbox: p.outbox,
		Stalled: cmp.Or(p.tasks.stalled("tasks", now), p.reports.stalled("reports (alerts, nodes, processes)", now))}
	p.mu.Unlock()
	in.Fleet = p.parts.fleet.View(in.Now)
	if in.Postgres == nil {
		short, cancel := context.WithTimeout(ctx, beatLimit)
		registered, err := p.askPostgres(short)
		cancel()
		if in.Postgres = err; err == nil {
			in.Agents = registered
			askReports(ctx, fleet.Store{DB: p.parts.db}, &in, beatLimit)
		}
	}
	return in, health.Compute(in)
}

// askReports adds what only the database knows: open alerts, nodes that died before this registry began, and processes. One
// that can't be read within the limit keeps none of the others from being read, and is named.
func askReports(ctx context.Context, reports fleet.Store, in *health.Inputs, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var missing []fleet.Node
	asked := []struct {
		what string
		err  error
		ask  func() error
	}{
		{what: "alerts", ask: func() (err error) { in.Alerts, err = reports.Alerts(ctx); return err }},
		{what: "nodes that have died", ask: func() (err error) { missing, err = reports.Missing(ctx, in.Fleet); return err }},
		{what: "the agents' processes", ask: func() (err error) {
			in.Instances, err = reports.Instances(ctx, "", "", in.Fleet, in.Now)
			return err
		}},
	}
	var all sync.WaitGroup
	for i := range asked {
		all.Go(func() { asked[i].err = asked[i].ask() })
	}
	all.Wait()
	in.Fleet.Nodes = append(in.Fleet.Nodes, missing...)
	for _, a := range asked {
		switch {
		case a.err == nil:
		case ctx.Err() != nil:
			in.Unread = append(in.Unread, a.what+": Postgres gave no answer within "+limit.String())
		default:
			in.Unread = append(in.Unread, a.what+": "+postgres.Plain(a.err).Error())
		}
	}
}

// ready is why requests can't be carried out, or nil.
func (p *pulse) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.kafka, p.postgres)
}
