package rest

import (
	"context"

	"github.com/reeve-run/reeve/services/registry/api"
)

// GetAgentLogs gives lines of an agent's log, also after it was deleted.
func (s *Server) GetAgentLogs(ctx context.Context, r api.GetAgentLogsRequestObject) (api.GetAgentLogsResponseObject, error) {
	limit := 100
	if asked := r.Params.Limit; asked != nil {
		if limit = *asked; limit < 1 || limit > 1000 {
			return nil, badRequest("invalid_request", "give 1 to 1000", "limit %d is out of range", limit)
		}
	}
	if r.Params.After < 0 {
		return nil, badRequest("invalid_request", "give the id of a line, as it came", "after %d is no line", r.Params.After)
	}
	if err := s.known(ctx, r.Topic, r.Name); err != nil {
		return nil, err
	}
	lines, err := s.Reports.Log(ctx, r.Topic, r.Name, r.Params.Instance, r.Params.After, limit)
	if err != nil {
		return nil, err
	}
	out := api.GetAgentLogs200JSONResponse{Items: make([]api.LogLine, len(lines))}
	for i, l := range lines {
		out.Items[i] = api.LogLine{Id: l.ID, Instance: l.Instance, At: l.At.UTC(), Line: l.Line}
	}
	return out, nil
}
