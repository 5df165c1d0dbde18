package route

import (
	"fmt"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestARedrivenTaskIsItselfInANewRound(t *testing.T) {
	dead := record("k", "\x00v1", "traceparent", "00", task.HeaderAgent, "orders/bill_1", task.HeaderOrigin, "orders/2/9/u", task.HeaderEvent, "17 id 1",
		task.HeaderCorrelationID, "c", task.HeaderErrorClass, "network", task.HeaderErrorMessage, "m", task.HeaderErrorFingerprint, "f",
		task.HeaderFirstFailedAt, "x", task.HeaderLastFailedAt, "y", task.HeaderAttempts, "4", task.HeaderBurnt, "3", task.HeaderTimeouts, "1", task.HeaderRedrives, "2")
	got := Redrive(topics.Names{}, agent(), dead, 5, now)
	var hs []string
	for _, h := range got.Headers {
		hs = append(hs, h.Key+"="+string(h.Value))
	}
	want := "traceparent=00 reeve-agent=orders/bill_1 reeve-origin=orders/2/9/u reeve-event=17 id 1 reeve-correlation-id=c reeve-attempt=1 reeve-redrives=3"
	if s := strings.Join(hs, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if got.Topic != "reeve.tasks.orders.bill--1" || got.Partition != 5 || string(got.Key) != "k" || string(got.Value) != "\x00v1" || !got.Timestamp.Equal(now) {
		t.Errorf("%+v", got)
	}
	if len(dead.Headers) != 14 || Redrives(dead) != 2 {
		t.Error("the dead letter was changed")
	}
}

// It was never fit to run, and would stop being so by losing the header that says it.
func TestARedrivenEventThatIsNotWhatItClaimsIsRejectedAgain(t *testing.T) {
	dead := record("k", "{", "content-type", "application/cloudevents+json", task.HeaderErrorClass, "invalid_input", task.HeaderErrorMessage, "old", task.HeaderFirstFailedAt, "x")
	got := Redrive(topics.Names{}, agent(), dead, 0, now)
	if Header(got, task.HeaderErrorClass) != "invalid_input" || Header(got, task.HeaderErrorMessage) == "old" || Header(got, task.HeaderFirstFailedAt) != "" {
		t.Error(fmt.Sprint(got.Headers))
	}
}

// Its type is what it was rejected for. An agent that takes it by now runs it, and one that doesn't must never be given it.
func TestARedrivenTaskOfATypeThatTheAgentDoesntTakeIsRejectedAgain(t *testing.T) {
	dead := record("k", "v", task.HeaderType, "small", task.HeaderErrorClass, "incompatible_task", task.HeaderErrorMessage, "old")
	for accepts, class := range map[string]string{"big": "incompatible_task", "small": "", "s*": ""} {
		a := agent()
		a.Accepts = []string{accepts}
		if got := Redrive(topics.Names{}, a, dead, 0, now); Header(got, task.HeaderErrorClass) != class || Header(got, task.HeaderErrorMessage) == "old" {
			t.Errorf("an agent that accepts %s: %v", accepts, got.Headers)
		}
	}
}
