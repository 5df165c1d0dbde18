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
// with all its retries. An event that claims a format and still isn't in it is rejected again.
func Redrive(names topics.Names, a *spec.Agent, rec *kgo.Record, partition int32, now time.Time) *kgo.Record {
	hs := make([]kgo.RecordHeader, 0, len(rec.Headers)+2)
	for _, h := range rec.Headers {
		if !slices.Contains(ofRound, h.Key) {
			hs = append(hs, h)
		}
	}
	hs = append(hs, kgo.RecordHeader{Key: task.HeaderAttempt, Value: firstAttempt()},
		kgo.RecordHeader{Key: task.HeaderRedrives, Value: []byte(strconv.Itoa(Redrives(rec) + 1))})
	if _, err := event.OfTask(a.Topic, rec); err != nil {
		message := err.Error()
		hs = append(hs, kgo.RecordHeader{Key: task.HeaderErrorClass, Value: []byte(task.ClassInvalidInput)},
			kgo.RecordHeader{Key: task.HeaderErrorMessage, Value: []byte(message[:min(len(message), maxMessage)])})
	}
	return &kgo.Record{Topic: names.Tasks(a.Topic, a.Name), Partition: partition, Key: rec.Key, Value: rec.Value, Headers: hs, Timestamp: now}
}
