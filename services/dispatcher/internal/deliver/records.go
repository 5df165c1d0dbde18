package deliver

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

const (
	timeFormat   = "2006-01-02T15:04:05.000Z07:00"
	messageLimit = 4 << 10
)

// records are what a webhook becomes: where it goes, if it goes on, and what is told of it. One that was merely put off
// isn't news.
func (i *item) records(names topics.Names, tiers []time.Duration, now time.Time) []*kgo.Record {
	var out []*kgo.Record
	switch i.verdict.State {
	case Retrying:
		out = append(out, i.again(names.WebhookRetry(NextTier(tiers, i.verdict.Wait)), now))
	case Failed:
		out = append(out, i.deadLetter(names.WebhookDLQ()))
	}
	if !i.verdict.Deferred && !i.silent {
		out = append(out, i.told(names.Status(), now))
	}
	return out
}

// changing are the headers that are written anew each time.
var changing = []string{task.HeaderAttempt, task.HeaderAttempts, task.HeaderDeferred, task.HeaderNotBefore, task.HeaderErrorClass, task.HeaderErrorMessage,
	task.HeaderErrorFingerprint, task.HeaderFirstFailedAt, task.HeaderLastFailedAt}

func (i *item) carried() []kgo.RecordHeader {
	return slices.DeleteFunc(slices.Clone(i.Record.Headers), func(h kgo.RecordHeader) bool { return slices.Contains(changing, h.Key) })
}

// failure are the headers that tell of the last failure; of one that was put off they stay as they are.
func (i *item) failure() []kgo.RecordHeader {
	if i.verdict.Deferred {
		var hs []kgo.RecordHeader
		for _, h := range i.Record.Headers {
			if h.Key != task.HeaderAttempt && h.Key != task.HeaderAttempts && h.Key != task.HeaderDeferred && h.Key != task.HeaderNotBefore && slices.Contains(changing, h.Key) {
				hs = append(hs, h)
			}
		}
		return hs
	}
	last := i.ended.UTC().Format(timeFormat)
	first := route.Header(i.Record, task.HeaderFirstFailedAt)
	if first == "" {
		first = last
	}
	message := clip(i.verdict.Message)
	return []kgo.RecordHeader{
		{Key: task.HeaderErrorClass, Value: []byte(i.verdict.Class)},
		{Key: task.HeaderErrorMessage, Value: []byte(message)},
		{Key: task.HeaderErrorFingerprint, Value: []byte(worker.Fingerprint(i.verdict.Class, message, i.Endpoint))},
		{Key: task.HeaderFirstFailedAt, Value: []byte(first)},
		{Key: task.HeaderLastFailedAt, Value: []byte(last)},
	}
}

func clip(text string) string {
	if len(text) <= messageLimit {
		return text
	}
	return strings.ToValidUTF8(text[:messageLimit], "")
}

// tries is how often it was tried.
func (i *item) tries() int {
	if i.verdict.Deferred || i.status == 0 && i.cancel == nil { // not this time
		return i.Attempt - 1
	}
	return i.Attempt
}

// again makes the record that waits.
func (i *item) again(topic string, now time.Time) *kgo.Record {
	hs := append(i.carried(), i.failure()...)
	hs = append(hs, kgo.RecordHeader{Key: task.HeaderAttempt, Value: strconv.AppendInt(nil, int64(i.tries()+1), 10)},
		kgo.RecordHeader{Key: task.HeaderNotBefore, Value: strconv.AppendInt(nil, now.Add(i.verdict.Wait).UnixMilli(), 10)})
	if i.Before > 0 {
		hs = append(hs, kgo.RecordHeader{Key: task.HeaderAttempts, Value: strconv.AppendInt(nil, int64(i.Before), 10)})
	}
	if i.verdict.Deferred {
		hs = append(hs, kgo.RecordHeader{Key: task.HeaderDeferred, Value: strconv.AppendInt(nil, int64(i.Deferred+1), 10)})
	}
	return &kgo.Record{Topic: topic, Partition: hop.AnyPartition, Key: i.Record.Key, Value: i.Record.Value, Headers: hs}
}

// deadLetter makes the record of what was given up: the body as it was sent, and what went wrong.
func (i *item) deadLetter(topic string) *kgo.Record {
	hs := append(append(i.carried(), i.failure()...), kgo.RecordHeader{Key: task.HeaderAttempts, Value: strconv.AppendInt(nil, int64(i.Before+i.tries()), 10)})
	return &kgo.Record{Topic: topic, Partition: hop.AnyPartition, Key: i.Record.Key, Value: i.Record.Value, Headers: hs}
}

// told makes the record of the status topic.
func (i *item) told(topic string, now time.Time) *kgo.Record {
	agent := route.Header(i.Record, task.HeaderAgent)
	of, name, _ := strings.Cut(agent, "/")
	s := status.Webhook{Event: status.EventWebhook, Topic: of, AgentName: name, Origin: route.Header(i.Record, task.HeaderOrigin),
		Redrives: number(route.Header(i.Record, task.HeaderRedrives)), ID: i.ID, Endpoint: i.Endpoint, State: string(i.verdict.State), Attempts: i.Before + i.tries(),
		StatusCode: i.status, ErrorClass: string(i.verdict.Class), Error: clip(i.verdict.Message), Timestamp: status.Seconds(i.ended)}
	if i.Attempt == 1 {
		s.Order = route.Header(i.Record, task.HeaderOrder)
	}
	if i.verdict.State == Retrying {
		s.NextAt = status.Seconds(now.Add(i.verdict.Wait))
	}
	value, _ := json.Marshal(s) // texts and numbers always marshal
	return &kgo.Record{Topic: topic, Partition: hop.AnyPartition, Key: i.Record.Key, Value: value}
}

// ended reads when the task ended, in Unix milliseconds; 0 where nobody noted it.
func ended(r *kgo.Record) int64 {
	times := strings.Fields(route.Header(r, task.HeaderTimes))
	if len(times) != 4 {
		return 0
	}
	return int64(number(times[3]))
}
