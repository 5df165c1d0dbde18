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
	"github.com/reeve-run/reeve/services/registry/internal/health"
)

const (
	beat      = 2 * time.Second // how often Kafka and Postgres are asked
	beatLimit = 2 * time.Second // how long either may take
)

// pulse asks Kafka and Postgres again and again, so that a health request answers at once from what is known.
type pulse struct {
	parts *parts

	mu              sync.Mutex
	kafka, postgres error
	agents          []*spec.Agent
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
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kafka, p.postgres = kafkaErr, postgresErr
	if postgresErr == nil {
		p.agents = registered
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
	in := health.Inputs{Now: time.Now(), Kafka: p.kafka, Postgres: p.postgres, Agents: p.agents}
	p.mu.Unlock()
	if in.Postgres == nil {
		short, cancel := context.WithTimeout(ctx, beatLimit)
		defer cancel()
		registered, err := p.askPostgres(short)
		if in.Postgres = err; err == nil {
			in.Agents = registered
		}
	}
	in.Fleet = p.parts.fleet.View(in.Now)
	return in, health.Compute(in)
}

// ready is why requests can't be carried out, or nil.
func (p *pulse) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.kafka, p.postgres)
}
