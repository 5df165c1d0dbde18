package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
)

// PublishEvent publishes one event. It may wait for its outcomes; that it is published is the answer in any case.
func (s *Server) PublishEvent(ctx context.Context, r api.PublishEventRequestObject) (api.PublishEventResponseObject, error) {
	wait, err := waitOf(r.Params.Wait, 0)
	if err != nil {
		return nil, err
	}
	published, err := s.publishOne(ctx, *r.Body)
	if err == nil && wait > 0 {
		published.Tasks = s.awaitEvent(ctx, published, wait)
	}
	return api.PublishEvent202JSONResponse(published), err
}

// awaitEvent gives the tasks of an event when all are finished, or as they stand when the wait is over. What can't be
// asked for is left out: the event is published all the same.
func (s *Server) awaitEvent(ctx context.Context, p api.Published, wait time.Duration) []api.TaskDetail {
	rows, err := s.Agents.List(ctx, agents.Filter{Topic: p.Topic, Phase: spec.Active, Limit: maxAwaited})
	if err != nil {
		s.Logger.Warn("look for the agents of a published event", slog.Any("error", err))
		return nil
	}
	found := make([]*api.TaskDetail, len(rows))
	var looking sync.WaitGroup
	for i, row := range rows {
		looking.Go(func() {
			t, err := s.untilFinished(ctx, asked{topic: p.Topic, name: row.Name, partition: p.Partition, offset: p.Offset}, wait)
			if err != nil {
				s.Logger.Warn("wait for the outcome of a published event", slog.String("agent", row.Topic+"/"+row.Name), slog.Any("error", err))
				return
			}
			found[i] = t
		})
	}
	looking.Wait()
	out := []api.TaskDetail{}
	for _, t := range found {
		if t != nil {
			out = append(out, *t)
		}
	}
	return out
}

// maxAwaited is how many agents of a topic are waited for.
const maxAwaited = 100

func (s *Server) publishOne(ctx context.Context, e api.Event) (api.Published, error) {
	ev, faults := s.eventOf(e, "")
	if len(faults) > 0 {
		return api.Published{}, invalidEvent(faults)
	}
	published, err := s.Bus.Publish(ctx, []bus.Event{ev})
	if err != nil {
		return api.Published{}, &Unreached{err}
	}
	if err := published[0].Err; err != nil {
		return api.Published{}, publishError(err)
	}
	return api.Published{EventId: ev.ID, Topic: ev.Topic, Partition: published[0].Partition, Offset: published[0].Offset}, nil
}

// PublishEvents publishes a batch and says of each event what became of it.
func (s *Server) PublishEvents(ctx context.Context, r api.PublishEventsRequestObject) (api.PublishEventsResponseObject, error) {
	if n := len(r.Body.Events); n < 1 || n > 1000 {
		return nil, badRequest("invalid_request", "send 1 to 1000 at once", "a batch of %d events", n)
	}
	events := make([]bus.Event, len(r.Body.Events))
	var faults []api.FieldError
	for i, e := range r.Body.Events {
		ev, fs := s.eventOf(e, fmt.Sprintf("events[%d].", i))
		events[i], faults = ev, append(faults, fs...)
	}
	if len(faults) > 0 {
		return nil, invalidEvent(faults)
	}
	published, err := s.Bus.Publish(ctx, events)
	if err != nil {
		return nil, &Unreached{err}
	}
	out := api.PublishEvents202JSONResponse{Items: make([]api.PublishResult, len(events))}
	for i, p := range published {
		if p.Err != nil {
			problem := problemOf(publishError(p.Err))
			out.Items[i].Error = &problem
			continue
		}
		out.Published++
		out.Items[i].Published = &api.Published{EventId: events[i].ID, Topic: events[i].Topic, Partition: p.Partition, Offset: p.Offset}
	}
	return out, nil
}

