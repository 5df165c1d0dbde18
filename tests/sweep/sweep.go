package sweep

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/pkg/task"
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

// A Report is what a sweep found.
type Report struct {
	Verdict
	Blows     int
	Least     int             // unsettled tasks that a blow found, at the least
	Resumed   []time.Duration // from a restart to the first work of the restarted node
	TakenOver time.Duration   // of a supervisor that was killed for good
	Leftovers []string        // processes that outlived a kill by 5 s
	Faults    []error         // what else went wrong
}

// Err is nil where nothing went wrong.
func (r *Report) Err() error {
	errs := slices.Clone(r.Faults)
	if r.Failures > 0 {
		errs = append(errs, fmt.Errorf("%d tasks don't add up: %s", r.Failures, strings.Join(r.Details, "\n")))
	}
	if len(r.Leftovers) > 0 {
		errs = append(errs, fmt.Errorf("processes left 5 s after a kill: %s", strings.Join(r.Leftovers, ", ")))
	}
	return errors.Join(errs...)
}

func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d blows, each with at least %d unsettled tasks; %d tasks, %d runs (%d repeats), %d dead-lettered\n", r.Blows, r.Least, r.Tasks, r.Runs, r.Repeats, r.DeadLettered)
	fmt.Fprintf(&b, "lost %d, finished twice %d, attempts settled twice %d, begun after their outcome %d, overlaps of a key %d, other ends than expected %d\n",
		r.Lost, r.Twice, r.SettledTwice, r.AfterOutcome, r.Overlaps, r.Unexpected+r.Unknown+r.UnstartedOutcomes)
	fmt.Fprintf(&b, "resumed after a restart: p50 %s, max %s; processes left: %d", quantile(r.Resumed, 0.5), quantile(r.Resumed, 1), len(r.Leftovers))
	if r.TakenOver > 0 {
		fmt.Fprintf(&b, "; taken over after %s", r.TakenOver.Round(time.Millisecond))
	}
	return b.String()
}

func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	return ds[min(len(ds)-1, int(q*float64(len(ds))))].Round(time.Millisecond)
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

