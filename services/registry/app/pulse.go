package app

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/health"
)

const (
	beat      = 2 * time.Second  // how often Kafka and Postgres are asked
	beatLimit = 2 * time.Second  // how long either may take
	stalled   = 15 * time.Second // the history counts as stalled when it falls behind for this long without a pause
)

// pulse asks Kafka and Postgres again and again, so that a health request answers at once from what is known.
type pulse struct {
	parts *parts

	mu              sync.Mutex
	kafka, postgres error
	agents          []*spec.Agent
	behind          int64     // records that the history has still to read
	progress        time.Time // when that was last 0, or less than before
}

func newPulse(p *parts) *pulse {
	first := errors.New("not asked yet")
	return &pulse{parts: p, kafka: first, postgres: first, progress: time.Now()}
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
	behind, behindErr := p.askBehind(ctx, errors.Join(kafkaErr, postgresErr))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kafka, p.postgres = kafkaErr, postgresErr
	if postgresErr == nil {
		p.agents = registered
	}
	if behindErr != nil {
		return
	}
	if behind == 0 || behind < p.behind {
		p.progress = time.Now()
	}
	p.behind = behind
}

// askBehind asks how far the history is behind, unless one of the two that it would ask doesn't answer.
func (p *pulse) askBehind(ctx context.Context, away error) (int64, error) {
	if away != nil {
		return 0, away
	}
	return p.parts.outcomes.Behind(ctx)
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
	in := health.Inputs{Now: time.Now(), Kafka: p.kafka, Postgres: p.postgres, Agents: p.agents, Behind: p.behind,
		Stalled: p.behind > 0 && time.Since(p.progress) > stalled}
	p.mu.Unlock()
	in.Fleet = p.parts.fleet.View(in.Now)
	if in.Postgres == nil {
		short, cancel := context.WithTimeout(ctx, beatLimit)
		defer cancel()
		registered, err := p.askPostgres(short)
		if in.Postgres = err; err == nil {
			in.Agents = registered
			p.askReports(short, &in)
		}
	}
	return in, health.Compute(in)
}

// askReports adds what only the database knows: open alerts, nodes that died before this registry began, and processes.
// Where the database went away this moment they are left out, and the next look shows that.
func (p *pulse) askReports(ctx context.Context, in *health.Inputs) {
	reports := fleet.Store{DB: p.parts.db}
	if alerts, err := reports.Alerts(ctx); err == nil {
		in.Alerts = alerts
	}
	if missing, err := reports.Missing(ctx, in.Fleet); err == nil {
		in.Fleet.Nodes = append(in.Fleet.Nodes, missing...)
	}
	if instances, err := reports.Instances(ctx, "", "", in.Fleet, in.Now); err == nil {
		in.Instances = instances
	}
}

// ready is why requests can't be carried out, or nil.
func (p *pulse) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.kafka, p.postgres)
}
