package dispatch

import (
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
