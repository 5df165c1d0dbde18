package app

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
)

// ask issues a command about a task of an agent, under an id of its own unless one is given.
func (w *world) ask(verb command.Verb, a *spec.Agent, task string, round int, id ...string) string {
	w.t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	attempt := 0
	if verb == command.Retry {
		attempt = 3
	}
	c := command.Command{ID: uuid.NewString(), Verb: verb, Topic: a.Topic, Agent: a.Name, Task: task, Round: round, Attempt: attempt, Actor: "ann", Reason: "why not", At: now, Expires: now.Add(time.Hour)}
	if len(id) > 0 {
		c.ID = id[0]
	}
	r, err := c.Record(w.names)
	if err != nil {
		w.t.Fatal(err)
	}
	w.produce(r)
	return c.ID
}

// answered waits for what becomes of a command.
func (w *world) answered(reports *reader, id string) status.CommandResult {
	w.t.Helper()
	for {
		for _, r := range reports.next(1) {
			var c status.CommandResult
			if json.Unmarshal(r.Value, &c) == nil && c.Event == status.EventCommand && c.ID == id {
				return c
			}
		}
	}
}

// serves waits until an agent is routed by a generation of its spec.
func (w *world) serves(reports *reader, generation int64) {
	w.t.Helper()
	for {
		for _, r := range reports.next(1) {
			var a status.AgentReport
			if json.Unmarshal(r.Value, &a) == nil && a.Event == status.EventAgent && a.Generation == generation && a.State == status.ReportServing {
				return
			}
		}
	}
}

// withCommands is a world with the commands topic and an agent on a topic of one partition.
func withCommands(t *testing.T) (*world, *spec.Agent) {
	w := newWorld(t)
	w.cfg.Kafka.RetryTiers = []time.Duration{200 * time.Millisecond, time.Hour}
	w.create(kafka.CommandsTopic(w.names), kafka.Topic{Name: "orders", Partitions: 1})
	a := agent("orders", "bill")
	w.desire(a)
	return w, a
}

// waits puts tasks on the tier of an hour.
func (w *world) waits(a *spec.Agent, from, to int) {
	w.t.Helper()
	for i := from; i < to; i++ {
		w.produce(&kgo.Record{Topic: w.names.Retry(time.Hour), Partition: 0, Key: []byte("k1"), Value: []byte(strconv.Itoa(i)), Headers: []kgo.RecordHeader{
			{Key: task.HeaderAgent, Value: []byte(a.Ref())}, {Key: task.HeaderOrigin, Value: fmt.Appendf(nil, "orders/0/%d/u", i)}, {Key: task.HeaderAttempt, Value: []byte("3")}}})
	}
}

