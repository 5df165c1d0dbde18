package rest

import (
	"context"
	"log/slog"
	"time"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
)

const storageLimit = 5 * time.Second

// clearer is who deletes agents with the storage.
var clearer = agents.Actor{Name: admin.Name, Reason: "the storage of agents was cleared"}

// GetStorageHealth says how Postgres is and what it holds: 200 where it answers, else 503.
func (s *Server) GetStorageHealth(ctx context.Context, _ api.GetStorageHealthRequestObject) (api.GetStorageHealthResponseObject, error) {
	ctx, cancel := context.WithTimeout(ctx, storageLimit)
	defer cancel()
	began := time.Now()
	stock, err := s.History.Stock(ctx, s.resultsSince())
	took := time.Since(began)
	var registered int64
	if err == nil {
		registered, err = s.Agents.Count(ctx)
	}
	out := api.StorageHealth{Status: api.StorageHealthStatusHealthy, Backend: api.Postgres, Connected: true, AgentsCount: registered, ResultsCount: stock.Results,
		MetricsCount: stock.Counters, LatencyMs: float64(took.Microseconds()) / 1000, ResultsClearedAt: inUTC(stock.ResultsClearedAt), MetricsClearedAt: inUTC(stock.MetricsClearedAt)}
	if err != nil {
		out = api.StorageHealth{Status: api.StorageHealthStatusUnhealthy, Detail: postgres.Plain(err).Error(), Backend: out.Backend, LatencyMs: out.LatencyMs}
		return api.GetStorageHealth503JSONResponse(out), nil
	}
	return api.GetStorageHealth200JSONResponse(out), nil
}

// resultsSince is when a result must have been settled to be kept now.
func (s *Server) resultsSince() time.Time { return s.Now().Add(-s.ResultsKeep) }

func inUTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return utc(*t)
}

// ClearAgents deletes all agents; their groups and dead letters stay.
func (s *Server) ClearAgents(ctx context.Context, _ api.ClearAgentsRequestObject) (api.ClearAgentsResponseObject, error) {
	n, err := s.clearAgents(ctx)
	return api.ClearAgents200JSONResponse{Status: api.ClearedCleared, AgentsDeleted: n}, err
}

func (s *Server) clearAgents(ctx context.Context) (int64, error) {
	gone, err := s.Agents.DeleteTopic(ctx, "", agents.DeleteOptions{}, clearer)
	s.cleared("agents", int64(len(gone)), err)
	return int64(len(gone)), err
}

// ClearResults deletes all results.
func (s *Server) ClearResults(ctx context.Context, _ api.ClearResultsRequestObject) (api.ClearResultsResponseObject, error) {
	n, err := s.clearResults(ctx)
	return api.ClearResults200JSONResponse{Status: api.ClearedCleared, ResultsDeleted: n}, err
}

// clearResults hides the results and then deletes them on Kafka. Where Kafka doesn't answer they are hidden all the same,
// and the next time, or age, deletes them.
func (s *Server) clearResults(ctx context.Context) (int64, error) {
	n, below, err := s.History.ClearResults(ctx, s.resultsSince())
	s.cleared("results", n, err)
	if err != nil {
		return 0, err
	}
	if err := s.Bus.ForgetOutcomes(ctx, below); err != nil {
		return 0, &Unreached{err}
	}
	return n, nil
}

// ClearMetrics begins to count anew.
func (s *Server) ClearMetrics(ctx context.Context, _ api.ClearMetricsRequestObject) (api.ClearMetricsResponseObject, error) {
	n, err := s.clearMetrics(ctx)
	return api.ClearMetrics200JSONResponse{Status: api.ClearedCleared, MetricsDeleted: n}, err
}

func (s *Server) clearMetrics(ctx context.Context) (int64, error) {
	n, err := s.History.ClearMetrics(ctx)
	s.cleared("metrics", n, err)
	return n, err
}

// ClearStorage clears everything that the others do, and the settings. What needs Kafka comes first, so that nothing is
// half done for want of it.
func (s *Server) ClearStorage(ctx context.Context, _ api.ClearStorageRequestObject) (api.ClearStorageResponseObject, error) {
	out := api.ClearStorage200JSONResponse{Status: api.ClearedCleared}
	c := &out.DeletedCounts
	for _, step := range []struct {
		n     *int64
		clear func(context.Context) (int64, error)
	}{{&c.Results, s.clearResults}, {&c.Metrics, s.clearMetrics}, {&c.Config, s.clearSettings}, {&c.Agents, s.clearAgents}} {
		var err error
		if *step.n, err = step.clear(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Server) clearSettings(ctx context.Context) (int64, error) {
	n, err := s.Settings.Clear(ctx)
	s.cleared("config", n, err)
	return n, err
}

// cleared notes in the log what somebody has deleted for good.
func (s *Server) cleared(what string, n int64, err error) {
	if err == nil {
		s.Logger.Info("storage cleared", slog.String("what", what), slog.Int64("deleted", n))
	}
}
