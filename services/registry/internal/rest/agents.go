package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
)

// admin is the one who has the key. There is one key, so there is one name.
var admin = agents.Actor{Name: "admin"}

// ListAgents lists agents by topic and name.
func (s *Server) ListAgents(ctx context.Context, r api.ListAgentsRequestObject) (api.ListAgentsResponseObject, error) {
	limit, err := pageSize(r.Params.PageSize)
	if err != nil {
		return nil, err
	}
	switch r.Params.Phase {
	case "", spec.Created, spec.Initialized, spec.Active, spec.Paused, spec.Terminated, spec.Error:
	default:
		return nil, badRequest("invalid_request", "use created, initialized, active, paused, error or, with all, terminated", "the phase %q is unknown", r.Params.Phase)
	}
	f := agents.Filter{Topic: r.Params.Topic, Phase: r.Params.Phase, Deleted: r.Params.All, Limit: limit + 1}
	if err := readToken(r.Params.PageToken, &f.After); err != nil {
		return nil, err
	}
	rows, err := s.Agents.List(ctx, f)
	if err != nil {
		return nil, err
	}
	out := api.ListAgents200JSONResponse{Items: []api.Agent{}}
	if len(rows) > limit {
		rows = rows[:limit]
		last := rows[limit-1]
		out.NextPageToken = pageToken([2]string{last.Topic, last.Name})
	}
	live := s.Fleet.View(s.Now())
	all, err := s.figures(ctx, r.Params.Topic, "")
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		of := all[row.Ref()]
		a := agentOf(row, live.Agents[row.Ref()], &of)
		s.outlook(&a)
		out.Items = append(out.Items, a)
	}
	return out, nil
}

// GetAgent gives one agent.
func (s *Server) GetAgent(ctx context.Context, r api.GetAgentRequestObject) (api.GetAgentResponseObject, error) {
	a, err := s.oneAgent(ctx, r.Topic, r.Name)
	if err != nil {
		return nil, err
	}
	return api.GetAgent200JSONResponse{Body: a, Headers: api.GetAgent200ResponseHeaders{ETag: etag(a.Generation)}}, nil
}

func (s *Server) oneAgent(ctx context.Context, topic, name string) (api.Agent, error) {
	row, err := s.Agents.Get(ctx, topic, name)
	if err != nil {
		return api.Agent{}, err
	}
	all, err := s.figures(ctx, topic, name)
	if err != nil {
		return api.Agent{}, err
	}
	of := all[row.Ref()]
	a := agentOf(row, s.live(row.Ref()), &of)
	s.outlook(&a)
	lost, err := s.Reports.LostOf(ctx, topic, name)
	if err != nil {
		return api.Agent{}, err
	}
	for _, l := range lost {
		r := api.LostRange{Partition: l.Partition, Last: l.Next - 1, At: l.At.UTC()}
		if l.First >= 0 {
			r.First = &l.First
		}
		a.Lost = append(a.Lost, r)
	}
	return a, nil
}

// outlook adds what retention will do to the events that wait.
func (s *Server) outlook(a *api.Agent) {
	o := s.Outlook(a.Topic + "/" + a.Name)
	a.OldestWaitingAt, a.ExpiresAt, a.Overtaken = utc(o.OldestAt), utc(o.ExpiresAt), o.Gone
}

// RegisterAgent registers what the body says.
func (s *Server) RegisterAgent(ctx context.Context, r api.RegisterAgentRequestObject) (api.RegisterAgentResponseObject, error) {
	c, err := s.registerOne(ctx, *r.Body, agents.ApplyOptions{DryRun: r.Params.DryRun, Actor: admin})
	if err != nil {
		return nil, err
	}
	tag := etag(c.After.Generation)
	if c.Action == agents.Created && !r.Params.DryRun {
		return api.RegisterAgent201JSONResponse{Body: s.changeOf(c, false), Headers: api.RegisterAgent201ResponseHeaders{ETag: tag}}, nil
	}
	return api.RegisterAgent200JSONResponse{Body: s.changeOf(c, r.Params.DryRun), Headers: api.RegisterAgent200ResponseHeaders{ETag: tag}}, nil
}