func TestATaskBetweenAttemptsIsCancelledOrRetriedAtOnceAndOnce(t *testing.T) {
	t.Parallel()
	w, a := withCommands(t)
	stop := w.start()
	tasks, outcomes, reports := w.read(w.names.Tasks("orders", "bill")), w.read(w.names.Outcomes()), w.read(w.names.Status())
	w.waits(a, 0, 10)
	retried := w.ask(command.Retry, a, "orders/0/4", 0)
	got := tasks.next(1)[0]
	if string(got.Value) != "4" || route.Header(got, task.HeaderAttempt) != "3" || got.Partition != route.Partition(got.Key, 4) {
		t.Errorf("retried at once: %+v", got)
	}
	if r := w.answered(reports, retried); r.State != status.CommandDone || r.Task != "orders/0/4" {
		t.Errorf("answered %+v", r)
	}
	w.ask(command.Cancel, a, "orders/0/5/another topic's", 0)
	cancelled := w.ask(command.Cancel, a, "orders/0/7", 0)
	o := outcomes.next(1)[0]
	if string(o.Key) != "orders/0/7" || route.Header(o, task.HeaderOutcome) != "cancelled" || route.Header(o, task.HeaderSettled) != "dropped" || route.Header(o, task.HeaderFinal) != "true" ||
		route.Header(o, task.HeaderAttempt) != "2" || route.Header(o, task.HeaderErrorMessage) != "cancelled by ann: why not" {
		t.Errorf("cancelled: %+v", o)
	}
	if r := w.answered(reports, cancelled); r.State != status.CommandDone {
		t.Errorf("answered %+v", r)
	}
	// Another process reads all of it again, and what has passed before its turn isn't there for it. The first of the line
	// goes, so that the position moves beyond.
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	stop = w.start()
	w.ask(command.Retry, a, "orders/0/0", 0)
	if got := tasks.next(1)[0]; string(got.Value) != "0" {
		t.Errorf("after the restart came %+v", got)
	}
	w.ask(command.Retry, a, "orders/0/9", 0)
	if got := tasks.next(1)[0]; string(got.Value) != "9" {
		t.Errorf("after the restart came %+v", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.cfg.Node = "n2"
	w.start()
	w.waits(a, 20, 21)
	w.ask(command.Retry, a, "orders/0/20", 0)
	if got := tasks.next(1)[0]; string(got.Value) != "20" {
		t.Errorf("on another node came %+v", got)
	}
	tasks.nothing(300 * time.Millisecond)
	outcomes.nothing(0)
}

func TestARetryThatWasAskedForHastensOneAttempt(t *testing.T) {
	t.Parallel()
	w, a := withCommands(t)
	w.start()
	tasks := w.read(w.names.Tasks("orders", "bill"))
	w.waits(a, 1, 2)
	w.ask(command.Retry, a, "orders/0/1", 0)
	tasks.next(1)
	w.ask(command.Retry, a, "orders/0/1", 0) // asked twice of one attempt
	w.produce(&kgo.Record{Topic: w.names.Retry(time.Hour), Key: []byte("k1"), Value: []byte("failed again"), Headers: []kgo.RecordHeader{
		{Key: task.HeaderAgent, Value: []byte(a.Ref())}, {Key: task.HeaderOrigin, Value: []byte("orders/0/1/u")}, {Key: task.HeaderAttempt, Value: []byte("4")}}})
	w.waits(a, 2, 3)
	w.ask(command.Retry, a, "orders/0/2", 0)
	if got := tasks.next(1)[0]; string(got.Value) != "2" {
		t.Errorf("a retry that was carried out hastens the next attempt too: %+v", got)
	}
}

func TestAnEventIsCancelledBeforeItIsDispatched(t *testing.T) {
	t.Parallel()
	w, a := withCommands(t)
	a.Phase = spec.Paused
	w.desire(a)
	w.start()
	tasks, outcomes := w.read(w.names.Tasks("orders", "bill")), w.read(w.names.Outcomes())
	w.events("orders", 0, 3)
	w.ask(command.Cancel, a, "orders/0/1", 0)
	outcomes.nothing(100 * time.Millisecond)
	a.Phase, a.Generation = spec.Active, 2
	w.desire(a)
	o := outcomes.next(1)[0]
	if string(o.Key) != "orders/0/1" || route.Header(o, task.HeaderOutcome) != "cancelled" || route.Header(o, task.HeaderAttempt) != "0" {
		t.Errorf("%+v", o)
	}
	for _, r := range tasks.next(2) {
		if string(r.Value) == `{"n":1}` {
			t.Error("the cancelled event was dispatched")
		}
	}
}

func TestAFinishedTaskIsReopenedOnceHoweverManyReadTheCommand(t *testing.T) {
	t.Parallel()
	w, a := withCommands(t)
	stop := w.start()
	tasks, reports := w.read(w.names.Tasks("orders", "bill")), w.read(w.names.Status())
	w.events("orders", 0, 3)
	tasks.next(3)
	first := w.ask(command.Reopen, a, "orders/0/1", 0, "r1")
	got := tasks.next(1)[0]
	if string(got.Value) != `{"n":1}` || route.Header(got, task.HeaderRedrives) != "1" || route.Header(got, task.HeaderAttempt) != "1" || route.Header(got, task.HeaderOrigin)[:10] != "orders/0/1" {
		t.Errorf("reopened: %+v", got)
	}
	if r := w.answered(reports, first); r.State != status.CommandDone {
		t.Errorf("answered %+v", r)
	}
	w.ask(command.Reopen, a, "orders/0/1", 0, "r1")
	if r := w.answered(reports, w.ask(command.Reopen, a, "orders/0/17", 0)); r.State != status.CommandRefused {
		t.Errorf("an event that isn't there: %+v", r)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// Two others at once, which read all commands from the start.
	ask := w.ask(command.Reopen, a, "orders/0/2", 1, "r2")
	for _, node := range []string{"n2", "n3"} {
		w.cfg.Node = node
		w.start()
	}
	got = tasks.next(1)[0]
	if string(got.Value) != `{"n":2}` || route.Header(got, task.HeaderRedrives) != "2" {
		t.Errorf("reopened: %+v", got)
	}
	if r := w.answered(reports, ask); r.State != status.CommandDone {
		t.Errorf("answered %+v", r)
	}
	tasks.nothing(1500 * time.Millisecond)
}

// What is run once more goes by the agent as it is now, as any event does.
func TestAReopenedTaskThatItsAgentTakesNoMoreIsRejectedAndTellsWhoAsked(t *testing.T) {
	w, a := withCommands(t)
	w.create(kafka.Topic{Name: "answers", Partitions: 1})
	w.start()
	tasks, reports, outcomes := w.read(w.names.Tasks("orders", "bill")), w.read(w.names.Status()), w.read(w.names.Outcomes())
	w.produce(&kgo.Record{Topic: "orders", Value: []byte(`{"n":0}`), Headers: asking(0, "answers")}, &kgo.Record{Topic: "orders", Value: []byte(`{"n":1}`)},
		&kgo.Record{Topic: "orders", Value: []byte(`{"m":1}`)})
	tasks.next(3)
	a.Filter, a.Generation = "data.n > 0", 2
	w.desire(a)
	w.serves(reports, 2)
	if r := w.answered(reports, w.ask(command.Reopen, a, "orders/0/0", 0)); r.State != status.CommandDone || !strings.Contains(r.Message, "rejected by what its agent takes now: the agent's filter isn't true of the event") {
		t.Errorf("answered %+v", r)
	}
	o := outcomes.next(1)[0]
	if string(o.Key) != "orders/0/0" || route.Header(o, task.HeaderOutcome) != "rejected" || route.Header(o, task.HeaderSettled) != "dropped" || route.Header(o, task.HeaderFinal) != "true" ||
		route.Header(o, task.HeaderRedrives) != "1" || route.Header(o, task.HeaderAttempt) != "0" || route.Header(o, task.HeaderErrorClass) != "incompatible_task" {
		t.Errorf("%+v", o)
	}
	if got := readReply(t, w.read("answers").next(1)[0]); got.ID != "orders/0/0/bill/1" || got.Correlation != "c0" || !strings.Contains(got.Payload.Content.Error, "isn't true") {
		t.Errorf("%+v", got)
	}
	// One that still is the agent's runs, and one that can't be told goes where such events go.
	w.answered(reports, w.ask(command.Reopen, a, "orders/0/1", 0))
	if got := tasks.next(1)[0]; string(got.Value) != `{"n":1}` || route.Header(got, task.HeaderErrorClass) != "" || route.Header(got, task.HeaderRedrives) != "1" {
		t.Errorf("%+v", got)
	}
	w.answered(reports, w.ask(command.Reopen, a, "orders/0/2", 0))
	if got := tasks.next(1)[0]; string(got.Value) != `{"m":1}` || route.Header(got, task.HeaderErrorClass) != "invalid_input" {
		t.Errorf("%+v", got)
	}
	outcomes.nothing(100 * time.Millisecond)
}
