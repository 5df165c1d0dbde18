package rest

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
)

// ListDeadWebhooks lists webhooks that were given up.
func (s *Server) ListDeadWebhooks(ctx context.Context, r api.ListDeadWebhooksRequestObject) (api.ListDeadWebhooksResponseObject, error) {
	p := r.Params
	records, next, err := s.letters(ctx, "", command.Webhooks, letterQuery{p.PageSize, p.PageToken, p.Since, p.ErrorClass}, func(rec *kgo.Record) bool {
		return p.Endpoint == "" || endpointOf(rec) == p.Endpoint
	})
	if err != nil {
		return nil, err
	}
	out := api.ListDeadWebhooks200JSONResponse{Items: make([]api.DeadWebhook, len(records)), NextPageToken: next}
	for i, rec := range records {
		out.Items[i] = deadWebhookOf(rec)
	}
	return out, nil
}

// CountDeadWebhooks counts webhooks that were given up by their endpoint.
func (s *Server) CountDeadWebhooks(ctx context.Context, _ api.CountDeadWebhooksRequestObject) (api.CountDeadWebhooksResponseObject, error) {
	all, total, complete, err := s.failures(ctx, "", command.Webhooks, endpointOf, webhookRedrives)
	if err != nil {
		return nil, err
	}
	out := api.CountDeadWebhooks200JSONResponse{Items: make([]api.DeadWebhookGroup, len(all)), Total: total, Complete: complete}
	for i, f := range all {
		out.Items[i] = api.DeadWebhookGroup{Endpoint: f.cause, ErrorClass: f.class, ErrorMessage: f.message, Count: f.count, Guarded: f.guarded, FirstFailedAt: f.first, LastFailedAt: f.last}
	}
	return out, nil
}

// GetDeadWebhook gives one with its body.
func (s *Server) GetDeadWebhook(ctx context.Context, r api.GetDeadWebhookRequestObject) (api.GetDeadWebhookResponseObject, error) {
	found, err := s.letter(ctx, "", command.Webhooks, func(rec *kgo.Record) bool { return route.WebhookID(rec) == r.WebhookId })
	if err == nil && found == nil {
		err = noDeadWebhook(r.WebhookId)
	}
	if err != nil {
		return nil, err
	}
	w := deadWebhookOf(found)
	return api.GetDeadWebhook200JSONResponse{WebhookId: w.WebhookId, Endpoint: w.Endpoint, Task: w.Task, Agent: w.Agent, ErrorClass: w.ErrorClass, ErrorMessage: w.ErrorMessage,
		Attempts: w.Attempts, Redrives: w.Redrives, FirstFailedAt: w.FirstFailedAt, LastFailedAt: w.LastFailedAt, Partition: w.Partition, Offset: w.Offset,
		Body: string(found.Value), Headers: headersOf(found)}, nil
}

func endpointOf(rec *kgo.Record) string {
	_, endpoint, _ := route.WebhookURL(rec)
	return endpoint
}

func webhookRedrives(rec *kgo.Record) int {
	times, _ := route.WebhookRedrives(rec)
	return times
}

func noDeadWebhook(id string) error {
	return notFound(fmt.Sprintf("no webhook %s was given up and is still there", id), "see GET /v1/webhooks/dlq for those there are; one that was redriven or purged isn't there any more")
}

// deadWebhookOf reads a record of the topic of webhooks that were given up.
func deadWebhookOf(rec *kgo.Record) api.DeadWebhook {
	w := api.DeadWebhook{WebhookId: route.WebhookID(rec), Endpoint: endpointOf(rec), Agent: route.Header(rec, task.HeaderAgent), Task: route.Header(rec, task.HeaderOrigin),
		ErrorClass: route.Header(rec, task.HeaderErrorClass), ErrorMessage: route.Header(rec, task.HeaderErrorMessage), Attempts: route.WebhookTries(rec), Redrives: webhookRedrives(rec),
		FirstFailedAt: stamp(route.Header(rec, task.HeaderFirstFailedAt)), LastFailedAt: stamp(route.Header(rec, task.HeaderLastFailedAt)), Partition: rec.Partition, Offset: rec.Offset}
	if o, err := task.ParseOrigin(w.Task); err == nil {
		w.Task = o.ID()
	}
	return w
}

// RedriveDeadWebhooks sends webhooks off once more.
func (s *Server) RedriveDeadWebhooks(ctx context.Context, r api.RedriveDeadWebhooksRequestObject) (api.RedriveDeadWebhooksResponseObject, error) {
	b := r.Body
	o, accepted, err := s.orderWebhooks(ctx, command.Redrive, command.Dead{Webhook: b.WebhookId, Endpoint: b.Endpoint, All: b.All, Force: b.Force}, b.DryRun)
	if err != nil || !accepted {
		return api.RedriveDeadWebhooks200JSONResponse(o), err
	}
	return api.RedriveDeadWebhooks202JSONResponse(o), nil
}

// PurgeDeadWebhooks deletes webhooks.
func (s *Server) PurgeDeadWebhooks(ctx context.Context, r api.PurgeDeadWebhooksRequestObject) (api.PurgeDeadWebhooksResponseObject, error) {
	b := r.Body
	o, accepted, err := s.orderWebhooks(ctx, command.Purge, command.Dead{Webhook: b.WebhookId, Endpoint: b.Endpoint, All: b.All}, b.DryRun)
	if err != nil || !accepted {
		return api.PurgeDeadWebhooks200JSONResponse(o), err
	}
	return api.PurgeDeadWebhooks202JSONResponse(o), nil
}

func (s *Server) orderWebhooks(ctx context.Context, verb command.Verb, dead command.Dead, dryRun bool) (api.DLQOrder, bool, error) {
	if err := oneWay("webhook_id, endpoint and all", dead.Webhook != "", dead.Endpoint != "", dead.All); err != nil {
		return api.DLQOrder{}, false, err
	}
	return s.order(ctx, command.Command{Verb: verb, Agent: command.Webhooks, Actor: admin.Name, Dead: &dead}, dryRun)
}

// ListDeadWebhookOrders lists the latest orders about webhooks.
func (s *Server) ListDeadWebhookOrders(ctx context.Context, _ api.ListDeadWebhookOrdersRequestObject) (api.ListDeadWebhookOrdersResponseObject, error) {
	items, err := s.ordersOf(ctx, "", command.Webhooks)
	if err != nil {
		return nil, err
	}
	return api.ListDeadWebhookOrders200JSONResponse{Items: items}, nil
}

// GetDeadWebhookOrder gives one.
func (s *Server) GetDeadWebhookOrder(ctx context.Context, r api.GetDeadWebhookOrderRequestObject) (api.GetDeadWebhookOrderResponseObject, error) {
	o, err := s.knownOrder(ctx, "", command.Webhooks, r.Id)
	if err != nil {
		return nil, err
	}
	return api.GetDeadWebhookOrder200JSONResponse(dlqOrder(o)), nil
}

// CancelDeadWebhookOrder takes an order back.
func (s *Server) CancelDeadWebhookOrder(ctx context.Context, r api.CancelDeadWebhookOrderRequestObject) (api.CancelDeadWebhookOrderResponseObject, error) {
	o, accepted, err := s.takeBack(ctx, "", command.Webhooks, r.Id, r.Params.Reason)
	if err != nil || !accepted {
		return api.CancelDeadWebhookOrder200JSONResponse(o), err
	}
	return api.CancelDeadWebhookOrder202JSONResponse(o), nil
}
