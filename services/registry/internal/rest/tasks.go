package rest

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/history"
)

// ListTasks lists tasks by their latest attempt.
func (s *Server) ListTasks(ctx context.Context, r api.ListTasksRequestObject) (api.ListTasksResponseObject, error) {
	f, err := s.taskFilter(r.Params)
	if err != nil {
		return nil, err
	}
	limit := f.Limit
	f.Limit++
	rows, err := s.History.Tasks(ctx, f)
	if err != nil {
		return nil, err
	}
	out := api.ListTasks200JSONResponse{}
	if len(rows) > limit {
		rows = rows[:limit]
		out.NextPageToken = pageToken(rows[limit-1].ID)
	}
	out.Items = tasksOf(rows)
	return out, nil
}

func (s *Server) taskFilter(p api.ListTasksParams) (history.Filter, error) {
	f := history.Filter{Status: history.Status(p.Status), ErrorClass: p.ErrorClass, CorrelationID: p.CorrelationId}
	var err error
	if f.Limit, err = pageSize(p.PageSize); err != nil {
		return f, err
	}
	if err := readToken(p.PageToken, &f.Below); err != nil {
		return f, err
	}
	if p.Agent != "" {
		if f.Topic, f.Name, err = splitRef(p.Agent); err != nil {
			return f, err
		}
	}
	if p.Origin != "" {
		o, err := task.ParseOrigin(p.Origin)
		if err != nil {
			return f, badRequest("invalid_request", "write topic/partition/offset", "%v", err)
		}
		f.Origin = &o
	}
	switch f.Status {
	case history.Status(api.TaskStatusFiltered):
		return f, badRequest("invalid_request", "see filtered of GET /v1/agents/{topic}/{name}/metrics for how many there are",
			"what is filtered leaves a count alone, so there is no list of it")
	case history.Queued, history.Running:
		return f, badRequest("invalid_request", "see waiting and running of GET /v1/agents/{topic}/{name}/metrics for how many there are",
			"tasks that are %s have no outcome yet, so there is no list of them", f.Status)
	case "", history.Retrying, history.Completed, history.Failed, history.DeadLettered, history.Cancelled, history.Rejected, history.Discarded:
	default:
		return f, badRequest("invalid_request", "use retrying, completed, failed, dead_lettered, cancelled, rejected or discarded", "the status %q is unknown", f.Status)
	}
	f.Since, err = since(p.Since, s.Now())
	return f, err
}

// since reads a time, or a duration back from now.
func since(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if back, err := time.ParseDuration(text); err == nil && back >= 0 {
		return now.Add(-back), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, badRequest("invalid_request", "give a time like 2026-01-31T12:00:00Z, or a duration like 15m", "since %q is neither a time nor a duration", text)
	}
	return at, nil
}

func taskOf(a *history.Attempt) api.Task {
	t := api.Task{Id: origin(a.Topic, a.Partition, a.Offset), Agent: a.Topic + "/" + a.Name, Topic: a.Topic, Name: a.Name, Partition: a.Partition, Offset: a.Offset,
		EventId: a.EventID, Status: api.TaskStatus(a.Status()), Attempts: a.Attempt, Redrives: a.Redrives, Version: a.Version, Node: a.Node(), Instance: a.Instance(),
		CorrelationId: a.CorrelationID, PublishedAt: millis(a.PublishedMS), StartedAt: millis(a.StartedMS), SettledAt: millis(a.SettledMS)}
	if a.Opened() {
		t.SettledAt = nil // it is when the round was opened
		return t
	}
	if a.Status() != history.Completed {
		t.ErrorClass, t.ErrorMessage, t.Fingerprint = a.ErrorClass, a.ErrorMessage, a.Fingerprint
	}
	if a.PublishedMS > 0 {
		t.DurationMs = float64(max(0, a.SettledMS-a.PublishedMS))
	}
	return t
}

func origin(topic string, partition int32, offset int64) string {
	return task.Origin{Topic: topic, Partition: partition, Offset: offset}.ID()
}

