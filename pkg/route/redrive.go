package route

import (
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// ofRound are the headers that tell of a round of a task. A new one begins without them, as the first one did: who reads an
// error's class on a task that has not failed takes it for unfit to run.
var ofRound = []string{task.HeaderAttempt, task.HeaderAttempts, task.HeaderBurnt, task.HeaderTimeouts, task.HeaderRedrives,
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
// with all its retries. An event that claims a format and still isn't in it is rejected again, as is one of a type that the
// agent still doesn't take.
func Redrive(names topics.Names, a *spec.Agent, rec *kgo.Record, partition int32, now time.Time) *kgo.Record {
	hs := make([]kgo.RecordHeader, 0, len(rec.Headers)+2)
	for _, h := range rec.Headers {
		if !slices.Contains(ofRound, h.Key) {
			hs = append(hs, h)
		}
	}
	hs = append(hs, kgo.RecordHeader{Key: task.HeaderAttempt, Value: firstAttempt()},
		kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte(strconv.Itoa(Redrives(rec) + 1))})
	if class, why := unfit(a, rec); class != "" {
		hs = append(hs, kgo.RecordHeader{Key: task.HeaderErrorClass, Value: []byte(class)}, kgo.RecordHeader{Key: task.HeaderErrorMessage, Value: []byte(clip(why))})
	}
	return &kgo.Record{Topic: names.Tasks(a.Topic, a.Name), Partition: partition, Key: rec.Key, Value: rec.Value, Headers: hs, Timestamp: now}
}

// unfit says why a dead letter's event isn't fit to run, by the agent's spec as it is now; "" says that it is.
func unfit(a *spec.Agent, rec *kgo.Record) (class task.Class, why string) {
	if _, err := event.OfTask(a.Topic, rec); err != nil {
		return task.ClassInvalidInput, err.Error()
	}
	taskType, err := event.Type(a.Topic, rec)
	if err != nil {
		return task.ClassInvalidInput, err.Error()
	}
	if takes, why := a.Takes(taskType); !takes {
		return task.ClassIncompatibleTask, why
	}
	return "", ""
}
