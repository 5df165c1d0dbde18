package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/testenv"
)

// A subject is something that moves records from a user's topic to outcomes.
type subject struct {
	name     string
	outcomes string // topic
	// begin starts it on the topic; what it starts belongs to the System.
	begin func(ctx context.Context) error
	// origin is the event of an outcome's record, topic/partition/offset, with when it was published, dispatched, started
	// and ended, where the record says that.
	origin func(*kgo.Record) (string, []time.Time, error)
	// movers are the processes whose processor time counts; apart is listed by itself, nil where there is none.
	movers []*harness.Process
	apart  *harness.Process

	sys *harness.System
}

// input is the user's topic.
func (s *subject) input() string { return s.sys.Prefix + "-in" }

// close ends its processes and removes its topics.
func (s *subject) close() error {
	return errors.Join(s.sys.Close(), testenv.RemovePrefix(s.sys.Brokers, s.sys.Prefix))
}

// prepare makes what both kinds need: an installation of their own and the user's topic.
func (b *bench) prepare(ctx context.Context, name string) (*subject, error) {
	prefix := testenv.Unique()
	sys, err := harness.New(harness.Config{
		Brokers: []string{b.kafka.Address}, Prefix: prefix, Database: b.postgres.Address, Bin: b.bin, Dir: filepath.Join(b.dir, name+"-"+prefix),
		Env: []string{"REEVE_LOG_LEVEL=warn"},
	})
	if err != nil {
		return nil, err
	}
	s := &subject{name: name, sys: sys}
	if err := harness.CreateTopic(ctx, sys.Brokers, s.input(), partitions, nil); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// bare is the copy by franz-go.
func (b *bench) bare(ctx context.Context, stdio bool) (*subject, error) {
	s, err := b.prepare(ctx, "bare")
	if err != nil {
		return nil, err
	}
	tasks := s.sys.Prefix + "-tasks"
	s.outcomes = s.sys.Prefix + "-out"
	for _, t := range []string{tasks, s.outcomes} {
		if err := harness.CreateTopic(ctx, s.sys.Brokers, t, partitions, nil); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	s.origin = func(r *kgo.Record) (string, []time.Time, error) { return string(r.Key), nil, nil }
	s.begin = func(context.Context) error {
		args := []string{"-broker", b.kafka.Address, "-in", s.input(), "-tasks", tasks, "-out", s.outcomes}
		if stdio {
			args = append(args, "-child", filepath.Join(b.bin, "child"))
		}
		p, err := s.sys.Run(exec.Command(filepath.Join(b.bin, "bare"), args...), "bare", "")
		s.movers = []*harness.Process{p}
		return err
	}
	return s, nil
}

// reeve is Reeve with the no-op agent, as four processes below a supervisor or inside a worker.
func (b *bench) reeve(ctx context.Context, stdio bool) (*subject, error) {
	s, err := b.prepare(ctx, "reeve")
	if err != nil {
		return nil, err
	}
	s.outcomes = s.sys.Names().Outcomes()
	// Made before the services come, so that the reader is there when the first outcome is.
	if err := b.ensure(ctx, kafka.OutcomesTopic(s.sys.Names())); err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.origin = func(r *kgo.Record) (string, []time.Time, error) {
		o, err := harness.ParseOutcome(r)
		return o.Origin, []time.Time{o.Published, o.Dispatched, o.Started, o.Ended}, err
	}
	if s.sys.Database, b.dropSchema, err = testenv.NewSchema(ctx, b.postgres.Address); err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.begin = func(ctx context.Context) error { return b.beginReeve(ctx, s, stdio) }
	return s, nil
}

// ensure makes topics of Reeve's with the settings that its services would give them.
func (b *bench) ensure(ctx context.Context, ts ...kafka.Topic) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Address))
	if err != nil {
		return err
	}
	defer cl.Close()
	return kafka.EnsureTopics(ctx, cl, -1, ts...)
}

func (b *bench) beginReeve(ctx context.Context, s *subject, stdio bool) error {
	dir := filepath.Join(s.sys.AgentsDir(), "noop")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Link(filepath.Join(b.bin, "child"), filepath.Join(dir, "child")); err != nil {
		return fmt.Errorf("place the agent: %w", err)
	}
	registry, err := s.sys.Start(ctx, "registry", "r0")
	if err != nil {
		return err
	}
	dispatcher, err := s.sys.Start(ctx, "dispatcher", "d0")
	if err != nil {
		return err
	}
	var worker *harness.Process
	if stdio {
		worker, err = s.sys.Start(ctx, "supervisor", "s0")
	} else {
		worker, err = s.sys.Launch("worker", "s0") // it serves nothing, so there is no telling that it is ready
	}
	if err != nil {
		return err
	}
	s.apart, s.movers = registry, []*harness.Process{dispatcher, worker}
	return s.sys.Register(ctx, map[string]any{
		"topic": s.input(), "name": "noop", "runtime": "command", "dir": "noop", "command": []string{"./child"},
		"config": map[string]any{"concurrency": 1024, "ordering": "none"},
		"pool":   map[string]any{"min": 4, "max": 4},
	})
}

// cpu is the processor time of a process with all that is below it; 0 of none.
func cpu(p *harness.Process) float64 {
	if p == nil {
		return 0
	}
	return tree(p.PID)
}

// tree is the processor time of a process with all that is below it.
func tree(pid int) float64 {
	total := harness.CPU(pid)
	for _, c := range harness.Children(pid) {
		total += harness.CPU(c)
	}
	return total
}

// each is cpu by the processes' names.
func each(ps []*harness.Process) map[string]float64 {
	used := map[string]float64{}
	for _, p := range ps {
		used[p.Name] = cpu(p)
	}
	return used
}

// startLimit is how long a subject may take to its first outcome.
const startLimit = time.Minute
