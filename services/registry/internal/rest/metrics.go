package rest

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/history"
)

// GetAgentMetrics gives an agent's counters, also after it was deleted.
func (s *Server) GetAgentMetrics(ctx context.Context, r api.GetAgentMetricsRequestObject) (api.GetAgentMetricsResponseObject, error) {
	if err := s.known(ctx, r.Topic, r.Name); err != nil {
		return nil, err
	}
	ref := r.Topic + "/" + r.Name
	dispatched, err := s.Reports.Dispatched(ctx, r.Topic, r.Name)
	if err != nil {
		return nil, err
	}
	versions, err := s.History.Counters(ctx, r.Topic, r.Name)
	if err != nil {
		return nil, err
	}
	since, err := s.History.MetricsSince(ctx)
	if err != nil {
		return nil, err
	}
	m := metricsOf(r.Topic, r.Name, versions, dispatched[ref], s.live(ref))
	m.Since = inUTC(since)
	return api.GetAgentMetrics200JSONResponse(m), nil
}

// ListMetrics lists the counters of all agents.
func (s *Server) ListMetrics(ctx context.Context, r api.ListMetricsRequestObject) (api.ListMetricsResponseObject, error) {
	rows, err := s.Agents.List(ctx, agents.Filter{Topic: r.Params.Topic, Deleted: r.Params.All, Limit: 10_000})
	if err != nil {
		return nil, err
	}
	all, err := s.metrics(ctx, rows)
	if err != nil {
		return nil, err
	}
	return api.ListMetrics200JSONResponse{Items: all}, nil
}

// metrics gives the counters of agents, in their order.
func (s *Server) metrics(ctx context.Context, rows []agents.Row) ([]api.AgentMetrics, error) {
	dispatched, err := s.Reports.Dispatched(ctx, "", "")
	if err != nil {
		return nil, err
	}
	counters, err := s.History.Counters(ctx, "", "")
	if err != nil {
		return nil, err
	}
	by := map[string][]history.AgentCounters{}
	for _, c := range counters {
		by[c.Topic+"/"+c.Name] = append(by[c.Topic+"/"+c.Name], c)
	}
	since, err := s.History.MetricsSince(ctx)
	if err != nil {
		return nil, err
	}
	live := s.Fleet.View(s.Now())
	out := make([]api.AgentMetrics, len(rows))
	for i, row := range rows {
		out[i] = metricsOf(row.Topic, row.Name, by[row.Ref()], dispatched[row.Ref()], live.Agents[row.Ref()])
		out[i].Since = inUTC(since)
	}
	return out, nil
}

// metricsOf sums up an agent's versions. What is finished comes from the outcomes and what was dispatched from the
// dispatchers' commits; both are exact, the latter up to a heartbeat late. Running is what the live nodes said last.
func metricsOf(topic, name string, versions []history.AgentCounters, passed fleet.Passed, live *fleet.Agent) api.AgentMetrics {
	var sum history.Counters
	var latency history.Histogram
	m := api.AgentMetrics{Topic: topic, Name: name, ByVersion: map[string]api.Counters{}}
	for _, v := range versions {
		sum.Add(&v.Counters)
		latency.Merge(v.Latency)
		m.ByVersion[v.Version] = api.Counters{Received: v.Received, Completed: v.Completed, Failed: v.Failed, Retried: v.Retried, DeadLettered: v.DeadLettered,
			Rejected: v.Rejected, Cancelled: v.Cancelled, Discarded: v.Discarded}
	}
	if live != nil {
		m.Lag = live.Lag
	}
	m.Waiting, m.Running = live.Open(passed.Tasks, sum.Finished(), sum.Between())
	m.Filtered = passed.Filtered
	m.Received = sum.Finished() + m.Waiting + m.Running
	m.Completed, m.Failed, m.Retried, m.DeadLettered = sum.Completed, sum.Failed, sum.Retried, sum.DeadLettered
	m.Rejected, m.Cancelled, m.Discarded = sum.Rejected, sum.Cancelled, sum.Discarded
	if n := latency.Count(); n > 0 {
		m.Timings = api.Timings{Count: n, MeanMs: float64(sum.LatencyMS) / float64(n), P50Ms: latency.Quantile(0.5), P90Ms: latency.Quantile(0.9),
			P99Ms: latency.Quantile(0.99), MaxMs: float64(sum.LatencyMax)}
	}
	return m
}