// GetTask gives a task with its attempts and its result. It may wait for the task's end.
func (s *Server) GetTask(ctx context.Context, r api.GetTaskRequestObject) (api.GetTaskResponseObject, error) {
	wait, err := waitOf(r.Params.Wait, 0)
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		t, err := s.untilFinished(ctx, asked{topic: r.Topic, name: r.Name, partition: r.Partition, offset: r.Offset}, wait)
		if err != nil {
			return nil, err
		}
		return api.GetTask200JSONResponse(*t), nil
	}
	rows, err := s.History.Task(ctx, r.Topic, r.Name, r.Partition, r.Offset)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return s.unsettledTask(ctx, r)
	}
	last := &rows[len(rows)-1]
	out := detail(taskOf(last))
	for i := range rows {
		if !rows[i].Opened() {
			out.History = append(out.History, attemptOf(&rows[i]))
		}
	}
	if last.Opened() {
		err := s.addRunning(ctx, &out)
		return api.GetTask200JSONResponse(out), err
	}
	s.addProgress(&out)
	if err := s.addResult(ctx, &out, last); err != nil {
		return nil, err
	}
	if err := s.addWebhook(ctx, &out, last); err != nil {
		return nil, err
	}
	return api.GetTask200JSONResponse(out), nil
}

// addRunning says whether a task runs that has settled no attempt of its further round: it does where it tells of it, or
// where nothing of its agent waits.
func (s *Server) addRunning(ctx context.Context, t *api.TaskDetail) error {
	if s.addProgress(t); t.Progress != nil {
		return nil
	}
	all, err := s.figures(ctx, t.Topic, t.Name)
	if err != nil {
		return err
	}
	of := all[t.Agent]
	if waiting, running := of.open(s.live(t.Agent)); waiting == 0 && running > 0 {
		t.Status, t.Attempts = api.TaskStatus(history.Running), 1
	}
	return nil
}

// detail is a task without its history.
func detail(t api.Task) api.TaskDetail {
	return api.TaskDetail{Id: t.Id, Agent: t.Agent, Topic: t.Topic, Name: t.Name, Partition: t.Partition, Offset: t.Offset, EventId: t.EventId, Status: t.Status,
		Attempts: t.Attempts, Redrives: t.Redrives, Version: t.Version, Node: t.Node, Instance: t.Instance, CorrelationId: t.CorrelationId,
		ErrorClass: t.ErrorClass, ErrorMessage: t.ErrorMessage, Fingerprint: t.Fingerprint, PublishedAt: t.PublishedAt, StartedAt: t.StartedAt,
		SettledAt: t.SettledAt, DurationMs: t.DurationMs, ResultState: api.None, History: []api.Attempt{}}
}

func attemptOf(a *history.Attempt) api.Attempt {
	return api.Attempt{Attempt: a.Attempt, Redrives: a.Redrives, Outcome: api.AttemptOutcome(a.Outcome()), Settled: api.AttemptSettled(a.Settled()), Version: a.Version,
		Node: a.Node(), Instance: a.Instance(), ErrorClass: a.ErrorClass, ErrorMessage: a.ErrorMessage, DispatchedAt: millis(a.DispatchedMS),
		StartedAt: millis(a.StartedMS), SettledAt: millis(a.SettledMS)}
}

// addResult reads the result, or the whole error, from where it stands on Kafka, as long as it is kept.
func (s *Server) addResult(ctx context.Context, out *api.TaskDetail, a *history.Attempt) error {
	kept, err := s.History.Kept(ctx, []history.Attempt{*a}, s.resultsSince())
	if err != nil {
		return err
	}
	if len(kept) == 0 {
		out.ResultState = api.Expired
		return nil
	}
	record, err := s.Bus.Outcome(ctx, a.AtPartition, a.AtOffset)
	if err == nil {
		addDeliveries(out, record)
	}
	switch {
	case errors.Is(err, kafka.ErrGone):
		out.ResultState = api.Expired
	case err != nil:
		out.ResultState = api.Unavailable
	case a.Status() == history.Completed:
		out.ResultState, out.Result = api.Available, jsonOrText(record.Value)
	default:
		var e struct {
			Error     string
			ErrorType string `json:"error_type"`
			Traceback string
		}
		if json.Unmarshal(record.Value, &e) == nil {
			out.ErrorType, out.Traceback = e.ErrorType, e.Traceback
			if e.Error != "" {
				out.ErrorMessage = e.Error
			}
		}
	}
	return nil
}

