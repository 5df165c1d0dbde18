package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/history"
	"github.com/reeve-run/reeve/services/registry/internal/positions"
	"github.com/reeve-run/reeve/services/registry/internal/wishes"
)

const (
	minPause = 200 * time.Millisecond
	maxPause = 5 * time.Second
)

// again runs work until ctx ends, with a growing pause after each failure. One line is logged when it begins to fail,
// and one when the reason changes.
func again(ctx context.Context, log *slog.Logger, what string, work func(ctx context.Context) error) {
	pause, said := minPause, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := work(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause, said = minPause, ""
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			log.Warn(what+" stopped and is tried again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// follow keeps the live picture of the fleet.
func (p *parts) follow(ctx context.Context, caughtUp chan struct{}) {
	var once sync.Once
	topic := p.cfg.Kafka.Names().Status()
	again(ctx, p.cfg.Logger, "the reader of "+topic, func(ctx context.Context) error {
		return p.fleet.Follow(ctx, p.client, p.opts, topic, func() { once.Do(func() { close(caughtUp) }) })
	})
}

// lead does what only one registry does, while it holds the lease.
func (p *parts) lead(ctx context.Context) {
	log := p.cfg.Logger
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { again(ctx, log, "the relay", p.relay.Run) })
	loops.Go(func() { again(ctx, log, "the history of tasks", p.outcomes.Run) })
	loops.Go(func() { again(ctx, log, "the history of reports", p.reports.Run) })
	loops.Go(func() { again(ctx, log, "the keeping of positions", p.keeper().Run) })
	loops.Go(func() { every(ctx, judgeEvery, func() { p.judge(ctx) }) })
	loops.Go(func() { every(ctx, tidyEvery, func() { p.tidy(ctx) }) })
	loops.Go(func() {
		every(ctx, buryEvery, func() {
			if err := p.bury(ctx, time.Now()); err != nil && ctx.Err() == nil {
				log.Warn("agents that were deleted long ago stay on the control topic for now", slog.Any("error", err))
			}
		})
	})
}

const (
	judgeEvery = 500 * time.Millisecond
	tidyEvery  = time.Minute
)

// every calls work now and then again and again, until ctx ends.
func every(ctx context.Context, interval time.Duration, work func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		work()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// keeper keeps the positions of all groups beside Kafka.
func (p *parts) keeper() *positions.Keeper {
	return &positions.Keeper{DB: p.db, Client: p.client, Opts: p.opts, Names: p.cfg.Kafka.Names(), Tiers: p.cfg.Kafka.RetryTiers, Logger: p.cfg.Logger,
		Agents: func(ctx context.Context) ([]*spec.Agent, error) { return p.agents(ctx, agents.Filter{Deleted: true}) },
		Mark:   p.store.Kept}
}

// agents lists all agents that a filter selects.
func (p *parts) agents(ctx context.Context, f agents.Filter) ([]*spec.Agent, error) {
	f.Limit = 100_000
	rows, err := p.store.List(ctx, f)
	out := make([]*spec.Agent, len(rows))
	for i, r := range rows {
		out[i] = r.Agent
	}
	return out, err
}

// judge moves agents to error that no live worker can run, and notes what dispatchers have deleted.
func (p *parts) judge(ctx context.Context) {
	for ref, live := range p.fleet.View(time.Now()).Agents {
		topic, name, _ := strings.Cut(ref, "/")
		if c := live.Cleaned; c != nil {
			if err := p.store.Cleaned(ctx, topic, name, c.Since, c.RetryFloor); err != nil {
				p.cfg.Logger.Warn("that the remains of a deleted agent are gone could not be noted", slog.String("agent", ref), slog.Any("error", err))
			}
		}
		if !live.Failing() { // in an outage all have problems, and the database needn't be asked about each of them twice a second
			continue
		}
		row, err := p.store.Get(ctx, topic, name)
		if err != nil || row.Phase != spec.Active {
			continue // deleted meanwhile, or the database is away: the next look is soon
		}
		cause, failed := live.Failed(row.Generation)
		if !failed {
			continue
		}
		moved, err := p.store.Fail(ctx, topic, name, row.Generation, cause, agents.Actor{Name: "registry", Reason: cause.Message})
		if err != nil {
			p.cfg.Logger.Warn("an agent that can't be run could not be moved to error", slog.String("agent", ref), slog.Any("error", err))
		} else if moved {
			p.cfg.Logger.Warn("agent moved to error", slog.String("agent", ref), slog.String("error_type", cause.Type), slog.String("cause", cause.Message))
		}
	}
}

// tidy drops what is kept no longer.
func (p *parts) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tidyEvery)
	defer cancel()
	dropped, err := history.Prune(ctx, p.db, time.Now())
	if len(dropped) > 0 {
		p.cfg.Logger.Info("old attempts dropped", slog.Any("tables", dropped))
	}
	err = errors.Join(err, history.PruneResults(ctx, p.db, time.Now().Add(-p.cfg.OutcomesKeep)), fleet.Store{DB: p.db}.Prune(ctx, time.Now()), p.trimOutcomes(ctx),
		p.orders.Prune(ctx, time.Now()), p.issueAgain(ctx), p.renewWishes(ctx, time.Now()))
	if err != nil && ctx.Err() == nil {
		p.cfg.Logger.Warn("tidying up is tried again", slog.Any("error", err))
	}
}

// trimOutcomes deletes outcomes that are projected and older than the installation keeps them.
func (p *parts) trimOutcomes(ctx context.Context) error {
	topic := p.cfg.Kafka.Names().Outcomes()
	old, err := kadm.NewClient(p.client).ListOffsetsAfterMilli(ctx, time.Now().Add(-p.cfg.OutcomesKeep).UnixMilli(), topic)
	if err != nil {
		return fmt.Errorf("look for old outcomes: %w", err)
	}
	projected, err := p.outcomes.Durable(ctx)
	if err != nil {
		return err
	}
	needed, err := positions.Needed(ctx, p.db)
	if err != nil {
		return err
	}
	below := map[int32]int64{}
	for partition, o := range old[topic] {
		next, read := projected[partition]
		from, known := needed[partition]
		if read && known && o.Err == nil && o.Offset > 0 {
			below[partition] = min(o.Offset, next, from)
		}
	}
	err = kafka.Trim(ctx, p.client, map[string]map[int32]int64{topic: below})
	return p.rights.Accept("trim "+topic+" behind what is projected", "it grows until somebody grants Delete on it", err)
}

// issueAgain issues orders about dead letters that haven't ended by now: their commands expire, and reports may be lost. Who
// knows an order already doesn't mind.
func (p *parts) issueAgain(ctx context.Context) error {
	open, err := p.orders.Open(ctx, time.Now())
	if err != nil {
		return err
	}
	for _, o := range open {
		c := *o.Command
		if o.Cancel != nil { // whoever has never heard of the order hears of its end
			c = *o.Cancel
		}
		if _, _, err := p.desk.Issue(ctx, c, command.MaxLife, 0); err != nil {
			return err
		}
		if err := p.orders.Sent(ctx, o.ID, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// renewWishes issues wishes again that are about to expire, and forgets those that are over.
func (p *parts) renewWishes(ctx context.Context, now time.Time) error {
	due, err := p.wishes.Due(ctx, now)
	if err != nil {
		return err
	}
	for _, w := range due {
		c := w.Command
		over := true // what isn't about a task of its topic is about none
		if origin, err := task.ParseOrigin(c.Task); err == nil {
			attempts, err := p.tasks.Task(ctx, c.Topic, c.Agent, origin.Partition, origin.Offset)
			if err != nil {
				return err
			}
			over = wishes.Over(w, attempts, now)
		}
		if over {
			if err := p.wishes.Drop(ctx, c.ID); err != nil {
				return err
			}
			continue
		}
		c, _, err := p.desk.Issue(ctx, c, command.MaxLife, 0)
		if err != nil {
			return err
		}
		if err := p.wishes.Issued(ctx, c.ID, c.Expires); err != nil {
			return err
		}
	}
	return nil
}
