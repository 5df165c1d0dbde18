package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/history"
	"github.com/reeve-run/reeve/services/registry/internal/wishes"
)

const (
	// maxWait is how long a request may wait; it stays below what a request may take.
	maxWait   = 15 * time.Second
	usualWait = 5 * time.Second
	// lookAgain is how often the history is looked at while a request waits.
	lookAgain = 50 * time.Millisecond
	// showWait is how long the history may be behind what was done.
	showWait = 2 * time.Second
)

// waitOf reads how long a request waits.
func waitOf(text string, usual time.Duration) (time.Duration, error) {
	if text == "" {
		return usual, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxWait {
		return 0, badRequest("invalid_request", "give a duration from 0s to 15s, such as 500ms or 10s", "wait %q is no duration up to %s", text, maxWait)
	}
	return d, nil
}

// unfinished are the statuses of a task whose end is to come.
var unfinished = []history.Status{history.Queued, history.Running, history.Retrying}

func isFinished(s api.TaskStatus) bool { return !slices.Contains(unfinished, history.Status(s)) }

// isOpen reports whether a task's latest attempt leaves its end to come.
func isOpen(a *history.Attempt) bool { return slices.Contains(unfinished, a.Status()) }

// isSettled is isFinished for what has an outcome. What is filtered has none; and where the agent's filter has changed, it
// may be a task after all.
func isSettled(s api.TaskStatus) bool { return isFinished(s) && s != api.TaskStatusFiltered }

// asked is a request about a task.
type asked struct {
	topic, name  string
	partition    int32
	offset       int64
	reason, wait string
}

func (a asked) origin() task.Origin {
	return task.Origin{Topic: a.topic, Partition: a.partition, Offset: a.offset}
}

// CancelTask ends a task.
func (s *Server) CancelTask(ctx context.Context, r api.CancelTaskRequestObject) (api.CancelTaskResponseObject, error) {
	a := asked{r.Topic, r.Name, r.Partition, r.Offset, r.Params.Reason, r.Params.Wait}
	out, err := s.cancelTask(ctx, a)
	if err != nil {
		return nil, err
	}
	if out.State != api.TaskControlStateDone {
		return api.CancelTask202JSONResponse(out), nil
	}
	return api.CancelTask200JSONResponse(out), nil
}

func (s *Server) cancelTask(ctx context.Context, a asked) (api.TaskControl, error) {
	t, wait, err := s.wished(ctx, a)
	if err != nil {
		return api.TaskControl{}, err
	}
	if t.Status == api.TaskStatusCancelled {
		return api.TaskControl{Task: t.Id, Agent: t.Agent, State: api.TaskControlStateDone, Message: "it was cancelled before"}, nil
	}
	if isSettled(t.Status) {
		return api.TaskControl{}, finishedAlready(t)
	}
	out, err := s.issue(ctx, a, command.Command{Verb: command.Cancel, Round: t.Redrives}, wait)
	if err != nil {
		return out, err
	}
	// What is done is seen at once; and the answer may have gone to somebody who asked for the same.
	show := time.Duration(0)
	if out.State == api.TaskControlStateDone {
		show = showWait
	}
	t, err = s.untilFinished(ctx, a, show)
	switch {
	case err != nil:
		return out, err
	case t.Status == api.TaskStatusCancelled:
		out.State, out.ExpiresAt = api.TaskControlStateDone, nil
	case isSettled(t.Status):
		return out, finishedAlready(t)
	}
	return out, nil
}

// RetryTask runs a task again.
func (s *Server) RetryTask(ctx context.Context, r api.RetryTaskRequestObject) (api.RetryTaskResponseObject, error) {
	a := asked{r.Topic, r.Name, r.Partition, r.Offset, r.Params.Reason, r.Params.Wait}
	out, err := s.retryTask(ctx, a)
	if err != nil {
		return nil, err
	}
	if out.State != api.TaskControlStateDone {
		return api.RetryTask202JSONResponse(out), nil
	}
	return api.RetryTask200JSONResponse(out), nil
}

func (s *Server) retryTask(ctx context.Context, a asked) (api.TaskControl, error) {
	t, wait, err := s.wished(ctx, a)
	if err != nil {
		return api.TaskControl{}, err
	}
	// The same wish has the same id, so that it is carried out once.
	round := t.Agent + " " + t.Id + " " + strconv.Itoa(t.Redrives)
	switch history.Status(t.Status) {
	case history.Retrying:
		next := t.Attempts + 1
		return s.issue(ctx, a, command.Command{ID: "retry " + round + " " + strconv.Itoa(next), Verb: command.Retry, Round: t.Redrives, Attempt: next}, wait)
	case history.Failed, history.Cancelled, history.Rejected:
		out, err := s.issue(ctx, a, command.Command{ID: "reopen " + round, Verb: command.Reopen, Round: t.Redrives}, wait)
		return s.reopened(ctx, a, t.Redrives, out, err)
	case history.DeadLettered:
		out, err := s.redriveTask(ctx, t, a.reason, wait)
		return s.reopened(ctx, a, t.Redrives, out, err)
	case history.Queued, history.Running:
		return api.TaskControl{}, &bad{status: http.StatusConflict, code: "task_not_waiting", detail: fmt.Sprintf("the task %s is %s: its attempt isn't over", t.Id, t.Status),
			remedy: "wait for its outcome, or cancel it first"}
	}
	return api.TaskControl{}, finishedAlready(t)
}

// reopened is the answer to who opened the round after one. It waits until the history shows it, so that who asks about the
// task next hears of that round, unless the history is behind.
func (s *Server) reopened(ctx context.Context, a asked, after int, out api.TaskControl, err error) (api.TaskControl, error) {
	if err != nil || out.State != api.TaskControlStateDone || !out.Changed {
		return out, err
	}
	limit := time.NewTimer(showWait)
	defer limit.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		rows, err := s.History.Task(ctx, a.topic, a.name, a.partition, a.offset)
		if err != nil || len(rows) > 0 && rows[len(rows)-1].Redrives > after {
			return out, err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return out, nil
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
}

// redriveTask opens the next round of a dead letter.
func (s *Server) redriveTask(ctx context.Context, t *api.TaskDetail, reason string, wait time.Duration) (api.TaskControl, error) {
	accepted, ok, err := s.redrive(ctx, t.Topic, t.Name, api.RedriveRequest{Origin: t.Id}, reason)
	if err != nil {
		return api.TaskControl{}, err
	}
	out := api.TaskControl{Task: t.Id, Agent: t.Agent, State: api.TaskControlStateDone, Message: "its dead letter was redriven before"}
	if !ok {
		return out, nil
	}
	out.Changed, out.CommandId = true, accepted.Id
	limit := time.NewTimer(wait)
	defer limit.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		o, err := s.Orders.Get(ctx, t.Topic, t.Name, accepted.Id)
		switch {
		case err != nil:
			return out, err
		case o.Moved > 0:
			out.Message = "its dead letter is redriven"
			return out, nil
		case o.Ended() && o.State != status.OrderDone:
			return out, &bad{status: http.StatusConflict, code: "task_refused", detail: o.Reason, remedy: "see GET /v1/dlq/" + t.Topic + "/" + t.Name + "/orders/" + o.ID}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return out, ctx.Err()
		case <-limit.C:
			out.State, out.Message = api.TaskControlStatePending, "Kafka has it, and no dispatcher has carried it out yet"
			if o.Reason != "" {
				out.State, out.Message = api.TaskControlStateAccepted, o.Reason
			}
			return out, nil
		}
	}
}

// wished reads what is asked of a task, and how it stands.
func (s *Server) wished(ctx context.Context, a asked) (*api.TaskDetail, time.Duration, error) {
	if _, err := because(a.reason); err != nil {
		return nil, 0, err
	}
	wait, err := waitOf(a.wait, usualWait)
	if err != nil {
		return nil, 0, err
	}
	t, err := s.taskNow(ctx, a)
	return t, wait, err
}

// at is where a task is shown.
func at(t *api.TaskDetail) string {
	return fmt.Sprintf("GET /v1/tasks/%s/%s/%d/%d", t.Topic, t.Name, t.Partition, t.Offset)
}

func finishedAlready(t *api.TaskDetail) error {
	return &bad{status: http.StatusConflict, code: "task_finished", detail: fmt.Sprintf("the task %s is %s already", t.Id, t.Status),
		remedy: "see its outcome at " + at(t) + "; publish the event again where it should run once more"}
}

// taskNow is the task as it stands.
func (s *Server) taskNow(ctx context.Context, a asked) (*api.TaskDetail, error) {
	answer, err := s.GetTask(ctx, api.GetTaskRequestObject{Topic: a.topic, Name: a.name, Partition: a.partition, Offset: a.offset})
	if err != nil {
		return nil, err
	}
	t, ok := answer.(api.GetTask200JSONResponse)
	if !ok {
		return nil, fmt.Errorf("read task %s: an answer of the type %T", a.origin().ID(), answer)
	}
	return (*api.TaskDetail)(&t), nil
}

// untilFinished gives a task when it is finished, or as it stands when the wait is over. Between its first and its last
// look it asks the history alone, and whether an event that is passed over has been.
func (s *Server) untilFinished(ctx context.Context, a asked, wait time.Duration) (*api.TaskDetail, error) {
	t, err := s.taskNow(ctx, a)
	if err != nil || isFinished(t.Status) || wait == 0 {
		return t, err
	}
	none, err := s.passesOver(ctx, a)
	if err != nil {
		return nil, err
	}
	limit := time.NewTimer(wait)
	defer limit.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-tick.C:
		case <-limit.C:
			over = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		rows, err := s.History.Task(ctx, a.topic, a.name, a.partition, a.offset)
		if err != nil {
			return nil, err
		}
		over = over || len(rows) > 0 && !isOpen(&rows[len(rows)-1])
		if none && !over {
			if over, _, err = s.Bus.Dispatched(ctx, a.topic, a.name, a.partition, a.offset); err != nil {
				return nil, &Unreached{err}
			}
		}
	}
	return s.taskNow(ctx, a)
}

