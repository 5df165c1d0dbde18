package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/services/registry/api"
)

func (f *fake) CountDeadLetters(context.Context, api.CountDeadLettersRequestObject) (api.CountDeadLettersResponseObject, error) {
	return api.CountDeadLetters200JSONResponse{Total: 4, Complete: true, Items: []api.DeadLetterGroup{
		{Fingerprint: "7d0c41aabbccddee", ErrorClass: "network", ErrorMessage: "no route", Count: 3, Guarded: 1}, {Fingerprint: "7d0f00aabbccddee", ErrorClass: "internal", ErrorMessage: "x", Count: 1}}}, nil
}

func (f *fake) GetDeadLetter(_ context.Context, r api.GetDeadLetterRequestObject) (api.GetDeadLetterResponseObject, error) {
	if r.Offset != 17 {
		return api.GetDeadLetterdefaultApplicationProblemPlusJSONResponse{Body: problem(404, "not_found"), StatusCode: 404}, nil
	}
	d := api.DeadLetterDetail{Origin: "orders/0/17", Topic: r.Topic, Name: r.Name, ErrorClass: "network", ErrorMessage: "no route"}
	d.Headers = []api.RecordHeader{{Key: "traceparent", Value: "00-1"}}
	return api.GetDeadLetter200JSONResponse(d), nil
}

func (f *fake) order(verb api.DLQOrderVerb, dry bool) api.DLQOrder {
	o := api.DLQOrder{Id: "o1", Topic: "orders", Name: "hello", Verb: verb, Matched: 30, Guarded: 2, State: "accepted"}
	if dry {
		o.Id, o.State = "", "dry_run"
	}
	return o
}

func (f *fake) RedriveDeadLetters(_ context.Context, r api.RedriveDeadLettersRequestObject) (api.RedriveDeadLettersResponseObject, error) {
	f.redrives = append(f.redrives, *r.Body)
	if o := f.order("redrive", r.Body.DryRun); r.Body.DryRun {
		return api.RedriveDeadLetters200JSONResponse(o), nil
	}
	return api.RedriveDeadLetters202JSONResponse(f.order("redrive", false)), nil
}

func (f *fake) PurgeDeadLetters(_ context.Context, r api.PurgeDeadLettersRequestObject) (api.PurgeDeadLettersResponseObject, error) {
	if r.Body.DryRun {
		return api.PurgeDeadLetters200JSONResponse(f.order("purge", true)), nil
	}
	f.purges++
	return api.PurgeDeadLetters202JSONResponse(f.order("purge", false)), nil
}

func (f *fake) GetDLQOrder(context.Context, api.GetDLQOrderRequestObject) (api.GetDLQOrderResponseObject, error) {
	f.asked++
	o := f.order("redrive", false)
	o.State, o.Reason, o.Moved = "waiting", "the agent is paused", 0
	if f.asked > 2 {
		o.State, o.Reason, o.Moved, o.Completed, o.CameBack, o.Kept = f.ends, "", 30, 30-f.back, f.back, 0
		if f.ends == "stopped" {
			o.Reason, o.Kept = "5 of 5 came back", 10
		}
	}
	return api.GetDLQOrder200JSONResponse(o), nil
}

func (f *fake) ListDLQOrders(context.Context, api.ListDLQOrdersRequestObject) (api.ListDLQOrdersResponseObject, error) {
	o := f.order("redrive", false)
	o.All = true
	return api.ListDLQOrders200JSONResponse{Items: []api.DLQOrder{o}}, nil
}

