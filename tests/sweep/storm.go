package sweep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	reeve "github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/control"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

// StormConfig is a rebalance storm.
type StormConfig struct {
	Config
	Rounds int
	Lasts  time.Duration // of a round's storm
	Calm   time.Duration // before and after it
}

const (
	stormBeat = time.Second // how often a member joins, and one leaves
	stormStay = 3           // how many beats a member stays
	// recovery is within what time after a storm the throughput has to be back at this share of what it was.
	recovery      = 5 * time.Second
	recoveryShare = 0.85
)

// RunStorm starts a registry, a dispatcher and a supervisor, and lets further workers join and leave the agent's work
// group every second while tasks run. They leave explicitly, as a drain does. It accounts for every task, and for the
// throughput before and after.
func RunStorm(ctx context.Context, sys *harness.System, c StormConfig) (*Report, error) {
	s := newSweep(sys, c.Config)
	s.load = load{backlog: 600, enough: 200, work: 100 * time.Millisecond, instances: 2}
	s.launch = func(service string, node int) (*harness.Process, error) {
		return sys.Launch(service, nodeName(service, node))
	}
	if err := s.start(ctx, "registry", "dispatcher", "supervisor"); err != nil {
		return nil, err
	}
	var storms []span
	s.trouble = func(ctx context.Context) (err error) {
		storms, err = s.storms(ctx, c)
		return err
	}
	report, err := s.run(ctx)
	if err != nil {
		return nil, err
	}
	report.Faults = append(report.Faults, s.rec.account.recoveries(report, storms, c.Calm, s.Say)...)
	if report.Repeats > 0 {
		report.Faults = append(report.Faults, fmt.Errorf("%d attempts were made again, though every worker left in peace", report.Repeats))
	}
	return report, nil
}

// agent is its spec, as the workers have it.
func (s *sweep) agent(ctx context.Context) (*spec.Agent, error) {
	following, stop := context.WithTimeout(ctx, time.Minute)
	f := finder{make(chan *spec.Agent, 1)}
	done := make(chan error, 1)
	go func() {
		done <- control.Follow(following, []kgo.Opt{kgo.SeedBrokers(s.sys.Brokers...)}, s.sys.Names(), slog.New(slog.DiscardHandler), f)
	}()
	defer func() {
		stop()
		<-done // it says that the context ended
	}()
	select {
	case a := <-f.found:
		return a, nil
	case <-following.Done():
		return nil, fmt.Errorf("find the agent in the control topic: %w", following.Err())
	}
}

// finder takes the first agent.
type finder struct{ found chan *spec.Agent }

func (f finder) Ready(all map[string]*spec.Agent) {
	for key, a := range all {
		f.Changed(key, a)
	}
}

func (f finder) Changed(_ string, a *spec.Agent) {
	if a == nil || a.Phase != spec.Active {
		return
	}
	select {
	case f.found <- a:
	default: // one is enough
	}
}

// storms are the rounds. It gives when each storm was.
func (s *sweep) storms(ctx context.Context, c StormConfig) ([]span, error) {
	agent, err := s.agent(ctx)
	if err != nil {
		return nil, err
	}
	s.report.Least = s.backlog
	var storms []span
	for range c.Rounds {
		found, err := s.atWork(ctx, 2*time.Second)
		if err != nil {
			return nil, err
		}
		s.report.Least = min(s.report.Least, found)
		if err := pause(ctx, c.Calm); err != nil {
			return nil, err
		}
		from := time.Now()
		if err := s.storm(ctx, agent, c.Lasts); err != nil {
			return nil, err
		}
		storms = append(storms, span{from, time.Now()})
		if err := pause(ctx, c.Calm); err != nil {
			return nil, err
		}
		s.report.Blows++
	}
	return storms, nil
}

// storm lets a worker join at each beat, and the one that is there longest leave.
func (s *sweep) storm(ctx context.Context, agent *spec.Agent, lasts time.Duration) error {
	beat := time.NewTicker(stormBeat)
	defer beat.Stop()
	end := time.After(lasts)
	left := make(chan error, stormStay+1) // a worker that leaves doesn't hold up the beat
	leaving := 0
	var there []*visitor
	leave := func() {
		v := there[0]
		there = there[1:]
		leaving++
		go func() { left <- v.leave(ctx) }()
	}
	var err error
	for n := 0; err == nil; n++ {
		var v *visitor
		if v, err = s.visit(ctx, agent, fmt.Sprintf("visitor-%d", n%(2*stormStay))); err != nil {
			break
		}
		there = append(there, v)
		if len(there) > stormStay {
			leave()
		}
		select {
		case <-beat.C:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-end:
		}
		break
	}
	for len(there) > 0 {
		leave()
	}
	for range leaving {
		err = errors.Join(err, <-left)
	}
	return err
}

