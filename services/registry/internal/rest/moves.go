package rest

import (
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
)

// because is the admin with a reason.
func because(reason string) (agents.Actor, error) {
	if len(reason) > maxReason || !utf8.ValidString(reason) || hasControl(reason) {
		return agents.Actor{}, badRequest("invalid_request", fmt.Sprintf("give one line of at most %d bytes", maxReason), "the reason is no short text")
	}
	return agents.Actor{Name: admin.Name, Reason: reason}, nil
}

const maxReason = 500

// DeleteAgent deletes one agent, or says what would go.
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
	row, err := s.Agents.Get(ctx, r.Topic, r.Name)
	if err == nil && m != 0 && row.Generation != int64(m) {
		err = agents.ErrPrecondition
	}
	if err != nil {
		return nil, err
	}
	deletions, err := s.deletions(ctx, []agents.Row{row}, o)
	if err != nil {
		return nil, err
	}
	if r.Params.DryRun {
		deletions[0].Status = api.DeletionStatusDryRun
	} else {
		if _, err := s.Agents.Delete(ctx, r.Topic, r.Name, o, m, by); err != nil {
			return nil, err
		}
		deletions[0].Changed = true
	}
	return api.DeleteAgent200JSONResponse(deletions[0]), nil
}

// DeleteTopicAgents deletes all agents of a topic, or says what would go.
func (s *Server) DeleteTopicAgents(ctx context.Context, r api.DeleteTopicAgentsRequestObject) (api.DeleteTopicAgentsResponseObject, error) {
	by, err := because(r.Params.Reason)
	if err != nil {
		return nil, err
	}
	o := agents.DeleteOptions{Group: r.Params.DeleteGroup, DLQ: r.Params.DeleteDlq}
	rows, err := s.Agents.List(ctx, agents.Filter{Topic: r.Topic, Limit: maxAgentsLooked})
	if err != nil {
		return nil, err
	}
	deletions, err := s.deletions(ctx, rows, o)
	if err != nil {
		return nil, err
	}
	if r.Params.DryRun {
		for i := range deletions {
			deletions[i].Status = api.DeletionStatusDryRun
		}
	} else {
		gone, err := s.Agents.DeleteTopic(ctx, r.Topic, o, by)
		if err != nil {
			return nil, err
		}
		deletions = happened(deletions, gone, o)
	}
	return api.DeleteTopicAgents200JSONResponse{Topic: r.Topic, AgentsDeleted: len(deletions), Items: deletions}, nil
}

// happened are the deletions of the agents that are gone, of which some may have been registered a moment ago.
func happened(looked []api.Deletion, gone []*spec.Agent, o agents.DeleteOptions) []api.Deletion {
	out := make([]api.Deletion, 0, len(gone))
	for _, a := range gone {
		d := deletionOf(a.Topic, a.Name, o)
		if at := slices.IndexFunc(looked, func(l api.Deletion) bool { return l.Agent == a.Name }); at >= 0 {
			d = looked[at]
		}
		d.Changed = true
		out = append(out, d)
	}
	return out
}

func deletionOf(topic, name string, o agents.DeleteOptions) api.Deletion {
	d := api.Deletion{Status: api.DeletionStatusDeleted, Topic: topic, Agent: name}
	d.Cleanup.StorageDeleted, d.Cleanup.ConsumerGroupDeleted, d.Cleanup.DlqDeleted = true, o.Group, o.DLQ
	return d
}

// countedOneByOne is of how many agents the unread events are read to count them without markers: each needs a reader.
const countedOneByOne = 50

// deletions count what deleting agents would discard, as Kafka has it now.
func (s *Server) deletions(ctx context.Context, rows []agents.Row, o agents.DeleteOptions) ([]api.Deletion, error) {
	var letters map[[2]string]bus.DLQ
	var left map[[2]string]int64
	var groups []bus.Group
	var err error
	if o.DLQ {
		letters, err = s.Bus.DLQs(ctx, refs(rows))
	}
	if o.Group && err == nil {
		if groups, err = s.Bus.Groups(ctx, refs(rows)); err == nil {
			left, err = s.left(ctx, rows)
		}
	}
	if err != nil {
		return nil, &Unreached{err}
	}
	out := make([]api.Deletion, 0, len(rows))
	for i, row := range rows {
		d := deletionOf(row.Topic, row.Name, o)
		ref := [2]string{row.Topic, row.Name}
		d.Cleanup.DeadLetters = letters[ref].Records
		if o.Group {
			unread := groups[i].Behind.Length()
			if len(rows) <= countedOneByOne {
				if unread, err = s.Bus.Count(ctx, groups[i].Behind); err != nil {
					return nil, &Unreached{err}
				}
			}
			d.Cleanup.Discards, d.Cleanup.Unread = left[ref], unread
		}
		out = append(out, d)
	}
	return out, nil
}

// countLimit is how long it is counted what a request is about. Of tasks that a deletion discards there may be more retries
// of others in between than can be read; then the count is the reported one.
const countLimit = 8 * time.Second

// left counts the tasks of agents that aren't finished.
func (s *Server) left(ctx context.Context, rows []agents.Row) (map[[2]string]int64, error) {
	short, cancel := context.WithTimeout(ctx, countLimit)
	defer cancel()
	left, err := s.Bus.Left(short, refs(rows), s.Tiers)
	if err == nil || short.Err() == nil || ctx.Err() != nil {
		return left, err
	}
	all, err := s.figures(ctx, "", "")
	if err != nil {
		return nil, err
	}
	left = map[[2]string]int64{}
	for _, row := range rows {
		of := all[row.Ref()]
		waiting, running := of.open(s.live(row.Ref()))
		left[[2]string{row.Topic, row.Name}] = waiting + running
	}
	return left, nil
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
