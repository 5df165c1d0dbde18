package app_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// An event that an agent's filter passes over never has an outcome: who waits for one is told as soon as the dispatcher is
// past it. The flawed way waits until the time is over.
func TestAWaitEndsWhereTheAgentPassesOverTheEvent(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	r.want(201, "POST", "/v1/agents", `{"topic":"orders","name":"a","command":"x","filter":"data.n > 1"}`)
	r.want(201, "POST", "/v1/agents", `{"topic":"orders","name":"b","command":"x","accepts":["big"],"on_incompatible":"skip"}`)
	event := func(n int) string {
		return fmt.Sprintf(`{"topic":"orders","type":"small","payload":{"content":{"n":%d}}}`, n)
	}
	over, taken := r.want(202, "POST", "/v1/events", event(1)), r.want(202, "POST", "/v1/events", event(2))
	path := func(p map[string]any, agent string) string {
		return fmt.Sprintf("/v1/tasks/orders/%s/%v/%v", agent, p["partition"], p["offset"])
	}
	if got := r.want(200, "GET", path(over, "a"), ""); got["status"] != "queued" {
		t.Errorf("before a dispatcher has come by: %v", got)
	}
	ended := make(chan map[string]any, 1)
	began := time.Now()
	go func() {
		_, got := r.do("GET", path(over, "a")+"?wait=15s", "")
		ended <- got
	}()
	cl, err := kgo.NewClient(r.opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	topics, err := kadm.NewClient(cl).ListTopics(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	for _, agent := range []string{"a", "b"} { // as a dispatcher would that has passed all of it
		var past kadm.Offsets
		for p := range topics["orders"].Partitions {
			past.AddOffset("orders", p, 1000, -1)
		}
		if err := kadm.NewClient(cl).CommitAllOffsets(t.Context(), r.cfg.Kafka.Names().Group("orders", agent), past); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-ended; got["status"] != "filtered" || time.Since(began) > 14*time.Second {
		t.Errorf("after %s: %v", time.Since(began), got)
	}
	began = time.Now()
	statuses := map[string]any{}
	tasks, _ := r.want(202, "POST", "/v1/events?wait=15s", event(0))["tasks"].([]any)
	for _, one := range tasks {
		if one, ok := one.(map[string]any); ok {
			statuses[fmt.Sprint(one["name"])] = one["status"]
		}
	}
	if fmt.Sprint(statuses) != "map[a:filtered b:filtered]" || time.Since(began) > 14*time.Second {
		t.Errorf("after %s: %v", time.Since(began), statuses)
	}
	if got := r.want(200, "GET", path(taken, "a")+"?wait=100ms", ""); got["status"] != "queued" {
		t.Errorf("what the filter lets pass: %v", got)
	}
	if got := r.want(400, "GET", "/v1/tasks?status=filtered", ""); got["code"] != "invalid_request" {
		t.Errorf("%v", got)
	}
	if code, got := r.do("POST", path(over, "a")+"/cancel?wait=0s", ""); code != 202 {
		t.Errorf("a task from before the filter could be there, and is to be cancelled: %d %v", code, got)
	}
}
