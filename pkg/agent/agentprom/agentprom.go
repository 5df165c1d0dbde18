// Package agentprom shows the figures of an agent.Runner to Prometheus, in the program's own registry:
//
//	r, err := agent.NewRunner(agent.Options{…})
//	err = registry.Register(agentprom.NewCollector(r))
//
// It asks the Runner when it is scraped and costs nothing besides. All counters are of this program and since its start:
//
//	reeve_tasks_{received,completed,failed,retried,dead_lettered,rejected}_total{topic,agent,version}
//	reeve_worker_attempts_total{topic,agent,version,outcome}
//	reeve_worker_attempt_duration_seconds{topic,agent,version}
//	reeve_worker_alerts_total{topic,agent,kind}
//	reeve_worker_{partitions,running,held,overdue,serving}{topic,agent}
//	reeve_worker_ready
//
// The counters of tasks have the names that the registry has at its /metrics, where they are exact and of the whole
// installation. A query that adds up both counts twice: tell them apart by job, or give the names of this program a prefix
// by prometheus.WrapRegistererWithPrefix. Two Runners in one registry need a label each, by prometheus.WrapRegistererWith.
package agentprom

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/status"
)

// Collector collects what a Runner knows of its agents. It is safe for concurrent use.
type Collector struct {
	runner *agent.Runner
}

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector makes one, at any time of the Runner's life. A Runner has one in a registry.
func NewCollector(r *agent.Runner) *Collector { return &Collector{runner: r} }

var (
	ofVersion = []string{"topic", "agent", "version"}
	ofAgent   = []string{"topic", "agent"}

	received     = prometheus.NewDesc("reeve_tasks_received_total", "Tasks of which this program settled an attempt, and nobody one before.", ofVersion, nil)
	completed    = prometheus.NewDesc("reeve_tasks_completed_total", "Tasks that this program completed.", ofVersion, nil)
	failed       = prometheus.NewDesc("reeve_tasks_failed_total", "Tasks that failed here for good, of an agent without dead letters.", ofVersion, nil)
	retried      = prometheus.NewDesc("reeve_tasks_retried_total", "Attempts here after which the task waits for another one.", ofVersion, nil)
	deadLettered = prometheus.NewDesc("reeve_tasks_dead_lettered_total", "Tasks that this program dead-lettered.", ofVersion, nil)
	rejected     = prometheus.NewDesc("reeve_tasks_rejected_total", "Tasks that were dropped here without a run, of an agent without dead letters.", ofVersion, nil)

	attempts = prometheus.NewDesc("reeve_worker_attempts_total", "Attempts that ended, settled or not.", append(ofVersion[:3:3], "outcome"), nil)
	duration = prometheus.NewDesc("reeve_worker_attempt_duration_seconds", "How long attempts took.", ofVersion, nil)
	alerts   = prometheus.NewDesc("reeve_worker_alerts_total", "Alerts that were raised.", append(ofAgent[:2:2], "kind"), nil)

	partitions = prometheus.NewDesc("reeve_worker_partitions", "Partitions of the task topic that this program owns.", ofAgent, nil)
	running    = prometheus.NewDesc("reeve_worker_running", "Attempts in flight.", ofAgent, nil)
	held       = prometheus.NewDesc("reeve_worker_held", "Tasks read and not settled, the running ones included.", ofAgent, nil)
	overdue    = prometheus.NewDesc("reeve_worker_overdue", "Attempts that have run for twice their time.", ofAgent, nil)
	outage     = prometheus.NewDesc("reeve_worker_outage", "Whether the agent is paused here, because its last tasks failed alike and none succeeded.", ofAgent, nil)
	serving    = prometheus.NewDesc("reeve_worker_serving", "Whether this program serves the agent.", ofAgent, nil)
	ready      = prometheus.NewDesc("reeve_worker_ready", "Whether every agent that is active is served.", nil, nil)
)

// Describe gives all that there can be.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{received, completed, failed, retried, deadLettered, rejected, attempts, duration, alerts, partitions, running, held, overdue, outage, serving, ready} {
		out <- d
	}
}

// Collect asks the Runner.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	for _, f := range c.runner.Figures() {
		collect(out, f)
	}
	gauge(out, ready, truth(c.runner.Healthy() == nil))
}

func collect(out chan<- prometheus.Metric, f agent.Figures) {
	of := []string{f.Topic, f.Name, f.Version}
	counter(out, received, f.Tasks.Received, of...)
	counter(out, completed, f.Tasks.Completed, of...)
	counter(out, failed, f.Tasks.Failed, of...)
	counter(out, retried, f.Tasks.Retried, of...)
	counter(out, deadLettered, f.Tasks.DeadLettered, of...)
	counter(out, rejected, f.Tasks.Rejected, of...)
	for o, n := range f.Attempts {
		counter(out, attempts, n, f.Topic, f.Name, f.Version, string(o))
	}
	out <- prometheus.MustNewConstHistogram(duration, uint64(f.Durations.Count), f.Durations.Sum.Seconds(), buckets(f.Durations.AtMost), of...)
	for kind, n := range f.Alerts {
		counter(out, alerts, n, f.Topic, f.Name, kind)
	}
	of = of[:2]
	gauge(out, partitions, f.Partitions, of...)
	gauge(out, running, f.Running, of...)
	gauge(out, held, f.Held, of...)
	gauge(out, overdue, f.Overdue, of...)
	gauge(out, outage, truth(f.Outage != nil), of...)
	gauge(out, serving, truth(f.State == status.ReportServing), of...)
}

func buckets(atMost map[time.Duration]int64) map[float64]uint64 {
	out := make(map[float64]uint64, len(atMost))
	for bound, n := range atMost {
		out[bound.Seconds()] = uint64(n)
	}
	return out
}

func counter(out chan<- prometheus.Metric, d *prometheus.Desc, n int64, of ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), of...)
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, n int, of ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), of...)
}

func truth(is bool) int {
	if is {
		return 1
	}
	return 0
}