// PutAgent registers what the body says under the path's name.
func (s *Server) PutAgent(ctx context.Context, r api.PutAgentRequestObject) (api.PutAgentResponseObject, error) {
	m, err := match(r.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	entry, err := underPath(*r.Body, r.Topic, r.Name)
	if err != nil {
		return nil, err
	}
	c, err := s.registerOne(ctx, entry, agents.ApplyOptions{DryRun: r.Params.DryRun, Match: m, Actor: admin})
	if err != nil {
		return nil, err
	}
	tag := etag(c.After.Generation)
	if c.Action == agents.Created && !r.Params.DryRun {
		return api.PutAgent201JSONResponse{Body: s.changeOf(c, false), Headers: api.PutAgent201ResponseHeaders{ETag: tag}}, nil
	}
	return api.PutAgent200JSONResponse{Body: s.changeOf(c, r.Params.DryRun), Headers: api.PutAgent200ResponseHeaders{ETag: tag}}, nil
}

func (s *Server) registerOne(ctx context.Context, entry json.RawMessage, o agents.ApplyOptions) (agents.Change, error) {
	changes, err := s.apply(ctx, []json.RawMessage{entry}, o)
	if err != nil {
		return agents.Change{}, err
	}
	return changes[0], nil
}

// apply registers entries, and makes the topics that they name where this registry does that. A topic that can't be made
// doesn't undo a registration that stands: the agent shows that it is missing.
func (s *Server) apply(ctx context.Context, entries []json.RawMessage, o agents.ApplyOptions) ([]agents.Change, error) {
	changes, err := s.Agents.Apply(ctx, entries, o)
	if err != nil || o.DryRun || !s.Bus.Creates() {
		return changes, err
	}
	for _, c := range changes {
		if c.After.Phase != spec.Active {
			continue
		}
		if err := s.Bus.EnsureTopic(ctx, c.After.Topic); err != nil {
			s.Logger.Warn("an agent's topic could not be made", slog.String("topic", c.After.Topic), slog.Any("error", err))
		}
	}
	return changes, nil
}

// underPath puts the path's topic and name into an entry that leaves them out, and refuses others.
func underPath(entry json.RawMessage, topic, name string) (json.RawMessage, error) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(entry, &keys) != nil || keys == nil {
		return entry, nil // the reader of entries says what is wrong with it
	}
	for key, want := range map[string]string{"topic": topic, "name": name} {
		quoted, err := json.Marshal(want)
		if err != nil {
			return nil, fmt.Errorf("encode the path's %s: %w", key, err)
		}
		var given string
		if raw, ok := keys[key]; ok && (json.Unmarshal(raw, &given) != nil || given != want) {
			return nil, badRequest("invalid_request", "leave it out, or make them the same", "%s is %s in the body and %q in the path", key, raw, want)
		}
		keys[key] = quoted
	}
	return json.Marshal(keys)
}

// ApplyAgents registers a whole file.
func (s *Server) ApplyAgents(ctx context.Context, r api.ApplyAgentsRequestObject) (api.ApplyAgentsResponseObject, error) {
	if r.Body.Agents == nil {
		return nil, badRequest("invalid_request", "list them; [] is none, and with prune that is the end of all there are", "agents is missing")
	}
	if len(r.Body.Agents) > 1000 {
		return nil, badRequest("invalid_request", "apply them in several files, without prune", "%d agents are more than 1000 at once", len(r.Body.Agents))
	}
	if len(r.Body.Keep) > 0 && !r.Body.Prune {
		return nil, badRequest("invalid_request", "set prune too, or leave keep out", "keep is about prune, which is not set")
	}
	for i, ref := range r.Body.Keep { // one that is mistyped would be deleted
		if _, _, err := splitRef(ref); err != nil {
			return nil, badRequest("invalid_request", "write topic/name", "keep[%d]: %q names no agent", i, ref)
		}
	}
	changes, err := s.apply(ctx, r.Body.Agents, agents.ApplyOptions{DryRun: r.Params.DryRun, Prune: r.Body.Prune, Keep: r.Body.Keep, List: true, Actor: admin})
	if err != nil {
		return nil, err
	}
	out := api.ApplyAgents200JSONResponse{Changes: []api.AgentChange{}, DryRun: r.Params.DryRun}
	for _, c := range changes {
		out.Changes = append(out.Changes, s.changeOf(c, r.Params.DryRun))
	}
	return out, nil
}

