package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/settings"
)

// What is here answers under OmniDaemon's paths and with its field names; docs/from-omnidaemon.md has them side by side.

// PublishTask publishes an event.
func (s *Server) PublishTask(ctx context.Context, r api.PublishTaskRequestObject) (api.PublishTaskResponseObject, error) {
	published, err := s.publishOne(ctx, *r.Body)
	return api.PublishTask200JSONResponse{TaskId: published.EventId, Status: api.PublishTask200JSONResponseBodyStatusPublished}, err
}

// ListAgentsByTopic lists all agents.
func (s *Server) ListAgentsByTopic(ctx context.Context, _ api.ListAgentsByTopicRequestObject) (api.ListAgentsByTopicResponseObject, error) {
	rows, err := s.Agents.List(ctx, agents.Filter{Limit: maxAgentsLooked})
	if err != nil {
		return nil, err
	}
	all, err := s.figures(ctx, "", "")
	if err != nil {
		return nil, err
	}
	live := s.Fleet.View(s.Now())
	out := api.ListAgentsByTopic200JSONResponse{}
	for _, row := range rows {
		of := all[row.Ref()]
		out[row.Topic] = append(out[row.Topic], agentOf(row, live.Agents[row.Ref()], &of))
	}
	return out, nil
}

// GetAgentAlias gives one agent.
func (s *Server) GetAgentAlias(ctx context.Context, r api.GetAgentAliasRequestObject) (api.GetAgentAliasResponseObject, error) {
	a, err := s.oneAgent(ctx, r.Topic, r.Name)
	return api.GetAgentAlias200JSONResponse(a), err
}

// DeleteAgentAlias deletes one agent.
func (s *Server) DeleteAgentAlias(ctx context.Context, r api.DeleteAgentAliasRequestObject) (api.DeleteAgentAliasResponseObject, error) {
	done, err := s.DeleteAgent(ctx, api.DeleteAgentRequestObject{Topic: r.Topic, Name: r.Name, Params: api.DeleteAgentParams{DeleteGroup: r.Params.DeleteGroup, DeleteDlq: r.Params.DeleteDlq}})
	if err != nil {
		return nil, err
	}
	return api.DeleteAgentAlias200JSONResponse(done.(api.DeleteAgent200JSONResponse)), nil
}

// DeleteTopicAlias deletes all agents of a topic.
func (s *Server) DeleteTopicAlias(ctx context.Context, r api.DeleteTopicAliasRequestObject) (api.DeleteTopicAliasResponseObject, error) {
	gone, err := s.Agents.DeleteTopic(ctx, r.Topic, agents.DeleteOptions{}, admin)
	return api.DeleteTopicAlias200JSONResponse{Status: api.DeleteTopicAlias200JSONResponseBodyStatusDeleted, Topic: r.Topic, AgentsDeleted: len(gone)}, err
}

// GetConfig gives what was saved under a key.
func (s *Server) GetConfig(ctx context.Context, r api.GetConfigRequestObject) (api.GetConfigResponseObject, error) {
	if err := checkKey(r.Key); err != nil {
		return nil, err
	}
	value, ok, err := s.Settings.Get(ctx, r.Key)
	if err != nil {
		return nil, err
	}
	if !ok {
		if value, err = json.Marshal(r.Params.Default); err != nil {
			return nil, err
		}
	}
	return api.GetConfig200JSONResponse{Key: r.Key, Value: value}, nil
}

// SaveConfig saves a value under a key.
func (s *Server) SaveConfig(ctx context.Context, r api.SaveConfigRequestObject) (api.SaveConfigResponseObject, error) {
	if err := checkKey(r.Key); err != nil {
		return nil, err
	}
	if len(r.Body.Value) == 0 {
		return nil, badRequest("invalid_request", `send {"value": any JSON}`, "value is missing")
	}
	if len(r.Body.Value) > settings.MaxValue {
		return nil, &bad{status: http.StatusRequestEntityTooLarge, code: "too_large", detail: fmt.Sprintf("the value has %d bytes, more than %d", len(r.Body.Value), settings.MaxValue),
			remedy: "save less under a key"}
	}
	err := s.Settings.Save(ctx, r.Key, r.Body.Value)
	if errors.Is(err, settings.ErrFull) {
		return nil, &bad{status: http.StatusConflict, code: "too_many_keys", detail: fmt.Sprintf("there are %d keys already", settings.MaxKeys),
			remedy: "save under a key that is there; DELETE /storage/all clears them, and more"}
	}
	return api.SaveConfig200JSONResponse{Status: api.Saved, Key: r.Key}, err
}

func checkKey(key string) error {
	if key == "" || len(key) > settings.MaxKey || !utf8.ValidString(key) || hasControl(key) {
		return badRequest("invalid_request", fmt.Sprintf("give 1 to %d bytes of text", settings.MaxKey), "%.64q is no key", key)
	}
	return nil
}

func hasControl(text string) bool {
	for _, r := range text {
		if r < ' ' || r == 0x7f {
			return true
		}
	}
	return false
}