func invalidEvent(faults []api.FieldError) error {
	return &bad{status: http.StatusUnprocessableEntity, code: "invalid_event", detail: faults[0].Field + ": " + faults[0].Message,
		remedy: "correct the fields in errors; nothing was published", faults: faults}
}

// maxAttempts is far above what an event can have been tried, and far below what a count of attempts can hold.
const maxAttempts = 1_000_000

// eventOf checks an event and fills in what it leaves out.
func (s *Server) eventOf(e api.Event, prefix string) (bus.Event, []api.FieldError) {
	var faults []api.FieldError
	add := func(field, message string) {
		faults = append(faults, api.FieldError{Field: prefix + field, Message: message})
	}
	topic := strings.TrimSpace(e.Topic)
	if err := spec.CheckTopic(topic); err != nil {
		add("topic", err.Error())
	} else if s.Names.Reserved(topic) {
		add("topic", topic+" is one of Reeve's own topics: name a topic of yours")
	}
	if raw := string(e.Payload.Content); raw == "" || raw == "null" {
		add("payload.content", "is missing: give any JSON but null")
	}
	if reply := e.Payload.ReplyTo; reply != nil {
		if err := spec.CheckTopic(*reply); err != nil {
			add("payload.reply_to", err.Error())
		} else if s.Names.Reserved(*reply) {
			add("payload.reply_to", *reply+" is one of Reeve's own topics: name a topic of yours")
		}
	}
	if webhook := e.Payload.Webhook; webhook != nil {
		if err := spec.CheckWebhook(*webhook); err != nil {
			add("payload.webhook", err.Error())
		}
	}
	checkLengths(e, add)
	out := bus.Event{ID: e.Id, Topic: topic, TenantID: e.TenantId, CorrelationID: e.CorrelationId, CausationID: e.CausationId,
		Source: e.Source, Key: e.Key, DeliveryAttempts: 1, CreatedAt: float64(s.Now().UnixMicro()) / 1e6}
	out.Payload.Content, out.Payload.Webhook, out.Payload.ReplyTo = e.Payload.Content, e.Payload.Webhook, e.Payload.ReplyTo
	if out.ID == "" {
		out.ID = uuid.NewString()
	}
	if e.Type != nil {
		out.Type = *e.Type
	}
	if e.CreatedAt != nil {
		out.CreatedAt = *e.CreatedAt
	}
	if e.DeliveryAttempts != nil {
		if out.DeliveryAttempts = *e.DeliveryAttempts; out.DeliveryAttempts < 1 || out.DeliveryAttempts > maxAttempts {
			add("delivery_attempts", fmt.Sprintf("%d is out of range: give 1 to %d, or leave it out", out.DeliveryAttempts, maxAttempts))
		}
	}
	return out, faults
}

// checkLengths finds fields that are longer than what rides in a header: such an event would be rejected when it is
// dispatched, when its publisher is gone.
func checkLengths(e api.Event, add func(field, message string)) {
	for _, f := range []struct {
		name  string
		value *string
	}{{"id", &e.Id}, {"type", e.Type}, {"tenant_id", e.TenantId}, {"correlation_id", e.CorrelationId}, {"causation_id", e.CausationId}, {"source", e.Source},
		{"payload.webhook", e.Payload.Webhook}} {
		if f.value != nil && len(*f.value) > event.MaxField {
			add(f.name, fmt.Sprintf("has %d bytes: give at most %d", len(*f.value), event.MaxField))
		}
	}
}

func publishError(err error) error {
	var refused *bus.Refused
	if !errors.As(err, &refused) {
		return &Unreached{err}
	}
	status := map[string]int{"event_too_large": http.StatusRequestEntityTooLarge, "topic_not_found": http.StatusNotFound, "topic_denied": http.StatusForbidden}[refused.Code]
	if status == 0 {
		status = http.StatusBadRequest
	}
	return &bad{status: status, code: refused.Code, detail: refused.Message, remedy: refused.Remedy}
}