// jsonOrText is a value as JSON: as it is, or as a text where it is none.
func jsonOrText(value []byte) json.RawMessage {
	if len(value) == 0 {
		return json.RawMessage("null")
	}
	if json.Valid(value) {
		return value
	}
	text, err := json.Marshal(string(value))
	if err != nil {
		return json.RawMessage("null")
	}
	return text
}

// unsettledTask answers for a task without an outcome, from where the agent's group stands on Kafka.
func (s *Server) unsettledTask(ctx context.Context, r api.GetTaskRequestObject) (api.GetTaskResponseObject, error) {
	id := origin(r.Topic, r.Partition, r.Offset)
	if _, err := s.Agents.Get(ctx, r.Topic, r.Name); err != nil {
		if errors.Is(err, agents.ErrNotFound) {
			err = notFound("there is no task "+id+" of "+r.Topic+"/"+r.Name, "the agent is not registered; see GET /v1/tasks for the history")
		}
		return nil, err
	}
	dispatched, exists, err := s.Bus.Dispatched(ctx, r.Topic, r.Name, r.Partition, r.Offset)
	if err != nil {
		return nil, &Unreached{err}
	}
	if !exists {
		return nil, notFound("there is no event at "+id, "see what POST /v1/events answered; an event that Kafka has deleted, and whose history is dropped, is gone")
	}
	t := api.Task{Id: id, Agent: r.Topic + "/" + r.Name, Topic: r.Topic, Name: r.Name, Partition: r.Partition, Offset: r.Offset, Status: api.TaskStatus(history.Queued)}
	out := detail(t)
	s.addProgress(&out)
	if live := s.live(t.Agent); out.Progress == nil && dispatched && live != nil && live.Running() > 0 && live.Running() >= live.Unsettled() {
		out.Status, out.Attempts = api.TaskStatus(history.Running), 1
	}
	if dispatched && out.Progress == nil {
		none, err := s.passesOver(ctx, asked{topic: r.Topic, name: r.Name, partition: r.Partition, offset: r.Offset})
		if err != nil {
			return nil, err
		}
		if none {
			out.Status = api.TaskStatusFiltered
		}
	}
	return api.GetTask200JSONResponse(out), nil
}

// passesOver reports whether no task becomes of an event, by the agent's spec as it is now.
func (s *Server) passesOver(ctx context.Context, of asked) (bool, error) {
	row, err := s.Agents.Get(ctx, of.topic, of.name)
	if errors.Is(err, agents.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	gate, err := route.NewGate(row.Agent, compile)
	if err != nil || gate == nil {
		return false, err
	}
	record, err := s.Bus.Event(ctx, of.topic, of.partition, of.offset)
	if errors.Is(err, kafka.ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, &Unreached{err}
	}
	return gate.Decide(record).Over, nil
}

// known is ErrNotFound for an agent that was never registered.
func (s *Server) known(ctx context.Context, topic, name string) error {
	moves, err := s.Agents.History(ctx, topic, name, 0, 1)
	if err == nil && len(moves) == 0 {
		err = agents.ErrNotFound
	}
	return err
}

func atoi(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

func stamp(text string) *time.Time {
	at, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(text))
	if err != nil {
		return nil
	}
	return utc(at)
}

// addProgress adds what the running attempt has told. It is running then, whatever its position says.
func (s *Server) addProgress(t *api.TaskDetail) {
	p, ok := s.Fleet.Progress(t.Agent, t.Id)
	if !ok || isFinished(t.Status) || p.Round < t.Redrives || p.Round == t.Redrives && p.Attempt <= t.Attempts {
		return
	}
	t.Status, t.Attempts = api.TaskStatus(history.Running), p.Attempt
	t.Progress = &api.TaskProgress{Attempt: p.Attempt, Fraction: p.Fraction, Message: p.Message, Node: p.Node, Instance: p.Instance,
		At: time.UnixMilli(int64(p.Timestamp * 1000)).UTC()}
}