// scrape serves /metrics: Prometheus text, or OmniDaemon's JSON where the client asks for JSON, for a topic or with a
// limit.
func (s *Server) scrape() gin.HandlerFunc {
	text := promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{})
	return func(c *gin.Context) {
		_, topic := c.GetQuery("topic")
		_, limit := c.GetQuery("limit")
		if !topic && !limit && !strings.Contains(c.GetHeader("Accept"), "application/json") {
			text.ServeHTTP(c.Writer, c.Request)
			return
		}
		out, err := s.omniMetrics(c)
		if err != nil {
			s.fail(c, err)
			return
		}
		c.JSON(http.StatusOK, out)
	}
}

type omniCounters struct {
	Received  int64   `json:"tasks_received"`
	Processed int64   `json:"tasks_processed"`
	Failed    int64   `json:"tasks_failed"`
	Total     float64 `json:"total_processing_time"`
	Average   float64 `json:"avg_processing_time_sec"`
}

// omniMetrics sums up agents, deleted ones too, by topic and name. The limit of OmniDaemon's clients is how many of the
// newest rows they want summed up; here every task is in the counters, so a legal one changes nothing.
func (s *Server) omniMetrics(c *gin.Context) (map[string]map[string]omniCounters, error) {
	for key := range c.Request.URL.Query() {
		if key != "topic" && key != "limit" {
			return nil, unknown("the query parameter", key, []string{"topic", "limit"})
		}
	}
	if text, ok := c.GetQuery("limit"); ok {
		if n, err := strconv.Atoi(text); err != nil || n < 1 {
			return nil, badRequest("invalid_request", "give a number from 1, or leave it out: the counters are of all tasks", "limit %q is out of range", text)
		}
	}
	all, err := s.figures(c.Request.Context(), c.Query("topic"), "")
	if err != nil {
		return nil, err
	}
	live := s.Fleet.View(s.Now())
	out := map[string]map[string]omniCounters{}
	for ref, sum := range all {
		waiting, running := sum.open(live.Agents[ref])
		one := omniCounters{Received: sum.Finished() + waiting + running, Processed: sum.Completed, Failed: sum.Failed + sum.DeadLettered + sum.Rejected,
			Total: float64(sum.CompletedMS) / 1000}
		if one.Received == 0 {
			continue
		}
		if one.Processed > 0 {
			one.Average = one.Total / float64(one.Processed)
		}
		topic, name, _ := strings.Cut(ref, "/")
		if out[topic] == nil {
			out[topic] = map[string]omniCounters{}
		}
		out[topic][name] = one
	}
	return out, nil
}

// Collector gives the counters to Prometheus. Every counter is of outcomes that have ever been, so that none falls, except to
// nothing when the counters are cleared: received counts a task from its first outcome on, and one that is redriven counts
// once for each of its rounds that are finished, where REST has it by the latest only.
type Collector struct {
	History *history.Store
	Reports fleet.Store
	Fleet   *fleet.Fleet
}

const collectLimit = 5 * time.Second

var counterNames = []string{"received", "completed", "failed", "retried", "dead_lettered", "rejected", "cancelled", "discarded"}

// Describe says nothing: what there is depends on the agents.
func (Collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the counters. Where the database is away there are none, which Prometheus tells from zero.
func (k Collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectLimit)
	defer cancel()
	versions, err := k.History.Counters(ctx, "", "")
	passed, passedErr := k.Reports.Dispatched(ctx, "", "")
	up := 1.0
	if err != nil || passedErr != nil {
		up = 0
	}
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("reeve_database_up", "Whether the registry's database answers.", nil, nil), prometheus.GaugeValue, up)
	labels := []string{"topic", "agent", "version"}
	for _, v := range versions {
		ever := v.Ever()
		for i, n := range []int64{ever.Received, ever.Completed, ever.Failed, ever.Retried, ever.DeadLettered, ever.Rejected, ever.Cancelled, ever.Discarded} {
			d := prometheus.NewDesc("reeve_tasks_"+counterNames[i]+"_total", "Tasks "+strings.ReplaceAll(counterNames[i], "_", "-")+" (retried: settlements; one that is redriven counts in each round).", labels, nil)
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), v.Topic, v.Name, v.Version)
		}
	}
	filtered := prometheus.NewDesc("reeve_events_filtered_total", "Events that no task was made of: the agent's filter is not true of them, or their type is skipped.", []string{"topic", "agent"}, nil)
	for ref, p := range passed {
		topic, name, _ := strings.Cut(ref, "/")
		out <- prometheus.MustNewConstMetric(filtered, prometheus.CounterValue, float64(p.Filtered), topic, name)
	}
	k.live(out)
}

