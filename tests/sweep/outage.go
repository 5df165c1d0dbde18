package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/task"
)

// An Outage is something that happens to Kafka, or to the way there.
type Outage string

// The outages. Each lasts longer than a group member's session.
const (
	// FreezeBroker is SIGSTOP to the broker and SIGCONT.
	FreezeBroker Outage = "broker frozen"
	// KillBroker is SIGKILL to the broker and a start on its data.
	KillBroker Outage = "broker killed"
	// The rest cut one service off: its connections stand, and nothing comes through them.
	CutRegistry   Outage = "registry cut off"
	CutDispatcher Outage = "dispatcher cut off"
	CutSupervisor Outage = "supervisor cut off"
)

// AllOutages are all of them.
func AllOutages() []Outage {
	return []Outage{FreezeBroker, KillBroker, CutRegistry, CutDispatcher, CutSupervisor}
}

// Gates is how many a Broker needs for the outages.
const Gates = 3

const (
	outageLasts = 10 * time.Second
	// longTask spans an outage, and longTasks of them run in each.
	longTask  = 20 * time.Second
	longTasks = 4
)

// RunOutages starts one node of each service on a broker, each through a gate of its own, lets the outages happen one
// after the other while tasks run, and accounts for every task. Nobody starts or mends anything: all has to go on by
// itself, and since no service ends, no attempt may either.
func RunOutages(ctx context.Context, sys *harness.System, b *testenv.Broker, c Config, outages ...Outage) (*Report, error) {
	s := newSweep(sys, c)
	s.load = load{backlog: 600, enough: 200, work: 50 * time.Millisecond, instances: 2}
	sys.Brokers, sys.EnvOf = []string{b.Address}, map[string][]string{}
	services := []string{"registry", "dispatcher", "supervisor"}
	for i, service := range services {
		sys.EnvOf[service] = []string{"REEVE_KAFKA_BROKERS=" + b.Gates[i].Address}
	}
	s.launch = func(service string, node int) (*harness.Process, error) {
		return sys.Launch(service, nodeName(service, node))
	}
	if err := s.start(ctx, services...); err != nil {
		return nil, err
	}
	s.trouble = func(ctx context.Context) error { return s.outages(ctx, b, outages) }
	report, err := s.run(ctx)
	if err == nil && report.Repeats > 0 {
		report.Faults = append(report.Faults, fmt.Errorf("%d attempts were ended and made again, though no service ended", report.Repeats))
	}
	return report, err
}

func (s *sweep) outages(ctx context.Context, b *testenv.Broker, outages []Outage) error {
	s.report.Least = s.backlog
	if err := wait(ctx, time.Minute, func() bool { return len(harness.Marked(s.mark)) == s.instances }); err != nil {
		return fmt.Errorf("wait for %d processes of the agent: %w", s.instances, err)
	}
	for i, o := range outages {
		resumed, err := s.ride(ctx, b, o)
		if err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
		s.report.Blows++
		s.report.Resumed = append(s.report.Resumed, resumed)
		s.Say("%3d/%d %-22s at work again after %s", i+1, len(outages), o, resumed.Round(time.Millisecond))
	}
	return s.counted(ctx)
}

// ride lets an outage happen, with long tasks under way, and waits until they have ended and others too.
func (s *sweep) ride(ctx context.Context, b *testenv.Broker, o Outage) (time.Duration, error) {
	found, err := s.atWork(ctx, 0)
	if err != nil {
		return 0, err
	}
	s.report.Least = min(s.report.Least, found)
	before := s.family()
	long, err := s.beginLong(ctx)
	if err != nil {
		return 0, err
	}
	if err := happen(ctx, b, o); err != nil {
		return 0, err
	}
	over := &moment{}
	over.set(time.Now())
	seen := s.rec.watch(&watch{outcome: func(out harness.Outcome, _ int32) bool { return over.before(out.Started) }})
	at, err := await(ctx, seen, time.Minute)
	if err != nil {
		return 0, fmt.Errorf("nothing was begun and settled after it: %w\n%s", err, s.ends())
	}
	if err := s.awaitLong(ctx, long); err != nil {
		return 0, err
	}
	if after := s.family(); !slices.Equal(before, after) {
		return 0, fmt.Errorf("the processes were %v and are %v\n%s", before, after, s.ends())
	}
	return at.Sub(over.get()), nil
}

