package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/services/registry/api"
)

var deadWebhook = api.DeadWebhook{WebhookId: "msg_6d1f0c7b2a9e4f35", Endpoint: "https://hooks.example.com:443", Task: "orders/0/17", Agent: "orders/hello",
	ErrorClass: "dependency", ErrorMessage: "the endpoint answered 500", Attempts: 7, Redrives: 1}

func (f *fake) ListDeadWebhooks(_ context.Context, r api.ListDeadWebhooksRequestObject) (api.ListDeadWebhooksResponseObject, error) {
	out := api.ListDeadWebhooks200JSONResponse{Items: []api.DeadWebhook{}}
	if r.Params.Endpoint == "" || r.Params.Endpoint == deadWebhook.Endpoint {
		out.Items = append(out.Items, deadWebhook)
	}
	return out, nil
}

func (f *fake) CountDeadWebhooks(context.Context, api.CountDeadWebhooksRequestObject) (api.CountDeadWebhooksResponseObject, error) {
	return api.CountDeadWebhooks200JSONResponse{Total: 3, Items: []api.DeadWebhookGroup{{Endpoint: deadWebhook.Endpoint, ErrorClass: "dependency", ErrorMessage: "the endpoint answered 500", Count: 3, Guarded: 1}}}, nil
}

func (f *fake) GetDeadWebhook(_ context.Context, r api.GetDeadWebhookRequestObject) (api.GetDeadWebhookResponseObject, error) {
	if r.WebhookId != deadWebhook.WebhookId {
		return api.GetDeadWebhookdefaultApplicationProblemPlusJSONResponse{Body: problem(404, "not_found"), StatusCode: 404}, nil
	}
	w := api.DeadWebhookDetail{WebhookId: r.WebhookId, Endpoint: deadWebhook.Endpoint, Task: "orders/0/17", Body: `{"type":"task.completed"}`}
	w.Headers = []api.RecordHeader{{Key: "reeve-webhook", Value: "https://hooks.example.com/in"}}
	return api.GetDeadWebhook200JSONResponse(w), nil
}

// webhooks makes an order about an agent one about webhooks.
func webhooks(o api.DLQOrder) api.DLQOrder {
	o.Topic, o.Name = "", "webhooks"
	return o
}

func (f *fake) RedriveDeadWebhooks(_ context.Context, r api.RedriveDeadWebhooksRequestObject) (api.RedriveDeadWebhooksResponseObject, error) {
	f.resent = append(f.resent, *r.Body)
	if r.Body.DryRun {
		return api.RedriveDeadWebhooks200JSONResponse(webhooks(f.order("redrive", true))), nil
	}
	return api.RedriveDeadWebhooks202JSONResponse(webhooks(f.order("redrive", false))), nil
}

func (f *fake) PurgeDeadWebhooks(_ context.Context, r api.PurgeDeadWebhooksRequestObject) (api.PurgeDeadWebhooksResponseObject, error) {
	if r.Body.DryRun {
		return api.PurgeDeadWebhooks200JSONResponse(webhooks(f.order("purge", true))), nil
	}
	f.purges++
	return api.PurgeDeadWebhooks202JSONResponse(webhooks(f.order("purge", false))), nil
}

func (f *fake) GetDeadWebhookOrder(ctx context.Context, _ api.GetDeadWebhookOrderRequestObject) (api.GetDeadWebhookOrderResponseObject, error) {
	o, err := f.GetDLQOrder(ctx, api.GetDLQOrderRequestObject{})
	return api.GetDeadWebhookOrder200JSONResponse(webhooks(api.DLQOrder(o.(api.GetDLQOrder200JSONResponse)))), err
}

func (f *fake) CancelDeadWebhookOrder(_ context.Context, r api.CancelDeadWebhookOrderRequestObject) (api.CancelDeadWebhookOrderResponseObject, error) {
	if r.Id == "o2" {
		return api.CancelDeadWebhookOrderdefaultApplicationProblemPlusJSONResponse{Body: problem(404, "not_found"), StatusCode: 404}, nil
	}
	return api.CancelDeadWebhookOrder202JSONResponse(webhooks(f.takenBack(r.Id, r.Params.Reason))), nil
}

