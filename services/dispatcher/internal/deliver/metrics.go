package deliver

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the figures of webhooks for Prometheus. Endpoints aren't labels: there may be any number of them.
type Metrics struct {
	delivered, retried, failed, deferred, redriven prometheus.Counter
	inFlight, down                                 prometheus.Gauge
	seconds                                        prometheus.Histogram
}

// NewMetrics makes the figures, and registers them unless r is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &Metrics{
		delivered: counter("reeve_webhooks_delivered_total", "Webhooks that an endpoint answered with 2xx."),
		retried:   counter("reeve_webhooks_retried_total", "Tries of webhooks that failed and are to be followed by another."),
		failed:    counter("reeve_webhooks_dead_lettered_total", "Webhooks that were given up."),
		deferred:  counter("reeve_webhooks_deferred_total", "Times that a webhook was put off untried because its endpoint was busy or down."),
		redriven:  counter("reeve_webhooks_redriven_total", "Webhooks that were given up and sent off once more."),
		inFlight:  gauge("reeve_webhooks_in_flight", "Webhooks that wait for an answer."),
		down:      gauge("reeve_webhook_endpoints_failing", "Endpoints that have failed for five minutes and more, as this dispatcher sees them."),
		seconds:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "reeve_webhook_seconds", Help: "How long tries took.", Buckets: []float64{.01, .05, .1, .5, 1, 5, 15, 60}}),
	}
	if r != nil {
		r.MustRegister(m.delivered, m.retried, m.failed, m.deferred, m.redriven, m.inFlight, m.down, m.seconds)
	}
	return m
}

// Redriven counts webhooks that were given up and sent off once more.
func (m *Metrics) Redriven(n int) { m.redriven.Add(float64(n)) }

// settled counts what became of a webhook.
func (m *Metrics) settled(v Verdict) {
	switch {
	case v.Deferred:
	case v.State == Delivered:
		m.delivered.Inc()
	case v.State == Retrying:
		m.retried.Inc()
	default:
		m.failed.Inc()
	}
}
