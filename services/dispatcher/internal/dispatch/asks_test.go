package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/task"
)

// What is asked is asked of one round of one task: of one life of its agent where the command names one.
func TestWhatIsAskedOfATaskIsForThatTaskAlone(t *testing.T) {
	for _, c := range []struct {
		name, of, origin, redrives string
		verb                       command.Verb
		want                       bool
	}{
		{"the task", "orders/0/7/u/3", "orders/0/7/u/3", "", command.Cancel, true},
		{"in whatever life", "orders/0/7/u", "orders/0/7/u/3", "", command.Cancel, true},
		{"in another life", "orders/0/7/u/4", "orders/0/7/u/3", "", command.Cancel, false},
		{"of a topic that was made again", "orders/0/7/old", "orders/0/7/u", "", command.Cancel, false},
		{"another task", "orders/0/8", "orders/0/7/u", "", command.Cancel, false},
		{"in a later round", "orders/0/7", "orders/0/7/u", "1", command.Cancel, false},
		{"its next attempt", "orders/0/7", "orders/0/7/u", "", command.Retry, true},
	} {
		a := newAsks(func(string) bool { return false }, func(command.Command, string, string) {})
		a.add(command.Command{ID: "1", Verb: c.verb, Topic: "orders", Agent: "bill", Task: c.of, Attempt: 2, Expires: time.Now().Add(time.Minute)})
		r := &kgo.Record{Headers: []kgo.RecordHeader{{Key: task.HeaderAgent, Value: []byte("orders/bill")}, {Key: task.HeaderOrigin, Value: []byte(c.origin)},
			{Key: task.HeaderAttempt, Value: []byte("2")}}}
		if c.redrives != "" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte(c.redrives)})
		}
		if _, got := a.of(r); got != c.want {
			t.Errorf("%s: %s is asked for %s: %t", c.name, c.of, c.origin, got)
		}
	}
}

func asked(n int, expires time.Time) command.Command {
	return command.Command{ID: fmt.Sprint("c", n), Verb: command.Cancel, Topic: "orders", Agent: "bill", Task: fmt.Sprintf("orders/0/%d/u", n), Actor: "ann", Expires: expires}
}

// The flawed way looks at all that live for each that comes, and for each that is carried out.
func TestACommandCostsTheSameHoweverManyLive(t *testing.T) {
	const n = 20_000
	looks, told := 0, 0
	a := newAsks(func(string) bool { looks++; return false }, func(command.Command, string, string) { told++ })
	for i := range n {
		a.add(asked(i, time.Now().Add(time.Hour)))
	}
	for i := range n {
		a.done(asked(i, time.Time{}), "done")
	}
	if looks > 4*n || told != n || a.any() {
		t.Errorf("%d looks for %d commands, %d are told, and some are left: %v", looks, n, told, a.any())
	}
}

func TestWhatIsOverIsForgotten(t *testing.T) {
	finished := map[string]bool{}
	a := newAsks(func(id string) bool { return finished[id] }, func(command.Command, string, string) {})
	record := func(n int) *kgo.Record {
		return &kgo.Record{Headers: []kgo.RecordHeader{{Key: task.HeaderAgent, Value: []byte("orders/bill")}, {Key: task.HeaderOrigin, Value: fmt.Appendf(nil, "orders/0/%d/u", n)}}}
	}
	a.add(asked(1, time.Now().Add(-time.Second))) // it has expired
	a.add(asked(2, time.Now().Add(time.Hour)))
	a.add(asked(3, time.Now().Add(time.Hour)))
	finished["c2"] = true // by somebody else
	for n, want := range map[int]bool{1: false, 2: false, 3: true, 4: false} {
		if _, ok := a.of(record(n)); ok != want {
			t.Errorf("the task %d is asked for: %v", n, ok)
		}
	}
	if len(a.all) != 1 || !a.any() {
		t.Errorf("%v are kept", a.all)
	}
	finished["c3"] = true
	a.tidied = time.Now().Add(-2 * tidyEvery)
	if _, ok := a.of(record(5)); ok || a.any() { // whatever comes by
		t.Errorf("%v are kept", a.all)
	}
}

// A retry of a task doesn't take the place of its cancellation, unless that is over.
func TestACancelledTaskIsRetriedNoMore(t *testing.T) {
	finished := false
	a := newAsks(func(id string) bool { return finished && id == "c1" }, func(command.Command, string, string) {})
	retry := asked(1, time.Now().Add(time.Hour))
	retry.ID, retry.Verb = "r1", command.Retry
	a.add(asked(1, time.Now().Add(time.Hour)))
	a.add(retry)
	if x := a.all["orders/bill orders/0/1"]; x.Verb != command.Cancel {
		t.Errorf("%+v", x)
	}
	finished = true
	a.add(retry)
	if x := a.all["orders/bill orders/0/1"]; x.Verb != command.Retry {
		t.Errorf("%+v", x)
	}
}