func (k Collector) live(out chan<- prometheus.Metric) {
	view := k.Fleet.View(time.Now())
	gauge := func(name, help string, value float64, labels []string, values ...string) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue, value, values...)
	}
	for ref, a := range view.Agents {
		topic, name, _ := strings.Cut(ref, "/")
		of := []string{"topic", "agent"}
		gauge("reeve_agent_running", "Attempts in flight.", float64(a.Running()), of, topic, name)
		gauge("reeve_agent_unsettled", "At most so many tasks on the task topic are not settled: markers of transactions count as well.", float64(a.Unsettled()), of, topic, name)
		gauge("reeve_agent_instances", "Processes that run.", float64(a.Instances), of, topic, name)
		gauge("reeve_agent_workers", "Live nodes that serve the agent.", float64(a.Workers), of, topic, name)
		gauge("reeve_agent_outage", "Live nodes that have paused the agent, because its last tasks failed alike and none succeeded.", float64(a.Outages), of, topic, name)
		if a.Lag != nil {
			gauge("reeve_agent_lag", "Events of the user topic that are not routed yet.", float64(*a.Lag), of, topic, name)
		}
	}
	nodes := map[string]int{}
	for _, n := range view.Nodes {
		if n.Alive {
			nodes[n.Service]++
		}
	}
	for service, n := range nodes {
		gauge("reeve_nodes", "Live nodes.", float64(n), []string{"service"}, service)
	}
}

// ListGroups lists the agents' groups on a user topic.
func (s *Server) ListGroups(ctx context.Context, r api.ListGroupsRequestObject) (api.ListGroupsResponseObject, error) {
	if err := named(r.Params.Stream); err != nil {
		return nil, err
	}
	groups, err := s.groups(ctx, r.Params.Stream)
	if err != nil {
		return nil, err
	}
	out := api.ListGroups200JSONResponse{Items: []api.Group{}}
	for _, g := range groups {
		item := api.Group{Name: g.Name, Agent: g.agent, Stream: g.topic, State: g.State, Consumers: g.Consumers, Pending: g.pending, Position: map[string]int64{}}
		for partition, offset := range g.Position {
			item.Position[itoa(partition)] = offset
		}
		out.Items = append(out.Items, item)
	}
	return out, nil
}

// ListInstances lists agents' processes.
func (s *Server) ListInstances(ctx context.Context, r api.ListInstancesRequestObject) (api.ListInstancesResponseObject, error) {
	rows, err := s.Reports.Instances(ctx, r.Params.Topic, r.Params.Name, s.Fleet.View(s.Now()), s.Now())
	if err != nil {
		return nil, err
	}
	out := api.ListInstances200JSONResponse{Items: []api.Instance{}}
	for _, i := range rows {
		out.Items = append(out.Items, api.Instance{Instance: i.Instance, Topic: i.Topic, Name: i.Name, Node: i.Node, State: api.InstanceState(i.State), Health: i.Health,
			Reason: i.Reason, Pid: i.PID, CpuPercent: i.CPUPercent, MemoryMb: i.MemoryMB, LatencyMs: i.LatencyMS, RestartCount: i.RestartCount, UpdatedAt: i.UpdatedAt.UTC()})
	}
	return out, nil
}

// GetOverview gives what the page at / shows.
func (s *Server) GetOverview(ctx context.Context, _ api.GetOverviewRequestObject) (api.GetOverviewResponseObject, error) {
	in, report := s.Health(ctx)
	out := api.GetOverview200JSONResponse{At: s.Now().UTC(), Health: s.healthOf(in, report), Agents: []api.OverviewAgent{}, Tasks: []api.Task{}, DeadLetters: []api.Task{}}
	rows, err := s.Agents.List(ctx, agents.Filter{Limit: 1000})
	if err != nil {
		return nil, err
	}
	all, err := s.metrics(ctx, rows)
	if err != nil {
		return nil, err
	}
	for i, row := range rows {
		a := api.OverviewAgent{Topic: row.Topic, Name: row.Name, Phase: row.Phase, Cause: row.Cause, Version: row.Version, Runtime: row.Runtime, Metrics: all[i]}
		if l := in.Fleet.Agents[row.Ref()]; l != nil {
			a.Workers, a.Instances, a.TopicMissing = l.Workers, l.Instances, l.TopicMissing
			a.Problems = problemsOf(l)
		}
		out.Agents = append(out.Agents, a)
	}
	latest, err := s.History.Latest(ctx, 25)
	if err != nil {
		return nil, err
	}
	dead, err := s.History.Tasks(ctx, history.Filter{Limit: 10, Status: history.DeadLettered})
	if err != nil {
		return nil, err
	}
	out.Tasks, out.DeadLetters = tasksOf(latest), tasksOf(dead)
	return out, nil
}

func tasksOf(rows []history.Attempt) []api.Task {
	out := make([]api.Task, len(rows))
	for i := range rows {
		out[i] = taskOf(&rows[i])
	}
	return out
}
