package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/tests/harness"
)

const (
	outageRate    = 100 // events a second
	outageRetries = 3
	// drainLimit is how long after the end of an outage all of it must have been worked off.
	drainLimit = 30 * time.Second
)

// In an outage of what an agent depends on, at 100 events a second and with two supervisors, nothing is dead-lettered but
// the one event that would fail anyway, no retry is used up, everybody can see what is the matter, and what has come in is
// worked off within 30 s of its end. REEVE_TEST_OUTAGE says how long it lasts, by default 15s.
func TestAnOutageOfADependencyCostsNoEvent(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 isn't installed")
	}
	t.Parallel()
	lasts := 15 * time.Second
	if text := os.Getenv("REEVE_TEST_OUTAGE"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	outageOfADependency(t, system(t, testenv.Kafka(t), testenv.Prefix(t)), lasts)
}

func outageOfADependency(t *testing.T, sys *harness.System, lasts time.Duration) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 4, nil); err != nil {
		t.Fatal(err)
	}
	d := newDependency(t)
	start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0", "supervisor.s1")
	registerDependent(t, sys, topic, d)
	seen := followOutage(t, sys)
	e := newEvents(t, sys, topic)

	e.flow(t, 3*time.Second, nil)
	eventually(t, time.Minute, func() string { return differ(seen.finished(), e.sent()) })
	d.down()
	began := time.Now()
	e.flow(t, 3*time.Second, func(n int) string { // one always fails; some fail afterwards, so often that they need all of their retries
		switch {
		case n == 15:
			return `, "poison": true`
		case n < 30 || n%10 == 0:
			return fmt.Sprintf(`, "fails": %d`, outageRetries)
		}
		return ""
	})
	awaitOutage(t, sys, topic, true)
	e.flow(t, lasts-time.Since(began), nil)
	attempts := seen.since(began)
	backlog := e.sent() - seen.finished()
	d.up()
	over := time.Now()
	e.flow(t, 5*time.Second, nil)
	awaitOutage(t, sys, topic, false)
	eventually(t, 2*time.Minute, func() string { return differ(seen.finished(), e.sent()) })

	drained, lines := seen.drained(over), seen.summary()
	t.Logf("an outage of %s at %d events/s: %d attempts were made in it, %d events waited at its end, drained %s after it; %s",
		lasts, outageRate, attempts, backlog, drained.Round(10*time.Millisecond), lines)
	if drained > drainLimit {
		t.Errorf("drained %s after the outage", drained)
	}
	seen.check(t, e.poison)
	var dead struct{ Items []struct{ Origin string } }
	call(t, sys, http.MethodGet, "/v1/dlq/"+topic+"/dependent", nil, &dead)
	if len(dead.Items) != 1 {
		t.Errorf("%d dead letters: %v", len(dead.Items), dead.Items)
	}
}

// awaitOutage waits until health, the agent and the alerts say that there is an outage, or that there is none.
func awaitOutage(t *testing.T, sys *harness.System, topic string, want bool) {
	t.Helper()
	eventually(t, time.Minute, func() string {
		var h struct {
			Agents map[string]struct {
				Healthy   bool
				Condition string
				Detail    string
			}
			Alerts []struct{ Name, Kind string }
		}
		call(t, sys, http.MethodGet, "/health", nil, &h)
		var a struct {
			Phase    string
			Problems []struct{ State string }
		}
		call(t, sys, http.MethodGet, "/v1/agents/"+topic+"/dependent", nil, &a)
		one := h.Agents[topic+"/dependent"]
		alerts := 0
		for _, al := range h.Alerts {
			if al.Kind == "outage" {
				alerts++
			}
		}
		if out := one.Condition == "degraded" && strings.Contains(one.Detail, "the service doesn't answer"); out != want || one.Healthy == want {
			return fmt.Sprintf("health says %+v", one)
		}
		if out := len(a.Problems) > 0 && a.Problems[0].State == "outage"; out != want || a.Phase != "active" {
			return fmt.Sprintf("the agent is %+v", a)
		}
		if (alerts > 0) != want {
			return fmt.Sprintf("%d alerts", alerts)
		}
		return ""
	})
}