func TestARedriveSaysHowItGoesOnAndHowItEnds(t *testing.T) {
	f := newFake()
	f.ends = "done"
	got := f.reeve(t, "", "dlq", "redrive", "orders/hello", "--all", "--wait")
	if got.code != Done || got.out != "done: 30 of 30 dead letters redriven, 30 completed, 0 came back, 2 were redriven too often (--force redrives them too)\n" || strings.Count(got.err, "waiting: the agent is paused") != 1 {
		t.Errorf("%+v", got)
	}
	f.asked, f.back, f.ends = 0, 5, "stopped"
	if got = f.reeve(t, "", "dlq", "redrive", "orders/hello", "--fingerprint", "7d0c41", "--force"); got.code != Failed || !strings.Contains(got.out, "stopped: ") || !strings.Contains(got.out, "10 stay") || !strings.Contains(got.out, "5 of 5 came back") {
		t.Errorf("%+v", got)
	}
	f.asked, f.ends = 0, "refused"
	if got = f.reeve(t, "", "dlq", "redrive", "orders/hello", "--origin", "orders/0/17", "-o", "json"); got.code != Conflict || !strings.Contains(got.out, `"refused"`) {
		t.Errorf("%+v", got)
	}
	f.asked = 0
	if got = f.reeve(t, "", "dlq", "redrive", "--topic", "orders", "--name", "hello", "--all", "--dry-run"); got.code != Done || !strings.HasPrefix(got.out, "30 dead letters would be redriven") || f.asked != 0 {
		t.Errorf("%+v", got)
	}
	want := []api.RedriveRequest{{All: true}, {Fingerprint: "7d0c41aabbccddee", Force: true}, {Origin: "orders/0/17"}, {All: true, DryRun: true}}
	if len(f.redrives) != len(want) {
		t.Fatalf("%+v", f.redrives)
	}
	for i, w := range want {
		if f.redrives[i] != w {
			t.Errorf("%+v, want %+v", f.redrives[i], w)
		}
	}
	for _, args := range [][]string{{}, {"--all", "--fingerprint", "f"}, {"--all", "--dry-run", "--wait"}} {
		if got := f.reeve(t, "", append([]string{"dlq", "redrive", "orders/hello"}, args...)...); got.code != Usage {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func (f *fake) CancelDLQOrder(_ context.Context, r api.CancelDLQOrderRequestObject) (api.CancelDLQOrderResponseObject, error) {
	if r.Id == "o2" {
		return api.CancelDLQOrderdefaultApplicationProblemPlusJSONResponse{Body: problem(404, "not_found"), StatusCode: 404}, nil
	}
	return api.CancelDLQOrder202JSONResponse(f.takenBack(r.Id, r.Params.Reason)), nil
}

// takenBack is an order that somebody takes back; o1 ends as the test says.
func (f *fake) takenBack(id, reason string) api.DLQOrder {
	if id != "o1" {
		f.ends = "cancelled"
	}
	o := f.order("redrive", false)
	o.Reason = reason
	return o
}

func TestAnOrderIsTakenBack(t *testing.T) {
	for orders, cancel := range map[string][]string{"reeve dlq orders orders/hello": {"dlq", "cancel", "orders/hello"}, "reeve webhook orders": {"webhook", "cancel"}} {
		for end, want := range map[string]int{"cancelled": Done, "done": Conflict} {
			f := newFake()
			f.ends = api.DLQOrderState(end)
			if got := f.reeve(t, "", append(cancel, "--order", "o1", "--reason", "not yet", "--wait")...); got.code != want || !strings.HasPrefix(got.out, end+": 30 of 30") {
				t.Errorf("%v: %+v", cancel, got)
			}
		}
		f := newFake()
		if got := f.reeve(t, "", append(cancel, "--order", "o2")...); got.code != NotFound {
			t.Errorf("%v: %+v", cancel, got)
		}
		if got := f.reeve(t, "", cancel...); got.code != Usage || !strings.Contains(got.err, orders) {
			t.Errorf("%v: %+v", cancel, got)
		}
	}
	f := newFake()
	f.ends = "cancelled"
	if got := f.reeve(t, "", "dlq", "redrive", "orders/hello", "--all", "--wait"); got.code != Failed {
		t.Errorf("a redrive that somebody takes back: %+v", got)
	}
}

func TestAFailureIsNamedByTheBeginningOfItsFingerprint(t *testing.T) {
	f := newFake()
	f.ends = "done"
	for _, verb := range []string{"redrive", "purge", "list"} {
		if got := f.reeve(t, "", "dlq", verb, "orders/hello", "--fingerprint", "nonsense"); got.code != NotFound || !strings.Contains(got.err, "`reeve dlq count orders/hello` lists its failures") {
			t.Errorf("%s: %+v", verb, got)
		}
		if got := f.reeve(t, "", "dlq", verb, "orders/hello", "--fingerprint", "7d0"); got.code != Usage || !strings.Contains(got.err, "7d0c41aabbccddee, 7d0f00aabbccddee") {
			t.Errorf("%s: %+v", verb, got)
		}
	}
	if len(f.redrives)+f.purges > 0 {
		t.Error("something was done all the same")
	}
	s := selected{ref: ref{"orders", "hello"}, fingerprint: "0123456789abcdef"}
	for answer, want := range map[string]int{`{"state":"dry_run"}`: NotFound, `{"state":"done"}`: NotFound, `{"state":"accepted"}`: Done,
		`{"state":"done","guarded":1}`: Done, `{"state":"done","matched":1}`: Done, `{`: Failed} {
		if _, err := s.found([]byte(answer)); exitCode(err) != want {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

// A script sees by the exit code that one came back dead.
func TestARedriveOfWhichOneCameBackHasFailed(t *testing.T) {
	f := newFake()
	f.ends, f.back = "done", 1
	if got := f.reeve(t, "", "dlq", "redrive", "orders/hello", "--all", "--wait"); got.code != Failed || !strings.Contains(got.out, "29 completed, 1 came back") {
		t.Errorf("%+v", got)
	}
}

func TestAPurgeNamesItsCountAndAsks(t *testing.T) {
	f := newFake()
	f.ends = "done"
	got := f.reeve(t, "", "dlq", "purge", "orders/hello", "--all")
	if got.code != Usage || !strings.Contains(got.err, "purging deletes 30 dead letters of orders/hello for ever") || f.purges != 0 {
		t.Errorf("%+v", got)
	}
	if got = f.reeve(t, "", "dlq", "purge", "orders/hello", "--all", "--yes"); got.code != Done || f.purges != 1 {
		t.Errorf("%+v", got)
	}
}

func TestOneDeadLetterIsShownWithItsHeaders(t *testing.T) {
	f := newFake()
	if got := f.reeve(t, "", "dlq", "get", "orders/0/17", "--name", "hello"); got.code != Done || !strings.Contains(got.out, "traceparent") || !strings.Contains(got.out, "no route") {
		t.Errorf("%+v", got)
	}
	if got := f.reeve(t, "", "dlq", "get", "orders/hello/0/18"); got.code != NotFound {
		t.Errorf("%+v", got)
	}
	if got := f.reeve(t, "", "dlq", "get", "orders/0/17"); got.code != Usage {
		t.Errorf("%+v", got)
	}
	if got := f.reeve(t, "", "dlq", "count", "orders/hello"); got.code != Done || !strings.Contains(got.out, "7d0c41") {
		t.Errorf("%+v", got)
	}
	if got := f.reeve(t, "", "dlq", "list", "--since", "1h"); got.code != Usage {
		t.Errorf("%+v", got)
	}
}