func (s *sweep) strikeAll(ctx context.Context) error {
	s.report.Least = s.backlog
	for i, b := range s.blows {
		found, err := s.atWork(ctx, b.After)
		if err != nil {
			return fmt.Errorf("before blow %d (%s): %w", i+1, b, err)
		}
		s.report.Least = min(s.report.Least, found)
		resumed, err := s.strike(ctx, b)
		if err != nil {
			return fmt.Errorf("blow %d (%s): %w", i+1, b, err)
		}
		s.report.Blows++
		s.Say("%3d/%d %-22s %5d unsettled, at work again after %s", i+1, len(s.blows), b, found, resumed.Round(time.Millisecond))
	}
	if !s.Takeover {
		return nil
	}
	if _, err := s.atWork(ctx, 0); err != nil {
		return err
	}
	return s.takeover(ctx)
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

// strike does it, brings the service back and says how long that took it to work again.
func (s *sweep) strike(ctx context.Context, b Blow) (time.Duration, error) {
	if b.Kind == Stop || b.Kind == StopInner {
		return s.stop(ctx, b)
	}
	p := s.running[b.Service][b.Node]
	seen, since, err := s.resumption(ctx, b)
	if err != nil {
		return 0, err
	}
	family, err := s.kill(b, p)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if s.running[b.Service][b.Node], err = s.launch(b.Service, b.Node); err != nil {
		return 0, err
	}
	// A guard's child lives a moment longer than the guard; what it settles in that moment is no resumption.
	if err := wait(ctx, grace, func() bool { return !slices.ContainsFunc(family, harness.Identity.Alive) }); err != nil {
		return 0, fmt.Errorf("wait for the end of what was killed: %w", err)
	}
	since.set(time.Now())
	at, err := await(ctx, seen, time.Minute)
	if err != nil {
		return 0, fmt.Errorf("%s didn't work again: %w\n%s", p.Name, err, s.running[b.Service][b.Node].Log())
	}
	s.report.Resumed = append(s.report.Resumed, at.Sub(begun))
	return at.Sub(begun), nil
}

// kill ends a process and sees to it that nothing of it is left 5 s later. What the blow doesn't hit has to end by
// itself. It returns what was there before.
func (s *sweep) kill(b Blow, p *harness.Process) ([]harness.Identity, error) {
	family := family(p.PID)
	target := p.PID
	if b.Kind == KillInner {
		target = inner(p.PID)
	}
	if err := syscall.Kill(target, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("kill %s: %w", p.Name, err)
	}
	s.checks.Add(1)
	go func() {
		defer s.checks.Done()
		<-time.After(grace)
		for _, id := range family {
			if id.Alive() {
				s.mu.Lock()
				s.report.Leftovers = append(s.report.Leftovers, fmt.Sprintf("process %d of %s after %s", id.PID, p.Name, b))
				s.mu.Unlock()
			}
		}
	}()
	select {
	case <-p.Ended():
		return family, nil
	case <-time.After(grace):
		return nil, fmt.Errorf("%s is still there 5 s after %s", p.Name, b)
	}
}

// family is a process with all that is below it.
func family(pid int) []harness.Identity {
	var ids []harness.Identity
	for _, p := range append(harness.Children(pid), pid) {
		if id, err := harness.Identify(p); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// inner is the process that works below a guard, or the process itself where there is no guard.
func inner(pid int) int {
	for _, c := range harness.Children(pid) {
		if harness.SameProgram(c, pid) {
			return c
		}
	}
	return pid
}

// resumption watches for the first work of a node after its restart.
func (s *sweep) resumption(ctx context.Context, b Blow) (<-chan time.Time, *moment, error) {
	since := &moment{}
	if b.Service != "dispatcher" {
		node := nodeName(b.Service, b.Node)
		return s.rec.watch(&watch{outcome: func(o harness.Outcome, _ int32) bool {
			return (o.Node == node || b.Service == devService) && since.before(o.Ended)
		}}), since, nil
	}
	own, err := s.owned(ctx, s.sys.Names().Group(s.rec.input, agentName), "dispatcher."+nodeName(b.Service, b.Node))
	if err != nil {
		return nil, nil, err
	}
	return s.rec.watch(&watch{task: func(o task.Origin) bool {
		// What it had committed before it was killed may be read a moment later.
		return own[o.Partition] && since.before(time.Now().Add(-30*time.Millisecond))
	}}), since, nil
}

// owned are the partitions of a group's member.
func (s *sweep) owned(ctx context.Context, group, instance string) (map[int32]bool, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.sys.Brokers...))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	own := map[int32]bool{}
	err = wait(ctx, 30*time.Second, func() bool {
		described, err := kadm.NewClient(cl).DescribeGroups(ctx, group)
		if err != nil {
			return false
		}
		for _, m := range described[group].Members {
			c, ok := m.Assigned.AsConsumer()
			if m.InstanceID == nil || *m.InstanceID != instance || !ok {
				continue
			}
			for _, t := range c.Topics {
				for _, p := range t.Partitions {
					own[p] = true
				}
			}
		}
		return len(own) > 0
	})
	if err != nil {
		return nil, fmt.Errorf("find the partitions of %s in group %s: %w", instance, group, err)
	}
	return own, nil
}

// stop freezes a service for a while. Others have to take over, and it has to come back without harm.
func (s *sweep) stop(ctx context.Context, b Blow) (time.Duration, error) {
	p := s.running[b.Service][b.Node]
	targets := append(harness.Children(p.PID), p.PID)
	if b.Kind == StopInner {
		targets = []int{inner(p.PID)}
	}
	from := time.Now()
	signal(targets, syscall.SIGSTOP)
	err := pause(ctx, s.StopFor)
	signal(targets, syscall.SIGCONT)
	if err != nil {
		return 0, err
	}
	woken := time.Now()
	s.rec.account.Stopped(from, woken.Add(grace))
	seen, since, err := s.resumption(ctx, b)
	if err != nil {
		return 0, err
	}
	since.set(woken)
	select {
	case <-p.Ended():
		return 0, fmt.Errorf("%s ended after it was stopped and continued\n%s", p.Name, p.Log())
	case at := <-seen:
		return at.Sub(woken), nil
	case <-time.After(time.Minute):
		return 0, fmt.Errorf("%s didn't work again a minute after it was continued\n%s", p.Name, p.Log())
	}
}

func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig) // one that ended meanwhile needs none
	}
}

// takeover kills a supervisor for good.
func (s *sweep) takeover(ctx context.Context) error {
	p := s.running["supervisor"][0]
	own, err := s.owned(ctx, s.sys.Names().WorkGroup(s.rec.input, agentName), "supervisor.s0")
	if err != nil {
		return err
	}
	killed := &moment{}
	seen := s.rec.watch(&watch{outcome: func(o harness.Outcome, partition int32) bool {
		return own[partition] && o.Node == "s1" && killed.before(o.Ended)
	}})
	if _, err := s.kill(Blow{Service: "supervisor", Kind: Kill}, p); err != nil {
		return err
	}
	s.running["supervisor"] = s.running["supervisor"][1:]
	killed.set(time.Now())
	at, err := await(ctx, seen, time.Minute)
	if err != nil {
		return fmt.Errorf("nobody took over: %w", err)
	}
	s.report.TakenOver = at.Sub(killed.get())
	s.Say("a supervisor killed for good: taken over after %s", s.report.TakenOver.Round(time.Millisecond))
	return nil
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