// happen is the outage, from its begin to its end.
func happen(ctx context.Context, b *testenv.Broker, o Outage) error {
	cut := map[Outage]int{CutRegistry: 0, CutDispatcher: 1, CutSupervisor: 2}
	switch o {
	case FreezeBroker:
		return b.Freeze(ctx, outageLasts)
	case KillBroker:
		return errors.Join(b.Kill(), pause(ctx, outageLasts), b.Start(ctx))
	}
	gate := b.Gates[cut[o]]
	gate.Shut()
	defer gate.Open()
	return pause(ctx, outageLasts)
}

// family are the services' processes and the agent's, as they run.
func (s *sweep) family() []harness.Identity {
	var all []harness.Identity
	for _, service := range []string{"registry", "dispatcher", "supervisor"} {
		for _, p := range s.running[service] {
			all = append(all, family(p.PID)...)
		}
	}
	slices.SortFunc(all, func(x, y harness.Identity) int { return x.PID - y.PID })
	return all
}

// beginLong publishes tasks that take long, waits until they run, and gives their ids.
func (s *sweep) beginLong(ctx context.Context) ([]string, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.sys.Brokers...), kgo.DefaultProduceTopic(s.rec.input))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var ids []string
	for i := range longTasks {
		value, err := json.Marshal(Content{WorkUS: int(longTask.Microseconds())})
		if err != nil {
			return nil, err
		}
		r := &kgo.Record{Key: fmt.Appendf(nil, "long-%d", i), Value: value}
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			return nil, err
		}
		ids = append(ids, task.Origin{Topic: s.rec.input, Partition: r.Partition, Offset: r.Offset}.ID())
	}
	err = wait(ctx, time.Minute, func() bool { return s.begun(ids) })
	if err != nil {
		return nil, fmt.Errorf("wait until long tasks run: %w", err)
	}
	return ids, nil
}

// begun reports whether the agent has noted the begin of all of these tasks.
func (s *sweep) begun(ids []string) bool {
	paths, _ := filepath.Glob(filepath.Join(s.logs, "*.log"))
	var all []byte
	for _, path := range paths {
		b, _ := os.ReadFile(path)
		all = append(all, b...)
	}
	return !slices.ContainsFunc(ids, func(id string) bool { return !bytes.Contains(all, []byte("S "+eventID(id)+" 1 ")) })
}

// awaitLong waits for the end of long tasks: in the attempt in which they were begun.
func (s *sweep) awaitLong(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if err := wait(ctx, 2*longTask, func() bool { return s.rec.ended(id) != nil }); err != nil {
			return fmt.Errorf("task %s doesn't end: %w\n%s", id, err, s.ends())
		}
		if attempts := s.rec.ended(id); !slices.Equal(attempts, []int{1}) {
			return fmt.Errorf("task %s ended in the attempts %v, not in the one that ran\n%s", id, attempts, s.ends())
		}
	}
	return nil
}

// counted waits until the registry has counted every task.
func (s *sweep) counted(ctx context.Context) error {
	path := "/v1/agents/" + s.rec.input + "/" + agentName + "/metrics"
	var shown struct {
		Received, Completed int
		DeadLettered        int `json:"dead_lettered"`
	}
	before := s.rec.counts().finals
	err := wait(ctx, time.Minute, func() bool {
		err := s.sys.Call(ctx, http.MethodGet, path, nil, &shown)
		return err == nil && shown.Completed+shown.DeadLettered >= before
	})
	if err != nil {
		return fmt.Errorf("%d tasks were finished, and the registry shows %+v: %w", before, shown, err)
	}
	return nil
}

// ends are the ends of the services' logs.
func (s *sweep) ends() string {
	text := ""
	for _, ps := range s.running {
		for _, p := range ps {
			text += p.Name + ":\n" + p.Log() + "\n"
		}
	}
	return text
}
