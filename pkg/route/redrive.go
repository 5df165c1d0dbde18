package route

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// ofRound are the headers that tell of a round of a task. A new one begins without them, as the first one did: who reads an
// error's class on a task that has not failed takes it for unfit to run.
var ofRound = []string{task.HeaderAttempt, task.HeaderAttempts, task.HeaderBurnt, task.HeaderTimeouts, task.HeaderRedrives, task.HeaderOrder,
	task.HeaderErrorClass, task.HeaderErrorMessage, task.HeaderErrorFingerprint, task.HeaderFirstFailedAt, task.HeaderLastFailedAt}

// Redrives is how often a task was redriven, as its record says.
func Redrives(rec *kgo.Record) int {
	n, err := strconv.Atoi(Header(rec, task.HeaderRedrives))
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// Redrive makes a dead letter a task again, for a task partition: the event and the task's identity as they are, a new round
// with all its retries. becomes is what is to be written. That is the task, unless the agent as it is now doesn't take the
// event: it goes by its gate as any event does, and what would be passed over is rejected (see Passage.Again). node is who
// settles that, order the id of what people ordered.
func Redrive(names topics.Names, a *spec.Agent, gate *Gate, rec *kgo.Record, partition int32, order, node string, now time.Time) (again, becomes *kgo.Record) {
	hs := make([]kgo.RecordHeader, 0, len(rec.Headers)+3)
	for _, h := range rec.Headers {
		if !slices.Contains(ofRound, h.Key) {
			hs = append(hs, h)
		}
	}
	hs = append(hs, kgo.RecordHeader{Key: task.HeaderAttempt, Value: firstAttempt()},
		kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte(strconv.Itoa(Redrives(rec) + 1))},
		kgo.RecordHeader{Key: task.HeaderOrder, Value: []byte(order)})
	again = &kgo.Record{Topic: names.Tasks(a.Topic, a.Name), Partition: partition, Key: rec.Key, Value: rec.Value, Headers: hs, Timestamp: now}
	return again, Unfit(a, gate, rec).Settle(names, again, node, now)
}

// Unfit says why a dead letter's event isn't fit to run, by the agent's spec as it is now; the zero value says that it is.
func Unfit(a *spec.Agent, gate *Gate, rec *kgo.Record) Passage {
	e := eventOf(rec)
	if _, err := event.Recognise(a.Topic, e); err != nil {
		return Passage{Class: task.ClassInvalidInput, Reason: err.Error()}
	}
	if gate == nil {
		return Passage{}
	}
	return gate.Decide(e).Again()
}

// brought are the headers of Reeve's that events may bring along, and that are on their tasks then.
var brought = []string{task.HeaderCorrelationID, task.HeaderCausationID, task.HeaderTenantID, task.HeaderSource, task.HeaderReplyTo, task.HeaderWebhook, task.HeaderType}

// eventOf is the event of a task's record as it stands on the user's topic. What is in its envelope is in its headers too.
func eventOf(rec *kgo.Record) *kgo.Record {
	e := &kgo.Record{Key: rec.Key, Value: rec.Value, Partition: rec.Partition, Offset: rec.Offset, Timestamp: rec.Timestamp, Headers: make([]kgo.RecordHeader, 0, len(rec.Headers))}
	if o, err := task.ParseOrigin(Header(rec, task.HeaderOrigin)); err == nil {
		e.Topic, e.Partition, e.Offset = o.Topic, o.Partition, o.Offset
	}
	published, _, _ := strings.Cut(Header(rec, task.HeaderEvent), " ")
	if ms, err := strconv.ParseInt(published, 10, 64); err == nil {
		e.Timestamp = time.UnixMilli(ms)
	}
	for _, h := range rec.Headers {
		if !reserved(h.Key) || slices.Contains(brought, h.Key) {
			e.Headers = append(e.Headers, h)
		}
	}
	return e
}
