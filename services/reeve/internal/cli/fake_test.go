package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/reeve-run/reeve/internal/version"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/api"
)

// fake is a registry whose interface is made from the same OpenAPI file as the real one's. What a test doesn't set up
// isn't there.
type fake struct {
	api.StrictServerInterface
	mu         sync.Mutex
	agents     map[string]api.Agent
	published  []api.Event
	applied    []string
	prune      bool
	keep       []string
	deleted    []api.DeleteAgentRequestObject
	health     api.HealthStatus
	held       bool
	task       api.TaskStatus
	asked      int // how often a task was asked for
	controlled []string
	progress   *api.TaskProgress
	tasks      []api.Task
	lines      []api.LogLine
	batches    int
	cleared    []string
	resumes    bool
	reason     string
	redrives   []api.RedriveRequest
	resent     []api.WebhookRedriveRequest
	purges     int
	ends       api.DLQOrderState
	back       int64 // of 30 that are redriven
	// onBatch answers the nth batch; nil for the usual answer.
	onBatch func(n, size int) api.PublishEventsResponseObject
	parts   map[string]api.Component
	version string   // that the registry says it has
	keys    []string // every request's Authorization
}

func problem(status int, code string) api.Problem {
	return api.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: "it is " + code, Remediation: "do something"}
}

func (f *fake) ListAgents(_ context.Context, r api.ListAgentsRequestObject) (api.ListAgentsResponseObject, error) {
	list := api.AgentList{Items: []api.Agent{}}
	for _, a := range f.agents {
		if (r.Params.Topic == "" || a.Topic == r.Params.Topic) && (r.Params.Phase == "" || a.Phase == r.Params.Phase) {
			list.Items = append(list.Items, a)
		}
	}
	return api.ListAgents200JSONResponse(list), nil
}

func (f *fake) GetAgentHistory(context.Context, api.GetAgentHistoryRequestObject) (api.GetAgentHistoryResponseObject, error) {
	return api.GetAgentHistory200JSONResponse{Items: []api.Move{{At: time.Unix(0, 0).UTC(), Action: "unsubscribe", OldPhase: spec.Active, Phase: spec.Paused, Generation: 7, Actor: "admin", Reason: "the bank is down"}}}, nil
}

func (f *fake) GetAgent(_ context.Context, r api.GetAgentRequestObject) (api.GetAgentResponseObject, error) {
	a, ok := f.agents[r.Topic+"/"+r.Name]
	if !ok {
		p := problem(404, "agent_not_found")
		p.Instance = "/v1/agents/" + r.Topic + "/" + r.Name
		return api.GetAgentdefaultApplicationProblemPlusJSONResponse{Body: p, StatusCode: 404}, nil
	}
	return api.GetAgent200JSONResponse{Body: a}, nil
}

func (f *fake) ResumeAgent(context.Context, api.ResumeAgentRequestObject) (api.ResumeAgentResponseObject, error) {
	if f.resumes {
		return api.ResumeAgent200JSONResponse{PhaseChangeJSONResponse: api.PhaseChangeJSONResponse{Body: api.PhaseChange{Changed: true, Phase: spec.Active}}}, nil
	}
	return api.ResumeAgentdefaultApplicationProblemPlusJSONResponse{Body: problem(409, "illegal_transition"), StatusCode: 409}, nil
}

func (f *fake) StopAgent(_ context.Context, r api.StopAgentRequestObject) (api.StopAgentResponseObject, error) {
	f.reason = r.Params.Reason
	return api.StopAgent200JSONResponse{PhaseChangeJSONResponse: api.PhaseChangeJSONResponse{Body: api.PhaseChange{Code: "agent_not_running", Phase: spec.Created}}}, nil
}

func (f *fake) StartAgent(_ context.Context, r api.StartAgentRequestObject) (api.StartAgentResponseObject, error) {
	return api.StartAgent200JSONResponse{PhaseChangeJSONResponse: api.PhaseChangeJSONResponse{Body: api.PhaseChange{Changed: true, Phase: spec.Active}}}, nil
}

func (f *fake) InitializeAgent(context.Context, api.InitializeAgentRequestObject) (api.InitializeAgentResponseObject, error) {
	return api.InitializeAgent200JSONResponse{PhaseChangeJSONResponse: api.PhaseChangeJSONResponse{Body: api.PhaseChange{Changed: true, Phase: spec.Initialized}}}, nil
}

