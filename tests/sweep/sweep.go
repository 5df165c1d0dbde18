package sweep

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/reeve-run/reeve/tests/harness"
)

// Config is a sweep.
type Config struct {
	Seed    uint64
	Kills   int           // of each service
	Stops   int           // of each service
	StopFor time.Duration // how long a stop lasts. Defaults to 20 s
	// Takeover kills a supervisor for good at the end and measures until another has taken over.
	Takeover bool
	Say      func(format string, args ...any)
}

const (
	agentName = "sweeper"
	nodes     = 2
	grace     = 5 * time.Second
)

// sweep is a running one.
type sweep struct {
	Config
	load
	sys    *harness.System
	rec    *recorder
	mark   string // of the agents' environments
	logs   string
	report Report
	mu     sync.Mutex // over report.Leftovers
	checks sync.WaitGroup

	blows   []Blow
	trouble func(context.Context) error   // what is done while tasks run
	running map[string][]*harness.Process // by service, one a node
	launch  func(service string, node int) (*harness.Process, error)
}

// Run starts two dispatchers, two supervisors and a registry on the System, strikes them as the plan says, and accounts
// for every task. The error says that the sweep itself couldn't be done; what it found is in the report.
func Run(ctx context.Context, sys *harness.System, c Config) (*Report, error) {
	s := newSweep(sys, c)
	s.blows = Plan(c.Seed, c.Kills, c.Stops, nodes)
	s.launch = func(service string, node int) (*harness.Process, error) {
		return sys.Launch(service, nodeName(service, node))
	}
	if err := s.start(ctx, "registry", "dispatcher", "dispatcher", "supervisor", "supervisor"); err != nil {
		return nil, err
	}
	return s.run(ctx)
}

// nodeName is d0, d1, s0, s1.
func nodeName(service string, node int) string { return fmt.Sprintf("%c%d", service[0], node) }

func newSweep(sys *harness.System, c Config) *sweep {
	if c.StopFor == 0 {
		c.StopFor = 20 * time.Second
	}
	input := sys.Prefix + "-in"
	s := &sweep{
		Config: c, load: heavy(), sys: sys,
		mark: "SWEEP_MARK=" + sys.Prefix, logs: filepath.Join(sys.Dir, "runs"),
		running: map[string][]*harness.Process{},
		rec: &recorder{
			input: input, tasks: sys.Names().Tasks(input, agentName), outcomes: sys.Names().Outcomes(),
			account: NewAccount(), place: map[string]int32{},
		},
	}
	s.trouble = s.strikeAll
	return s
}

func (s *sweep) run(ctx context.Context) (*Report, error) {
	if err := s.work(ctx); err != nil {
		return nil, err
	}
	return s.close()
}

// start brings services up, one node for each time that they are named, with the agent registered.
func (s *sweep) start(ctx context.Context, services ...string) error {
	if err := s.place(); err != nil {
		return err
	}
	if err := harness.CreateTopic(ctx, s.sys.Brokers, s.rec.input, 8, nil); err != nil {
		return err
	}
	for _, service := range services {
		p, err := s.launch(service, len(s.running[service]))
		if err != nil {
			return err
		}
		s.running[service] = append(s.running[service], p)
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	return s.sys.Register(ctx, s.entry())
}

// place puts the agent's program where the supervisor looks for it.
func (s *sweep) place() error {
	dir := filepath.Join(s.sys.AgentsDir(), "sweep")
	if err := errors.Join(os.MkdirAll(s.logs, 0o755), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	if err := os.Link(filepath.Join(s.sys.Bin, "agent"), filepath.Join(dir, "agent")); err != nil {
		return fmt.Errorf("place the agent: %w", err)
	}
	return nil
}

// entry is the agent, as agents.yaml would have it.
func (s *sweep) entry() map[string]any {
	return map[string]any{
		"topic": s.rec.input, "name": agentName, "runtime": "command", "dir": "sweep", "command": []string{"./agent"},
		"env":    map[string]string{"SWEEP_LOG": s.logs, "SWEEP_MARK": s.sys.Prefix},
		"config": map[string]any{"concurrency": 16, "retry_delays": []string{"1s"}},
		"pool":   map[string]any{"min": s.instances, "max": s.instances},
	}
}

// work strikes while the publisher feeds, and waits until all is settled.
func (s *sweep) work(ctx context.Context) error {
	recording, stopRecording := context.WithCancel(ctx)
	feeding, stopFeeding := context.WithCancel(ctx)
	defer stopRecording()
	defer stopFeeding()
	recorded, fed := make(chan error, 1), make(chan error, 1)
	go func() { recorded <- s.rec.run(recording, s.sys.Brokers) }()
	pub := &publisher{load: s.load, topic: s.rec.input, rnd: rand.New(rand.NewPCG(s.Seed, 1)), rec: s.rec}
	go func() { fed <- pub.run(feeding, s.sys.Brokers) }()

	err := s.trouble(ctx)
	stopFeeding()
	err = errors.Join(err, <-fed)
	if err == nil {
		err = s.settle(ctx, pub.sent)
	}
	s.checks.Wait()
	stopRecording()
	return errors.Join(err, <-recorded)
}

// atWork waits until enough tasks are unsettled, some more time has passed, and there are enough still.
func (s *sweep) atWork(ctx context.Context, more time.Duration) (int, error) {
	found := 0
	busy := func() bool { found = s.rec.counts().unsettled(); return found > s.enough }
	if err := wait(ctx, time.Minute, busy); err != nil {
		return 0, fmt.Errorf("wait for %d unsettled tasks: only %+v: %w", s.enough, s.rec.counts(), err)
	}
	if err := pause(ctx, more); err != nil {
		return 0, err
	}
	if err := wait(ctx, time.Minute, busy); err != nil {
		return 0, fmt.Errorf("wait for %d unsettled tasks: only %+v: %w", s.enough, s.rec.counts(), err)
	}
	return found, nil
}

// settle waits until every event is finished, and a little longer, so that what comes twice is seen.
func (s *sweep) settle(ctx context.Context, sent int) error {
	s.Say("waiting for the last of %d tasks", max(sent, s.rec.counts().published))
	last, since := counts{}, time.Now()
	err := wait(ctx, 5*time.Minute, func() bool {
		if c := s.rec.counts(); c != last {
			last, since = c, time.Now()
		}
		return last.finals >= max(sent, last.published) || time.Since(since) > time.Minute // then something is lost, as the account will say
	})
	if err != nil {
		return fmt.Errorf("wait for the last tasks: %+v: %w", last, err)
	}
	return pause(ctx, 2*time.Second)
}

// close ends the services in order, reads what the agents wrote and judges.
func (s *sweep) close() (*Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, service := range []string{"dispatcher", "supervisor", "registry", devService} {
		for _, p := range s.running[service] {
			if err := p.Stop(ctx); err != nil {
				s.report.Faults = append(s.report.Faults, err)
			}
		}
	}
	for _, id := range harness.Marked(s.mark) {
		s.report.Leftovers = append(s.report.Leftovers, fmt.Sprintf("process %d after the stop", id.PID))
	}
	s.report.Faults = append(s.report.Faults, s.rec.faults...)
	logs, err := filepath.Glob(filepath.Join(s.logs, "*.log"))
	if err != nil {
		return nil, err
	}
	for _, path := range logs {
		if err := s.readLog(path); err != nil {
			return nil, err
		}
	}
	s.report.Verdict = s.rec.account.Judge()
	return &s.report, nil
}

func (s *sweep) readLog(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.rec.account.Log(f)
}
