package dispatch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/dispatcher/internal/deliver"
)

// Metrics are the dispatcher's figures for Prometheus.
type Metrics struct {
	routedTotal *prometheus.CounterVec
	overTotal   *prometheus.CounterVec
	movedTotal  *prometheus.CounterVec
	lag         *prometheus.GaugeVec
	unsettled   *prometheus.GaugeVec
	Webhooks    *deliver.Metrics
}

// NewMetrics registers the figures.
func NewMetrics(r prometheus.Registerer) *Metrics {
	agent := []string{"topic", "agent"}
	m := &Metrics{
		routedTotal: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "reeve_dispatcher_routed_total", Help: "Events that this dispatcher routed to an agent's task topic."}, agent),
		overTotal:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "reeve_dispatcher_filtered_total", Help: "Events that this dispatcher passed over: the agent's filter isn't true of them, or it skips their type."}, agent),
		movedTotal:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "reeve_dispatcher_retries_due_total", Help: "Due retries that this dispatcher moved on."}, []string{"tier"}),
		lag:         prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "reeve_dispatcher_lag", Help: "Events of the user topic that aren't routed yet, on this dispatcher's partitions."}, agent),
		unsettled:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "reeve_dispatcher_unsettled", Help: "Tasks on the task topic that aren't settled, as this dispatcher sees it."}, agent),
	}
	m.Webhooks = deliver.NewMetrics(r)
	r.MustRegister(m.routedTotal, m.overTotal, m.movedTotal, m.lag, m.unsettled)
	return m
}

func (m *Metrics) routed(a *spec.Agent) (routed, over prometheus.Counter) {
	return m.routedTotal.WithLabelValues(a.Topic, a.Name), m.overTotal.WithLabelValues(a.Topic, a.Name)
}

func (m *Metrics) moved(tier time.Duration) prometheus.Counter {
	return m.movedTotal.WithLabelValues(topics.Tier(tier))
}

func (m *Metrics) figures(topic, agent string, lag, unsettled *int64) {
	if lag != nil {
		m.lag.WithLabelValues(topic, agent).Set(float64(*lag))
	}
	if unsettled != nil {
		m.unsettled.WithLabelValues(topic, agent).Set(float64(*unsettled))
	}
}

// forget drops an agent that is gone.
func (m *Metrics) forget(topic, agent string) {
	m.routedTotal.DeleteLabelValues(topic, agent)
	m.overTotal.DeleteLabelValues(topic, agent)
	m.lag.DeleteLabelValues(topic, agent)
	m.unsettled.DeleteLabelValues(topic, agent)
}