// issue writes a command about a task and waits for what becomes of it.
func (s *Server) issue(ctx context.Context, a asked, c command.Command, wait time.Duration) (api.TaskControl, error) {
	origin := a.origin()
	id, err := s.Bus.TopicID(ctx, a.topic)
	if err != nil {
		return api.TaskControl{}, &Unreached{err}
	}
	origin.TopicID = id
	c.Topic, c.Agent, c.Task, c.Actor, c.Reason = a.topic, a.name, string(origin.AppendHeader(nil)), admin.Name, a.reason
	if c.ID == "" {
		c.ID = uuid.NewString()
	}
	now := s.Now()
	// It is stored first, since nobody may come across the task for weeks.
	if err := s.Wishes.Add(ctx, c, now); errors.Is(err, wishes.ErrFull) {
		return api.TaskControl{}, &bad{status: http.StatusConflict, code: "too_many_wishes", detail: fmt.Sprintf("%d tasks are to be cancelled or retried that nobody has come across yet: there is no room for more", wishes.Most),
			remedy: "let their agents go on (resume those that are paused); or delete the agent, where all of its tasks are to go"}
	} else if err != nil {
		return api.TaskControl{}, err
	}
	c, result, err := s.Commands.Issue(ctx, c, command.MaxLife, wait)
	if err != nil {
		return api.TaskControl{}, errors.Join(&Unreached{err}, s.Wishes.Drop(context.WithoutCancel(ctx), c.ID))
	}
	out := api.TaskControl{Task: a.origin().ID(), Agent: c.Ref(), State: api.TaskControlStatePending, Changed: true, CommandId: c.ID, ExpiresAt: utc(now.Add(wishes.Longest)),
		Message: "Kafka has it, and nobody has come across the task yet"}
	if result == nil {
		return out, nil
	}
	out.Message = result.Message
	switch result.State {
	case status.CommandDone:
		out.State, out.ExpiresAt = api.TaskControlStateDone, nil
	case status.CommandRefused:
		return out, &bad{status: http.StatusConflict, code: "task_refused", detail: result.Message, remedy: fmt.Sprintf("see the task at GET /v1/tasks/%s/%s/%d/%d", a.topic, a.name, a.partition, a.offset)}
	default:
		out.State = api.TaskControlStateAccepted
	}
	return out, nil
}
