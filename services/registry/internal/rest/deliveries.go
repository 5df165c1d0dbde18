package rest

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/history"
)

// addDeliveries says what an outcome tells of the reply and the webhook that its event asked for.
func addDeliveries(out *api.TaskDetail, outcome *kgo.Record) {
	out.Reply, out.ReplyReason = api.TaskDetailReply(route.Header(outcome, task.HeaderReply)), route.Header(outcome, task.HeaderReplyReason)
	if state := route.Header(outcome, task.HeaderWebhookState); state != "" {
		out.Webhook = &api.WebhookDelivery{State: api.WebhookDeliveryState(state)}
	}
}

// addWebhook says what dispatchers told of a task's webhook.
func (s *Server) addWebhook(ctx context.Context, out *api.TaskDetail, a *history.Attempt) error {
	w, err := s.Reports.Webhook(ctx, a.Topic, a.Name, a.Partition, a.Offset, a.Redrives)
	if err != nil || w == nil {
		return err
	}
	out.Webhook = &api.WebhookDelivery{State: api.WebhookDeliveryState(w.State), Attempts: w.Attempts, WebhookId: w.WebhookID, Endpoint: w.Endpoint, StatusCode: w.StatusCode,
		ErrorClass: w.ErrorClass, ErrorMessage: w.Error, UpdatedAt: utc(w.UpdatedAt)}
	if w.NextAt != nil {
		out.Webhook.NextAt = utc(*w.NextAt)
	}
	return nil
}