func (f *fake) UnsubscribeAgent(_ context.Context, r api.UnsubscribeAgentRequestObject) (api.UnsubscribeAgentResponseObject, error) {
	f.held = r.Body != nil && r.Body.Hold
	return api.UnsubscribeAgent200JSONResponse{PhaseChangeJSONResponse: api.PhaseChangeJSONResponse{
		Body: api.PhaseChange{Changed: true, Phase: spec.Paused, Agent: f.agents[r.Topic+"/"+r.Name]}}}, nil
}

func (f *fake) DeleteAgent(_ context.Context, r api.DeleteAgentRequestObject) (api.DeleteAgentResponseObject, error) {
	a, ok := f.agents[r.Topic+"/"+r.Name]
	if !ok {
		return api.DeleteAgentdefaultApplicationProblemPlusJSONResponse{Body: problem(404, "agent_not_found"), StatusCode: 404}, nil
	}
	if !r.Params.DryRun {
		f.deleted = append(f.deleted, r)
	}
	return api.DeleteAgent200JSONResponse(deletion(a, !r.Params.DryRun)), nil
}

func deletion(a api.Agent, done bool) api.Deletion {
	d := api.Deletion{Status: "deleted", Topic: a.Topic, Agent: a.Name, Changed: done}
	d.Cleanup.Discards = a.Waiting + a.Running
	if a.Lag != nil {
		d.Cleanup.Unread = *a.Lag
	}
	if a.Name == "a" {
		d.Cleanup.DeadLetters = 3
	}
	return d
}

func (f *fake) ListDLQs(context.Context, api.ListDLQsRequestObject) (api.ListDLQsResponseObject, error) {
	return api.ListDLQs200JSONResponse{Items: []api.DLQ{{Topic: "t", Name: "a", DlqTopic: "reeve.dlq.t.a", Records: 3}}}, nil
}

func (f *fake) ApplyAgents(_ context.Context, r api.ApplyAgentsRequestObject) (api.ApplyAgentsResponseObject, error) {
	answer := api.ApplyAgents200JSONResponse{DryRun: r.Params.DryRun, Changes: []api.AgentChange{}}
	f.prune, f.keep = r.Body.Prune, r.Body.Keep
	for _, e := range r.Body.Agents {
		a, _ := spec.ParseEntry(e)
		f.applied = append(f.applied, a.Ref())
		answer.Changes = append(answer.Changes, api.AgentChange{Action: "update", Topic: a.Topic, Name: a.Name, DryRun: r.Params.DryRun,
			Fields: []api.FieldChange{{Field: "config.max_retries", Old: json.RawMessage("3"), New: json.RawMessage("5")}}})
	}
	return answer, nil
}

func (f *fake) PublishEvent(_ context.Context, r api.PublishEventRequestObject) (api.PublishEventResponseObject, error) {
	f.published = append(f.published, *r.Body)
	return api.PublishEvent202JSONResponse{EventId: "e1", Topic: r.Body.Topic, Partition: 1, Offset: 7}, nil
}

func (f *fake) PublishEvents(_ context.Context, r api.PublishEventsRequestObject) (api.PublishEventsResponseObject, error) {
	f.published = append(f.published, r.Body.Events...)
	f.batches++
	if f.onBatch != nil {
		if answer := f.onBatch(f.batches, len(r.Body.Events)); answer != nil {
			return answer, nil
		}
	}
	answer := api.PublishEvents202JSONResponse{Published: len(r.Body.Events), Items: []api.PublishResult{}}
	for i := range r.Body.Events {
		answer.Items = append(answer.Items, api.PublishResult{Published: &api.Published{Topic: "t", Offset: int64(i)}})
	}
	return answer, nil
}

func (f *fake) GetTask(_ context.Context, r api.GetTaskRequestObject) (api.GetTaskResponseObject, error) {
	if f.asked++; f.asked == 1 {
		return api.GetTaskdefaultApplicationProblemPlusJSONResponse{Body: problem(404, "task_not_found"), StatusCode: 404}, nil
	}
	status := f.task
	if f.asked == 2 {
		status = "retrying"
	}
	return api.GetTask200JSONResponse{Id: "t/1/7", Agent: r.Topic + "/" + r.Name, Topic: r.Topic, Name: r.Name, Partition: r.Partition, Offset: r.Offset,
		Status: status, Progress: f.progress, Attempts: 2, Result: json.RawMessage(`{"n":1}`), ResultState: "available", History: []api.Attempt{{Attempt: 1, Outcome: "failed", Settled: "retry"}}}, nil
}