// GetAgentHistory lists an agent's moves.
func (s *Server) GetAgentHistory(ctx context.Context, r api.GetAgentHistoryRequestObject) (api.GetAgentHistoryResponseObject, error) {
	limit, err := pageSize(r.Params.PageSize)
	if err != nil {
		return nil, err
	}
	var below int64
	if err := readToken(r.Params.PageToken, &below); err != nil {
		return nil, err
	}
	moves, err := s.Agents.History(ctx, r.Topic, r.Name, below, limit+1)
	if err != nil {
		return nil, err
	}
	if len(moves) == 0 && below == 0 {
		return nil, agents.ErrNotFound
	}
	out := api.GetAgentHistory200JSONResponse{Items: []api.Move{}}
	if len(moves) > limit {
		moves = moves[:limit]
		out.NextPageToken = pageToken(moves[limit-1].ID)
	}
	for _, m := range moves {
		move := api.Move{At: m.At.UTC(), Action: m.Action, Phase: m.Phase, Generation: m.Generation, Actor: m.Actor, Reason: m.Reason}
		if m.OldPhase != nil {
			move.OldPhase = *m.OldPhase
		}
		out.Items = append(out.Items, move)
	}
	return out, nil
}

func (s *Server) live(ref string) *fleet.Agent { return s.Fleet.View(s.Now()).Agents[ref] }

func (s *Server) changeOf(c agents.Change, dryRun bool) api.AgentChange {
	out := api.AgentChange{Action: api.AgentChangeAction(c.Action), Topic: c.After.Topic, Name: c.After.Name, DryRun: dryRun, Held: c.Held, Warnings: c.Warnings}
	for _, f := range c.Fields {
		out.Fields = append(out.Fields, api.FieldChange{Field: f.Field, Old: f.Old, New: f.New})
	}
	a := agentOf(agents.Row{Agent: c.After}, s.live(c.After.Ref()), nil)
	out.Agent = &a
	return out
}

// agentOf joins an agent's record with what the live nodes say of it, and with its figures,
// which are left out where they are nil.
func agentOf(row agents.Row, live *fleet.Agent, of *figures) api.Agent {
	a := row.Agent
	out := api.Agent{Topic: a.Topic, Name: a.Name, Id: a.ID, Type: a.Type, Phase: a.Phase, Cause: a.Cause, Hold: a.Hold, Description: a.Description,
		Version: a.Version, Tags: a.Tags, Runtime: a.Runtime, Dir: a.Dir, Callback: a.Callback, Command: a.Command, Env: a.Env, Config: a.Config,
		Process: a.Process, Pool: a.Pool, Partitions: a.Partitions, Generation: a.Generation, CreatedAt: a.CreatedAt, RegisteredAt: a.RegisteredAt,
		Filter: a.Filter, Rate: a.Rate, Accepts: a.Accepts, Capabilities: a.Capabilities, OnIncompatible: api.AgentOnIncompatible(a.OnIncompatible),
		Start: a.Start, StartAt: a.StartAt,
		UpdatedAt: a.UpdatedAt, TerminatedAt: a.TerminatedAt, InitializedAt: row.InitializedAt}
	if out.InitializedAt != nil {
		utc := out.InitializedAt.UTC()
		out.InitializedAt = &utc
	}
	if out.Tags == nil {
		out.Tags = []string{}
	}
	out.Waiting, out.Running = of.open(live)
	if live == nil {
		return out
	}
	out.Workers, out.Instances, out.Lag, out.TopicMissing = live.Workers, live.Instances, live.Lag, live.TopicMissing
	out.Problems = problemsOf(live)
	return out
}

func problemsOf(live *fleet.Agent) (out []api.AgentProblem) {
	for _, p := range live.Problems {
		out = append(out, api.AgentProblem{Node: p.Node, State: p.State, Error: p.Error})
	}
	return out
}

// splitRef takes topic/name apart.
func splitRef(ref string) (topic, name string, err error) {
	topic, name, ok := strings.Cut(ref, "/")
	if !ok || topic == "" || name == "" || strings.Contains(name, "/") {
		return "", "", badRequest("invalid_request", "write topic/name", "%q names no agent", ref)
	}
	return topic, name, nil
}
