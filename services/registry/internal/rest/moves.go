package rest

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
)

// because is the admin with a reason.
func because(reason string) (agents.Actor, error) {
	if len(reason) > maxReason || !utf8.ValidString(reason) || hasControl(reason) {
		return agents.Actor{}, badRequest("invalid_request", fmt.Sprintf("give one line of at most %d bytes", maxReason), "the reason is no short text")
	}
	return agents.Actor{Name: admin.Name, Reason: reason}, nil
}

const maxReason = 500

// DeleteAgent deletes one agent.
func (s *Server) DeleteAgent(ctx context.Context, r api.DeleteAgentRequestObject) (api.DeleteAgentResponseObject, error) {
	m, err := match(r.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	by, err := because(r.Params.Reason)
	if err != nil {
		return nil, err
	}
	o := agents.DeleteOptions{Group: r.Params.DeleteGroup, DLQ: r.Params.DeleteDlq}
	a, err := s.Agents.Delete(ctx, r.Topic, r.Name, o, m, by)
	if err != nil {
		return nil, err
	}
	return api.DeleteAgent200JSONResponse(s.deletionOf(ctx, a)), nil
}

// DeleteTopicAgents deletes all agents of a topic.
func (s *Server) DeleteTopicAgents(ctx context.Context, r api.DeleteTopicAgentsRequestObject) (api.DeleteTopicAgentsResponseObject, error) {
	by, err := because(r.Params.Reason)
	if err != nil {
		return nil, err
	}
	gone, err := s.Agents.DeleteTopic(ctx, r.Topic, agents.DeleteOptions{Group: r.Params.DeleteGroup, DLQ: r.Params.DeleteDlq}, by)
	if err != nil {
		return nil, err
	}
	out := api.DeleteTopicAgents200JSONResponse{Topic: r.Topic, AgentsDeleted: len(gone), Items: []api.Deletion{}}
	for _, a := range gone {
		out.Items = append(out.Items, s.deletionOf(ctx, a))
	}
	return out, nil
}

func (s *Server) deletionOf(ctx context.Context, a *spec.Agent) api.Deletion {
	d := api.Deletion{Status: api.DeletionStatusDeleted, Topic: a.Topic, Agent: a.Name, Changed: true}
	d.Cleanup.StorageDeleted, d.Cleanup.ConsumerGroupDeleted, d.Cleanup.DlqDeleted = true, a.CleanUp, a.DeleteDLQ
	if !a.CleanUp {
		return d
	}
	live := s.live(a.Ref())
	if all, err := s.figures(ctx, a.Topic, a.Name); err == nil { // the deletion itself is done, with or without its figures
		of := all[a.Ref()]
		waiting, running := of.open(live)
		d.Cleanup.Discards = waiting + running
	}
	if live != nil && live.Lag != nil {
		d.Cleanup.Discards += *live.Lag
	}
	return d
}

// UnsubscribeAgent pauses an agent.
func (s *Server) UnsubscribeAgent(ctx context.Context, r api.UnsubscribeAgentRequestObject) (api.UnsubscribeAgentResponseObject, error) {
	hold := r.Body != nil && r.Body.Hold
	pause := func(ctx context.Context, topic, name string, m agents.Match, by agents.Actor) (*spec.Agent, bool, error) {
		return s.Agents.Unsubscribe(ctx, topic, name, hold, m, by)
	}
	c, err := s.move(ctx, pause, r.Topic, r.Name, r.Params.IfMatch, r.Params.Reason, "agent_already_paused")
	if err != nil {
		return nil, err
	}
	return api.UnsubscribeAgent200JSONResponse{PhaseChangeJSONResponse: c}, nil
}

// UnsubscribeAgentAlias pauses an agent and answers as OmniDaemon does.
func (s *Server) UnsubscribeAgentAlias(ctx context.Context, r api.UnsubscribeAgentAliasRequestObject) (api.UnsubscribeAgentAliasResponseObject, error) {
	if _, _, err := s.Agents.Unsubscribe(ctx, r.Topic, r.Name, false, 0, admin); err != nil {
		return nil, err
	}
	return api.UnsubscribeAgentAlias200JSONResponse{Status: api.Unsubscribed, Topic: r.Topic, Agent: r.Name,
		Message: fmt.Sprintf("agent %s is paused on %s; its group, position and dead letters stay", r.Name, r.Topic)}, nil
}

// decision is one of the store's moves.
type decision func(ctx context.Context, topic, name string, m agents.Match, by agents.Actor) (*spec.Agent, bool, error)

// move makes a move; code says why it changed nothing.
func (s *Server) move(ctx context.Context, decide decision, topic, name, ifMatch, reason, code string) (api.PhaseChangeJSONResponse, error) {
	m, err := match(ifMatch)
	if err != nil {
		return api.PhaseChangeJSONResponse{}, err
	}
	by, err := because(reason)
	if err != nil {
		return api.PhaseChangeJSONResponse{}, err
	}
	a, changed, err := decide(ctx, topic, name, m, by)
	if err != nil {
		return api.PhaseChangeJSONResponse{}, err
	}
	return s.phaseChange(a, changed, code), nil
}

// ResumeAgent makes a paused agent active.
func (s *Server) ResumeAgent(ctx context.Context, r api.ResumeAgentRequestObject) (api.ResumeAgentResponseObject, error) {
	c, err := s.move(ctx, s.Agents.Resume, r.Topic, r.Name, r.Params.IfMatch, r.Params.Reason, "agent_already_active")
	if err != nil {
		return nil, err
	}
	return api.ResumeAgent200JSONResponse{PhaseChangeJSONResponse: c}, nil
}

// InitializeAgent makes an agent ready to be started.
func (s *Server) InitializeAgent(ctx context.Context, r api.InitializeAgentRequestObject) (api.InitializeAgentResponseObject, error) {
	c, err := s.move(ctx, s.Agents.Initialize, r.Topic, r.Name, r.Params.IfMatch, r.Params.Reason, "")
	if err != nil {
		return nil, err
	}
	return api.InitializeAgent200JSONResponse{PhaseChangeJSONResponse: c}, nil
}

// StartAgent makes an initialized agent active.
func (s *Server) StartAgent(ctx context.Context, r api.StartAgentRequestObject) (api.StartAgentResponseObject, error) {
	c, err := s.move(ctx, s.Agents.Start, r.Topic, r.Name, r.Params.IfMatch, r.Params.Reason, "agent_already_active")
	if err != nil {
		return nil, err
	}
	return api.StartAgent200JSONResponse{PhaseChangeJSONResponse: c}, nil
}

// StopAgent makes an active agent initialized.
func (s *Server) StopAgent(ctx context.Context, r api.StopAgentRequestObject) (api.StopAgentResponseObject, error) {
	c, err := s.move(ctx, s.Agents.Stop, r.Topic, r.Name, r.Params.IfMatch, r.Params.Reason, "agent_not_running")
	if err != nil {
		return nil, err
	}
	return api.StopAgent200JSONResponse{PhaseChangeJSONResponse: c}, nil
}

// ResetAgent closes an agent's circuits.
func (s *Server) ResetAgent(ctx context.Context, r api.ResetAgentRequestObject) (api.ResetAgentResponseObject, error) {
	c, err := s.move(ctx, s.Agents.Reset, r.Topic, r.Name, r.Params.IfMatch, r.Params.Reason, "")
	if err != nil {
		return nil, err
	}
	return api.ResetAgent200JSONResponse{PhaseChangeJSONResponse: c}, nil
}

// RestartAgent replaces an agent's processes.
func (s *Server) RestartAgent(ctx context.Context, r api.RestartAgentRequestObject) (api.RestartAgentResponseObject, error) {
	c, err := s.move(ctx, s.Agents.Restart, r.Topic, r.Name, r.Params.IfMatch, r.Params.Reason, "")
	if err != nil {
		return nil, err
	}
	return api.RestartAgent200JSONResponse{PhaseChangeJSONResponse: c}, nil
}

func (s *Server) phaseChange(a *spec.Agent, changed bool, code string) api.PhaseChangeJSONResponse {
	if changed {
		code = ""
	}
	return api.PhaseChangeJSONResponse{Headers: api.PhaseChangeResponseHeaders{ETag: etag(a.Generation)},
		Body: api.PhaseChange{Changed: changed, Phase: a.Phase, Code: code, Agent: agentOf(agents.Row{Agent: a}, s.live(a.Ref()), nil)}}
}