func registerDependent(t *testing.T, sys *harness.System, topic string, d *dependency) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(sys.AgentsDir(), "dependent"), os.DirFS("testdata/dependent")); err != nil {
		t.Fatal(err)
	}
	err := sys.Register(t.Context(), map[string]any{
		"topic": topic, "name": "dependent", "runtime": "python", "dir": "dependent", "callback": "dependent:handle",
		"env":    map[string]string{"SERVICE_PORT": d.port, "STATE": t.TempDir()},
		"config": map[string]any{"max_retries": outageRetries, "retry_delays": []string{"1s"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// dependency is a service that agents connect to, and that goes away and comes back.
type dependency struct {
	t    *testing.T
	port string
	l    net.Listener
	done sync.WaitGroup
}

func newDependency(t *testing.T) *dependency {
	t.Helper()
	d := &dependency{t: t, port: "0"}
	d.up()
	t.Cleanup(d.down)
	return d
}

func (d *dependency) up() {
	d.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:"+d.port)
	if err != nil {
		d.t.Fatal(err)
	}
	d.l = l
	_, d.port, _ = net.SplitHostPort(l.Addr().String())
	d.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close() // the client has had what it wanted
		}
	})
}

func (d *dependency) down() {
	_ = d.l.Close() // also a second time
	d.done.Wait()
}

// eventFlow publishes events at a rate.
type eventFlow struct {
	topic  string
	cl     *kgo.Client
	n      int
	poison string
}

func newEvents(t *testing.T, sys *harness.System, topic string) *eventFlow {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &eventFlow{topic: topic, cl: cl}
}

func (e *eventFlow) sent() int { return e.n }

// flow publishes for some time. more adds to the content of the n-th of them.
func (e *eventFlow) flow(t *testing.T, d time.Duration, more func(n int) string) {
	t.Helper()
	tick := time.NewTicker(time.Second / outageRate)
	defer tick.Stop()
	for n := range int(d * outageRate / time.Second) {
		extra := ""
		if more != nil {
			extra = more(n)
		}
		r := &kgo.Record{Topic: e.topic, Key: fmt.Append(nil, e.n%200), Value: fmt.Appendf(nil, `{"n": %d%s}`, e.n, extra)}
		if strings.Contains(extra, "poison") {
			if err := e.cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			e.poison = task.Origin{Topic: e.topic, Partition: r.Partition, Offset: r.Offset}.ID()
		} else {
			e.cl.Produce(t.Context(), r, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		e.n++
		<-tick.C
	}
	if err := e.cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// outageLedger is what the outcomes say.
type outageLedger struct {
	mu  sync.Mutex
	all map[string][]harness.Outcome // by task
}

func followOutage(t *testing.T, sys *harness.System) *outageLedger {
	t.Helper()
	l := &outageLedger{all: map[string][]harness.Outcome{}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- harness.Follow(ctx, sys.Brokers, []string{sys.Names().Outcomes()}, func(r *kgo.Record) {
			o, err := harness.ParseOutcome(r)
			if err != nil {
				t.Error(err)
				return
			}
			o.Seen = time.Now()
			l.mu.Lock()
			defer l.mu.Unlock()
			l.all[o.Origin] = append(l.all[o.Origin], o)
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *outageLedger) finished() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, os := range l.all {
		if os[len(os)-1].Final {
			n++
		}
	}
	return n
}

// since counts the attempts that ended after a time.
func (l *outageLedger) since(at time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, os := range l.all {
		for _, o := range os {
			if o.Ended.After(at) {
				n++
			}
		}
	}
	return n
}

// drained is how long after the end of the outage the last event of before it was run that had waited for nothing but that.
func (l *outageLedger) drained(over time.Time) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, os := range l.all {
		if os[0].Published.After(over) {
			continue
		}
		for _, o := range os {
			if o.Ended.After(over) { // its first attempt after the outage; what fails then for its own reasons isn't the outage's
				longest = max(longest, o.Seen.Sub(over))
				break
			}
		}
	}
	return longest
}

// summary counts how tasks ended.
func (l *outageLedger) summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts, most := map[task.Settled]int{}, 0
	for _, os := range l.all {
		for _, o := range os {
			counts[o.Settled]++
			most = max(most, o.Attempt)
		}
	}
	return fmt.Sprintf("%d tasks: %v, at most %d attempts", len(l.all), counts, most)
}

// check wants all events but one to be completed.
func (l *outageLedger) check(t *testing.T, poison string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, os := range l.all {
		last := os[len(os)-1]
		if want := map[bool]task.Settled{true: task.SettledDLQ, false: task.SettledDone}[id == poison]; last.Settled != want {
			t.Errorf("%s is settled as %s after %d attempts", id, last.Settled, last.Attempt)
		}
		for _, o := range os[:len(os)-1] {
			if o.Final {
				t.Errorf("%s was finished twice", id)
			}
		}
	}
}
