package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
	"github.com/reeve-run/reeve/services/registry/internal/history"
)

const (
	usualResults   = 100
	maxResults     = 1_000
	resultsAtOnce  = 100      // that are read from Kafka together
	maxResultBytes = 64 << 20 // of one answer
)

// ListResults lists the latest results.
func (s *Server) ListResults(ctx context.Context, r api.ListResultsRequestObject) (api.ListResultsResponseObject, error) {
	limit, err := limited(r.Params.Limit, usualResults, maxResults)
	if err != nil {
		return nil, err
	}
	attempts, err := s.History.Results(ctx, s.resultsSince(), limit)
	if err != nil {
		return nil, err
	}
	out := api.ListResults200JSONResponse{}
	size := 0
	for chunk := range slices.Chunk(attempts, resultsAtOnce) {
		results, err := s.results(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for _, one := range results {
			if size += len(one.Result); size > maxResultBytes {
				return out, nil
			}
			out = append(out, one)
		}
	}
	return out, nil
}

// results joins attempts with what they answered; those whose records are gone are left out.
func (s *Server) results(ctx context.Context, attempts []history.Attempt) ([]api.TaskResult, error) {
	at := make([]bus.Place, 0, len(attempts))
	for _, a := range attempts {
		if !a.Opened() {
			at = append(at, bus.Place{Partition: a.AtPartition, Offset: a.AtOffset})
		}
	}
	records, err := s.Bus.Outcomes(ctx, at)
	if err != nil {
		return nil, &Unreached{err}
	}
	var out []api.TaskResult
	for i := range attempts {
		a := &attempts[i]
		record := records[bus.Place{Partition: a.AtPartition, Offset: a.AtOffset}]
		if record == nil {
			continue
		}
		one := api.TaskResult{TaskId: a.EventID, Result: json.RawMessage("null"), SavedAt: time.UnixMilli(a.SettledMS).UTC(), Status: api.TaskStatus(a.Status()),
			Agent: a.Topic + "/" + a.Name, Origin: origin(a.Topic, a.Partition, a.Offset), Attempts: a.Attempt}
		if a.Status() == history.Completed {
			one.Result = jsonOrText(record.Value)
		} else {
			one.Error, one.ErrorClass = a.ErrorMessage, a.ErrorClass
		}
		out = append(out, one)
	}
	return out, nil
}

// GetResult gives what became of an event.
func (s *Server) GetResult(ctx context.Context, r api.GetResultRequestObject) (api.GetResultResponseObject, error) {
	attempts, err := s.kept(ctx, r.Id)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(attempts, func(a history.Attempt) bool { return !isOpen(&a) }) {
		return nil, noResult(r.Id, len(attempts) > 0)
	}
	results, err := s.results(ctx, attempts)
	if err != nil {
		return nil, err
	}
	var out api.TaskResults
	switch len(results) {
	case 0:
		return nil, noResult(r.Id, false)
	case 1:
		err = out.FromTaskResult(results[0])
	default:
		err = out.FromTaskResults1(results)
	}
	return api.GetResult200JSONResponse(out), err
}

func noResult(id string, retrying bool) error {
	if retrying {
		return &bad{status: http.StatusNotFound, code: "not_found", detail: "the task of event " + id + " has failed and is tried again",
			remedy: "ask again later; GET /v1/tasks shows its attempts"}
	}
	return notFound("there is no result of an event "+id,
		"it may not be settled yet, or its result is kept no longer; GET /v1/tasks has the history")
}

// kept gives the tasks of an event, named by its id or by its origin, whose results are kept, by agent and then the
// newest first.
func (s *Server) kept(ctx context.Context, id string) ([]history.Attempt, error) {
	found, err := s.History.ByEvent(ctx, id)
	if err != nil {
		return nil, err
	}
	if o, err := task.ParseOrigin(id); len(found) == 0 && err == nil {
		if found, err = s.History.Tasks(ctx, history.Filter{Origin: &o, Limit: maxResults}); err != nil {
			return nil, err
		}
	}
	found, err = s.History.Kept(ctx, found, s.resultsSince())
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(found, func(a, b history.Attempt) int { return strings.Compare(a.Topic+"/"+a.Name, b.Topic+"/"+b.Name) })
	return found, nil
}

// DeleteResult deletes an event's results.
func (s *Server) DeleteResult(ctx context.Context, r api.DeleteResultRequestObject) (api.DeleteResultResponseObject, error) {
	attempts, err := s.kept(ctx, r.Id)
	if err != nil {
		return nil, err
	}
	attempts = slices.DeleteFunc(attempts, func(a history.Attempt) bool { return isOpen(&a) })
	if len(attempts) == 0 {
		return nil, noResult(r.Id, false)
	}
	if err := s.History.DeleteResults(ctx, attempts); err != nil {
		return nil, err
	}
	return api.DeleteResult200JSONResponse{Status: api.DeleteResult200JSONResponseBodyStatusDeleted, TaskId: r.Id}, nil
}