func (f *fake) ListDeadWebhookOrders(context.Context, api.ListDeadWebhookOrdersRequestObject) (api.ListDeadWebhookOrdersResponseObject, error) {
	o := webhooks(f.order("redrive", false))
	o.Endpoint = deadWebhook.Endpoint
	return api.ListDeadWebhookOrders200JSONResponse{Items: []api.DLQOrder{o}}, nil
}

func TestARedriveOfWebhooksSaysHowItEnds(t *testing.T) {
	f := newFake()
	f.ends, f.back = "done", 5
	got := f.reeve(t, "", "webhook", "redrive", "--all", "--wait")
	if got.code != Done || got.out != "done: 30 of 30 webhooks redriven, 25 delivered, 5 failed again, 2 were redriven too often (--force redrives them too)\n" {
		t.Errorf("%+v", got)
	}
	f.asked, f.ends = 0, "stopped"
	if got = f.reeve(t, "", "webhook", "redrive", "--endpoint", deadWebhook.Endpoint, "--force"); got.code != Failed || !strings.Contains(got.out, "stopped: ") || !strings.Contains(got.out, "10 stay") {
		t.Errorf("%+v", got)
	}
	f.asked, f.ends = 2, "done"
	if got = f.reeve(t, "", "webhook", "redrive", deadWebhook.WebhookId, "-o", "json"); got.code != Done || !strings.Contains(got.out, `"done"`) {
		t.Errorf("%+v", got)
	}
	if got = f.reeve(t, "", "webhook", "redrive", "--all", "--dry-run"); got.code != Done || !strings.HasPrefix(got.out, "30 webhooks would be redriven") {
		t.Errorf("%+v", got)
	}
	want := []api.WebhookRedriveRequest{{All: true}, {Endpoint: deadWebhook.Endpoint, Force: true}, {WebhookId: deadWebhook.WebhookId}, {All: true, DryRun: true}}
	if len(f.resent) != len(want) {
		t.Fatalf("%+v", f.resent)
	}
	for i, w := range want {
		if f.resent[i] != w {
			t.Errorf("%+v, want %+v", f.resent[i], w)
		}
	}
	for _, args := range [][]string{{}, {"msg_1", "--all"}, {"--all", "--endpoint", "e"}, {"msg_1", "msg_2"}, {"--all", "--dry-run", "--wait"}} {
		if got := f.reeve(t, "", append([]string{"webhook", "redrive"}, args...)...); got.code != Usage {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestAPurgeOfWebhooksNamesItsCountAndAsks(t *testing.T) {
	f := newFake()
	f.ends = "done"
	got := f.reeve(t, "", "webhook", "purge", "--all")
	if got.code != Usage || !strings.Contains(got.err, "purging deletes 30 webhooks for ever") || f.purges != 0 {
		t.Errorf("%+v", got)
	}
	if got = f.reeve(t, "", "webhook", "purge", "--all", "--yes"); got.code != Done || f.purges != 1 {
		t.Errorf("%+v", got)
	}
}

func TestWebhooksThatWereGivenUpAreShown(t *testing.T) {
	f := newFake()
	for _, tt := range []struct {
		args  []string
		code  int
		shows []string
	}{
		{[]string{"list"}, Done, []string{deadWebhook.WebhookId, deadWebhook.Endpoint, "orders/0/17", "answered 500"}},
		{[]string{"list", "--endpoint", "http://other:80"}, Done, nil},
		{[]string{"count"}, Done, []string{deadWebhook.Endpoint, "3"}},
		{[]string{"get", deadWebhook.WebhookId}, Done, []string{"task.completed", "reeve-webhook"}},
		{[]string{"get", "msg_0"}, NotFound, nil},
		{[]string{"orders"}, Done, []string{"DELIVERED", deadWebhook.Endpoint}},
		{[]string{"list", "x"}, Usage, nil},
		{[]string{"list", "--limit", "-1"}, Usage, nil},
		{[]string{"list", "--since", "yesterday"}, Usage, nil},
	} {
		got := f.reeve(t, "", append([]string{"webhook"}, tt.args...)...)
		if got.code != tt.code {
			t.Errorf("%v: %+v", tt.args, got)
		}
		for _, shows := range tt.shows {
			if !strings.Contains(got.out, shows) {
				t.Errorf("%v doesn't show %q: %s", tt.args, shows, got.out)
			}
		}
	}
	if got := f.reeve(t, "", "webhook", "count"); !strings.Contains(got.err, "there are more: these are of the oldest 3") {
		t.Errorf("%+v", got)
	}
}
