package agentprom_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/agent/agentprom"
	"github.com/reeve-run/reeve/pkg/agent/agenttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scrape gives what a registry shows, by name and label values in the order of their names: tasks_total{hello,orders}. Of a
// histogram it is the count.
func scrape(t testing.TB, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

// await scrapes until a figure is as wanted: an outcome can be read a moment before it is counted.
func await(t testing.TB, reg prometheus.Gatherer, name string, want float64) map[string]float64 {
	t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		got := scrape(t, reg)
		if got[name] == want {
			return got
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s isn't %v: %v", name, want, got)
		}
	}
}

func registered(t testing.TB, r *agent.Runner) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(agentprom.NewCollector(r)); err != nil {
		t.Fatal(err)
	}
	return reg
}

func handle(_ context.Context, e agent.Event[int]) (int, error) {
	switch {
	case e.Content < 0:
		return 0, agent.Permanent(errors.New("negative"))
	case e.Content == 0 && e.DeliveryAttempts() < 3:
		return 0, errors.New("not yet")
	case e.Content == 99:
		panic("ninety-nine")
	}
	return e.Content, nil
}

func TestEachSettlementIsCountedOnce(t *testing.T) {
	reeve := agenttest.Start(t)
	hello := agent.Agent{Topic: "numbers", Name: "hello", Version: "2.0.0", Handler: agent.Handle(handle), MaxRetries: new(2)}
	strict := agent.Agent{Topic: "numbers", Name: "strict", Handler: agent.Handle(handle), DLQEnabled: new(false), MaxRetries: new(2)}
	reg := registered(t, reeve.Run(hello, strict))
	for _, n := range []int{1, 2, 3, -1, -2, 0, 99} {
		reeve.Publish("numbers", n)
	}
	unreadable := &kgo.Record{Topic: "numbers", Value: []byte("{"), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents+json")}}}
	last := reeve.PublishRecord(unreadable)
	for _, name := range []string{"hello", "strict"} {
		last.Outcome(name)
	}

	// 3 at once, 1 at the third attempt; 2 permanent, 1 panic three times, 1 unreadable.
	await(t, reg, "reeve_tasks_received_total{hello,numbers,2.0.0}", 8)
	await(t, reg, "reeve_tasks_retried_total{hello,numbers,2.0.0}", 4)
	await(t, reg, "reeve_tasks_dead_lettered_total{hello,numbers,2.0.0}", 4)
	await(t, reg, "reeve_tasks_completed_total{hello,numbers,2.0.0}", 4)
	await(t, reg, "reeve_tasks_failed_total{strict,numbers,1.0.0}", 3)
	got := await(t, reg, "reeve_tasks_completed_total{strict,numbers,1.0.0}", 4)
	for name, want := range map[string]float64{
		"reeve_tasks_received_total{hello,numbers,2.0.0}":      8,
		"reeve_tasks_completed_total{hello,numbers,2.0.0}":     4,
		"reeve_tasks_retried_total{hello,numbers,2.0.0}":       4,
		"reeve_tasks_dead_lettered_total{hello,numbers,2.0.0}": 4,
		"reeve_tasks_failed_total{hello,numbers,2.0.0}":        0,
		"reeve_tasks_rejected_total{hello,numbers,2.0.0}":      0,

		"reeve_tasks_received_total{strict,numbers,1.0.0}":      8,
		"reeve_tasks_completed_total{strict,numbers,1.0.0}":     4,
		"reeve_tasks_retried_total{strict,numbers,1.0.0}":       4,
		"reeve_tasks_dead_lettered_total{strict,numbers,1.0.0}": 0,
		"reeve_tasks_failed_total{strict,numbers,1.0.0}":        3,
		"reeve_tasks_rejected_total{strict,numbers,1.0.0}":      1,

		"reeve_worker_attempts_total{hello,completed,numbers,2.0.0}": 4,
		"reeve_worker_attempts_total{hello,failed,numbers,2.0.0}":    4,
		"reeve_worker_attempts_total{hello,crashed,numbers,2.0.0}":   3,
		"reeve_worker_attempts_total{hello,timed_out,numbers,2.0.0}": 0,
		"reeve_worker_attempt_duration_seconds{hello,numbers,2.0.0}": 11,
		"reeve_worker_partitions{hello,numbers}":                     8,
		"reeve_worker_running{hello,numbers}":                        0,
		"reeve_worker_held{hello,numbers}":                           0,
		"reeve_worker_overdue{hello,numbers}":                        0,
		"reeve_worker_serving{hello,numbers}":                        1,
		"reeve_worker_ready{}":                                       1,
	} {
		if is, ok := got[name]; !ok || is != want {
			t.Errorf("%s is %v, not %v", name, is, want)
		}
	}
	if t.Failed() {
		for _, name := range slices.Sorted(maps.Keys(got)) {
			t.Log(name, got[name])
		}
	}
}

func TestWhatIsUnderWayShows(t *testing.T) {
	reeve := agenttest.Start(t)
	begun, goOn := make(chan bool), make(chan bool)
	r := reeve.Run(agent.Agent{Topic: "numbers", Name: "slow", Handler: agent.Handle(func(context.Context, agent.Event[int]) (any, error) {
		begun <- true
		<-goOn
		return nil, nil
	})})
	reg := registered(t, r)
	p := reeve.Publish("numbers", 1)
	<-begun
	got := scrape(t, reg)
	if got["reeve_worker_running{slow,numbers}"] != 1 || got["reeve_worker_held{slow,numbers}"] != 1 || got["reeve_worker_attempts_total{slow,completed,numbers,1.0.0}"] != 0 {
		t.Error(got)
	}
	close(goOn)
	p.Outcome("slow")
	await(t, reg, "reeve_worker_held{slow,numbers}", 0)
	if err := r.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	got = scrape(t, reg)
	if got["reeve_worker_ready{}"] != 0 || got["reeve_worker_serving{slow,numbers}"] != 0 || got["reeve_worker_partitions{slow,numbers}"] != 0 || got["reeve_tasks_completed_total{slow,numbers,1.0.0}"] != 1 {
		t.Error(got)
	}
}

func TestAnAlertIsCounted(t *testing.T) {
	reeve := agenttest.Start(t)
	told := make(chan agent.Alert, 10)
	o := reeve.Options()
	o.OnAlert = func(a agent.Alert) { told <- a }
	goOn := make(chan bool)
	r := reeve.RunWith(o, agent.Agent{Topic: "numbers", Name: "deaf", RequestTimeout: 100 * time.Millisecond, Handler: agent.Handle(func(context.Context, agent.Event[int]) (any, error) {
		<-goOn
		return nil, nil
	})})
	defer close(goOn)
	reg := registered(t, r)
	reeve.Publish("numbers", 1)
	select {
	case a := <-told:
		if n := scrape(t, reg)["reeve_worker_alerts_total{deaf,"+a.Kind+",numbers}"]; a.Kind != "attempts_overdue" || n != 1 {
			t.Errorf("%+v: %v", a, n)
		}
	case <-time.After(time.Minute):
		t.Fatal("no alert")
	}
}

func TestOneRunnerIsRegisteredOnce(t *testing.T) {
	r, err := agent.NewRunner(agent.Options{Node: "n", Environ: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	reg := registered(t, r)
	if err := reg.Register(agentprom.NewCollector(r)); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		t.Error(err)
	}
	if got := scrape(t, reg); len(got) != 1 || got["reeve_worker_ready{}"] != 0 {
		t.Errorf("before it runs: %v", got)
	}
}
