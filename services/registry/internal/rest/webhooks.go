package rest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
)

// ListDeadWebhooks lists webhooks that were given up.
func (s *Server) ListDeadWebhooks(ctx context.Context, r api.ListDeadWebhooksRequestObject) (api.ListDeadWebhooksResponseObject, error) {
	limit, err := pageSize(r.Params.PageSize)
	if err != nil {
		return nil, err
	}
	var from bus.Place
	if err := readToken(r.Params.PageToken, &from); err != nil {
		return nil, err
	}
	after, err := since(r.Params.Since, s.Now())
	if err != nil {
		return nil, err
	}
	records, next, err := s.Bus.DeadLetters(ctx, "", command.Webhooks, from, limit, func(rec *kgo.Record) bool {
		_, endpoint, _ := route.WebhookURL(rec)
		return (r.Params.Endpoint == "" || endpoint == r.Params.Endpoint) &&
			(r.Params.ErrorClass == "" || route.Header(rec, task.HeaderErrorClass) == r.Params.ErrorClass) && !failedAt(rec).Before(after)
	})
	if err != nil {
		return nil, &Unreached{err}
	}
	out := api.ListDeadWebhooks200JSONResponse{Items: []api.DeadWebhook{}}
	if next != nil {
		out.NextPageToken = pageToken(next)
	}
	for _, rec := range records {
		out.Items = append(out.Items, deadWebhookOf(rec))
	}
	return out, nil
}

// CountDeadWebhooks counts webhooks that were given up by their endpoint.
func (s *Server) CountDeadWebhooks(ctx context.Context, _ api.CountDeadWebhooksRequestObject) (api.CountDeadWebhooksResponseObject, error) {
	g, err := s.Bus.Graves(ctx, "", command.Webhooks)
	if err != nil {
		return nil, &Unreached{err}
	}
	found := map[string]api.DeadWebhookGroup{}
	out := api.CountDeadWebhooks200JSONResponse{Items: []api.DeadWebhookGroup{}}
	out.Complete, err = s.eachDead(ctx, countLimit, g, maxCounted, func(rec *kgo.Record) {
		out.Total++
		w := deadWebhookOf(rec)
		found[w.Endpoint] = countedWebhook(found[w.Endpoint], w)
	})
	if err != nil {
		return nil, err
	}
	out.Items = slices.AppendSeq(out.Items, maps.Values(found))
	slices.SortFunc(out.Items, func(a, b api.DeadWebhookGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return out, nil
}

// countedWebhook adds a webhook to those of its endpoint.
func countedWebhook(g api.DeadWebhookGroup, w api.DeadWebhook) api.DeadWebhookGroup {
	g.Endpoint, g.Count = w.Endpoint, g.Count+1
	if w.Redrives >= deadletter.MaxRedrives {
		g.Guarded++
	}
	if g.Count == 1 || g.LastFailedAt == nil || w.LastFailedAt != nil && w.LastFailedAt.After(*g.LastFailedAt) {
		g.ErrorClass, g.ErrorMessage, g.LastFailedAt = w.ErrorClass, w.ErrorMessage, w.LastFailedAt
	}
	if g.FirstFailedAt == nil || w.FirstFailedAt != nil && w.FirstFailedAt.Before(*g.FirstFailedAt) {
		g.FirstFailedAt = w.FirstFailedAt
	}
	return g
}

// GetDeadWebhook gives one with its body.
func (s *Server) GetDeadWebhook(ctx context.Context, r api.GetDeadWebhookRequestObject) (api.GetDeadWebhookResponseObject, error) {
	g, err := s.Bus.Graves(ctx, "", command.Webhooks)
	if err != nil {
		return nil, &Unreached{err}
	}
	var found *kgo.Record
	looking, enough := context.WithCancel(ctx)
	defer enough()
	_, err = s.Bus.EachDead(looking, g, maxScanned, func(rec *kgo.Record) {
		if found == nil && route.WebhookID(rec) == r.WebhookId {
			found = rec
			enough()
		}
	})
	if found == nil && err != nil {
		return nil, &Unreached{err}
	}
	if found == nil {
		return nil, noDeadWebhook(r.WebhookId)
	}
	w := deadWebhookOf(found)
	out := api.GetDeadWebhook200JSONResponse{WebhookId: w.WebhookId, Endpoint: w.Endpoint, Task: w.Task, Agent: w.Agent, ErrorClass: w.ErrorClass, ErrorMessage: w.ErrorMessage,
		Attempts: w.Attempts, Redrives: w.Redrives, FirstFailedAt: w.FirstFailedAt, LastFailedAt: w.LastFailedAt, Partition: w.Partition, Offset: w.Offset, Body: string(found.Value)}
	for _, h := range found.Headers {
		value, encoding := textOrBase64[api.DeadWebhookDetailHeadersEncoding](h.Value)
		one := struct {
			Encoding api.DeadWebhookDetailHeadersEncoding `json:"encoding,omitempty,omitzero"`
			Key      string                               `json:"key"`
			Value    string                               `json:"value"`
		}{Key: h.Key, Encoding: encoding}
		if value != nil {
			one.Value = *value
		}
		out.Headers = append(out.Headers, one)
	}
	return out, nil
}

func noDeadWebhook(id string) error {
	return notFound(fmt.Sprintf("no webhook %s was given up and is still there", id), "see GET /v1/webhooks/dlq for those there are; one that was redriven or purged isn't there any more")
}

// deadWebhookOf reads a record of the topic of webhooks that were given up.
func deadWebhookOf(rec *kgo.Record) api.DeadWebhook {
	times, _ := route.WebhookRedrives(rec)
	w := api.DeadWebhook{WebhookId: route.WebhookID(rec), Agent: route.Header(rec, task.HeaderAgent), Task: route.Header(rec, task.HeaderOrigin),
		ErrorClass: route.Header(rec, task.HeaderErrorClass), ErrorMessage: route.Header(rec, task.HeaderErrorMessage), Attempts: route.WebhookTries(rec), Redrives: times,
		FirstFailedAt: stamp(route.Header(rec, task.HeaderFirstFailedAt)), LastFailedAt: stamp(route.Header(rec, task.HeaderLastFailedAt)), Partition: rec.Partition, Offset: rec.Offset}
	_, w.Endpoint, _ = route.WebhookURL(rec)
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
