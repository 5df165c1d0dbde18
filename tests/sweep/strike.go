package sweep

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/pkg/task"
)

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