func (f *fake) CancelTask(_ context.Context, r api.CancelTaskRequestObject) (api.CancelTaskResponseObject, error) {
	f.controlled = append(f.controlled, "cancel "+r.Name+" "+r.Params.Reason+" "+r.Params.Wait)
	return api.CancelTask202JSONResponse{Task: "t/1/7", Agent: r.Topic + "/" + r.Name, State: api.TaskControlStatePending, Message: "nobody has come across it", ExpiresAt: new(time.Unix(0, 0))}, nil
}

func (f *fake) RetryTask(_ context.Context, r api.RetryTaskRequestObject) (api.RetryTaskResponseObject, error) {
	f.controlled = append(f.controlled, "retry "+r.Name+" "+r.Params.Reason+" "+r.Params.Wait)
	if r.Params.Reason == "conflict" {
		return api.RetryTaskdefaultApplicationProblemPlusJSONResponse{Body: problem(409, "task_finished"), StatusCode: 409}, nil
	}
	return api.RetryTask200JSONResponse{Task: "t/1/7", Agent: r.Topic + "/" + r.Name, State: api.TaskControlStateDone, Changed: true, Message: "its next attempt is dispatched"}, nil
}

func (f *fake) GetHealth(context.Context, api.GetHealthRequestObject) (api.GetHealthResponseObject, error) {
	h := api.Health{Status: f.health, RegisteredAgents: 3, ActiveConsumers: 2, UptimeSeconds: 8100, Components: map[string]api.Component{"postgres": {Status: "down", Detail: "no answer"}}}
	maps.Copy(h.Components, f.parts)
	if f.health == "running" || f.health == "ready" {
		return api.GetHealth200JSONResponse(h), nil
	}
	return api.GetHealth503JSONResponse(h), nil
}

// result is what a command left.
type result struct {
	code     int
	out, err string
}

// reeve runs a command line against the fake.
func (f *fake) reeve(t *testing.T, input string, args ...string) result {
	t.Helper()
	return f.on(t, System{In: strings.NewReader(input)}, args...)
}

func (f *fake) on(t *testing.T, s System, args ...string) result {
	t.Helper()
	server := httptest.NewServer(f.handler())
	defer server.Close()
	s.Environ = append(s.Environ, "REEVE_URL="+server.URL)
	return execute(context.Background(), s, args...)
}

// handler is the fake's interface over HTTP.
func (f *fake) handler() http.Handler {
	gin.SetMode(gin.TestMode)
	engine := gin.New()
	engine.NoRoute(func(c *gin.Context) {
		c.Header("Content-Type", "application/problem+json")
		c.Status(http.StatusNotFound)
		_ = json.NewEncoder(c.Writer).Encode(problem(http.StatusNotFound, "route_not_found"))
	})
	engine.Use(func(c *gin.Context) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.keys = append(f.keys, c.GetHeader("Authorization"))
		if f.version != "" {
			c.Header(version.Header, f.version)
		}
	})
	api.RegisterHandlers(engine, api.NewStrictHandler(f, []api.StrictMiddlewareFunc{func(next api.StrictHandlerFunc, _ string) api.StrictHandlerFunc {
		return func(c *gin.Context, request any) (any, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return next(c, request)
		}
	}}))
	return engine
}

// execute runs a command line.
func execute(ctx context.Context, s System, args ...string) result {
	var out, errs bytes.Buffer
	s.Out, s.Err = &out, &errs
	if s.Patience == 0 {
		s.Patience = 300 * time.Millisecond
	}
	code := Run(ctx, s, args)
	return result{code, out.String(), errs.String()}
}

func running() api.Agent {
	return api.Agent{Topic: "t", Name: "a", Phase: spec.Active, Version: "1.0.0", Runtime: "python", Workers: 1, Instances: 1, Tags: []string{}, Config: spec.NewConfig("python")}
}

func newFake() *fake {
	return &fake{agents: map[string]api.Agent{"t/a": running()}, health: "running", task: "completed"}
}