// A visitor is a worker in this process.
type visitor struct {
	pool   *hop.Pool
	engine *worker.Engine
	runner *worker.FuncRunner
	log    *os.File
}

// visit lets a worker join.
func (s *sweep) visit(ctx context.Context, agent *spec.Agent, node string) (_ *visitor, err error) {
	v := &visitor{}
	if v.log, err = os.Create(filepath.Join(s.logs, fmt.Sprintf("%s-%d.log", node, time.Now().UnixNano()))); err != nil {
		return nil, err
	}
	const service = "supervisor" // as which it would come
	opts := []kgo.Opt{kgo.SeedBrokers(s.sys.Brokers...)}
	if v.pool, err = hop.NewPool(ctx, hop.PoolConfig{Opts: opts, Names: s.sys.Names(), Service: service, Node: node, Size: 2}); err != nil {
		return nil, errors.Join(err, v.log.Close())
	}
	v.runner = worker.NewFuncRunner(agent.Config.Concurrency, reeve.Func(reeve.Handle(v.work), agent, s.sys.Names()))
	v.engine = worker.New(worker.Config{
		Pool: v.pool, Opts: opts, Names: s.sys.Names(), Spec: agent, Service: service, Node: node, Runner: v.runner, Tiers: topics.DefaultTiers(),
	})
	if err := v.engine.Start(); err != nil {
		return nil, errors.Join(err, v.leave(ctx))
	}
	return v, nil
}

// work is what the agent's process does, see the command agent.
func (v *visitor) work(ctx context.Context, e reeve.Event[Content]) (any, error) {
	v.note("S", e.Task)
	err := pause(ctx, time.Duration(e.Content.WorkUS)*time.Microsecond)
	v.note("E", e.Task)
	switch {
	case err != nil:
		return nil, err
	case e.Content.Poison:
		return nil, reeve.Permanent(errors.New("poison"))
	case e.DeliveryAttempts() <= e.Content.Fails:
		return nil, errors.New("not yet")
	}
	return struct{}{}, nil
}

func (v *visitor) note(kind string, t *reeve.Task) {
	if _, err := fmt.Fprintln(v.log, kind, t.ID(), t.DeliveryAttempts(), time.Now().UnixNano()); err != nil {
		panic(err) // without its log the account would take silence for proof
	}
}

func (v *visitor) leave(ctx context.Context) error {
	drain, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	err := v.engine.Leave(drain)
	v.runner.Close()
	v.pool.Close()
	return errors.Join(err, v.log.Close())
}

// recoveries finds out when the throughput was back after each storm, and says where that took too long.
func (a *Account) recoveries(r *Report, storms []span, calm time.Duration, say func(string, ...any)) []error {
	var finished []time.Time
	for _, e := range a.tasks {
		if e.finals > 0 {
			finished = append(finished, e.seen)
		}
	}
	var faults []error
	for i, storm := range storms {
		before := median(perSecond(finished, storm.from.Add(-calm), storm.from))
		during := median(perSecond(finished, storm.from, storm.to))
		after := perSecond(finished, storm.to, storm.to.Add(calm))
		back := slices.IndexFunc(after, func(n int) bool { return float64(n) >= recoveryShare*float64(before) })
		took := time.Duration(back+1) * time.Second
		say("storm %d: %d tasks/s before, %d during, after it second by second %v", i+1, before, during, after)
		if back < 0 || took > recovery {
			faults = append(faults, fmt.Errorf("storm %d: %d tasks/s before it, and %s after it not %.0f %% of that: %v", i+1, before, recovery, 100*recoveryShare, after))
			continue
		}
		r.Resumed = append(r.Resumed, took)
	}
	return faults
}

// perSecond counts what falls into each full second of a time.
func perSecond(moments []time.Time, from, to time.Time) []int {
	counts := make([]int, to.Sub(from)/time.Second)
	for _, m := range moments {
		if i := int(m.Sub(from) / time.Second); !m.Before(from) && i < len(counts) {
			counts[i]++
		}
	}
	return counts
}

func median(ns []int) int {
	ns = slices.Sorted(slices.Values(ns))
	if len(ns) == 0 {
		return 0
	}
	return ns[len(ns)/2]
}
