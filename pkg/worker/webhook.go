package worker

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/task"
)

// What a webhook carries at most, in bytes. What is larger is left out, and the body says so: receivers of webhooks take a
// few megabytes at best, and the whole result is in REST and on the outcomes topic.
const (
	webhookContent = 256 << 10
	webhookResult  = 1 << 20
	webhookBody    = 4 << 20 // of all, escaped
)

// webhook makes the record that a dispatcher sends to the event's URL. Its value is the body, the same in every try.
func (w *writer) webhook(s *slot) *kgo.Record {
	body := w.webhookBody(s, s.bare)
	if len(body) > webhookBody {
		body = w.webhookBody(s, true)
	}
	redrives := s.header.redrives()
	if redrives == nil {
		redrives = digits[0]
	}
	hs := []kgo.RecordHeader{
		{Key: task.HeaderWebhook, Value: s.header.webhook},
		{Key: task.HeaderAgent, Value: []byte(w.agent.Ref())},
		{Key: task.HeaderOrigin, Value: s.origin()},
		{Key: task.HeaderRedrives, Value: redrives},
		{Key: task.HeaderOutcome, Value: outcomes[s.verdict.Outcome]},
		{Key: task.HeaderTimes, Value: w.bytes(s.appendTimes)},
	}
	if s.header.event != nil {
		hs = append(hs, kgo.RecordHeader{Key: task.HeaderEvent, Value: s.header.event})
	}
	if s.header.correlation != nil {
		hs = append(hs, kgo.RecordHeader{Key: task.HeaderCorrelationID, Value: s.header.correlation})
	}
	return &kgo.Record{Topic: w.names.Webhooks(), Partition: hop.AnyPartition, Key: taskID(s.origin()), Value: body, Headers: hs}
}

// webhookBody writes what the receiver gets:
//
//	{"type":"task.completed","timestamp":"…","payload":{…, "runner_id":"…","status":"completed","result":…,"timestamp":…}}
//
// type and timestamp are where Standard Webhooks has them. The payload is what the agent got, with how the task ended.
func (w *writer) webhookBody(s *slot, bare bool) []byte {
	at := s.ended
	if at.IsZero() {
		at = time.Now()
	}
	status := string(s.verdict.Outcome)
	if s.verdict.Class != "" {
		status = string(task.Failed)
	}
	b := append([]byte(`{"type":"task.`), status...)
	b = append(b, `","timestamp":"`...)
	b = append(at.UTC().AppendFormat(b, timeFormat), `","payload":{`...)
	b = append(w.webhookEvent(b, s, bare), ',')
	end, _ := json.Marshal(w.webhookEnd(s, status, at, bare)) // content is JSON, all else are texts and numbers
	b = append(b, end[1:]...)
	return append(b, '}')
}

// webhookEvent appends the members of the event's payload, without its braces.
func (w *writer) webhookEvent(b []byte, s *slot, bare bool) []byte {
	r, params := s.attempt.Record, event.Params{Topic: w.agent.Topic, Agent: w.agent.Name, Consumer: w.node, Attempt: max(s.attempt.Number, 1)}
	if !bare && len(r.Value) <= webhookContent {
		if payload, err := event.AppendPayload(nil, r, params); err == nil {
			return append(b, payload[1:len(payload)-1]...)
		}
	}
	// Too large, or not in the format that it claims, which is why it failed: Reeve's headers say all but the content.
	plain := &kgo.Record{Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp}
	for _, h := range r.Headers {
		if strings.HasPrefix(h.Key, "reeve-") {
			plain.Headers = append(plain.Headers, h)
		}
	}
	payload, _ := event.AppendPayload(nil, plain, params) // a raw event is in any format
	return append(append(b, payload[1:len(payload)-1]...), `,"content_omitted":true`...)
}

// webhookEnd is how the task ended.
func (w *writer) webhookEnd(s *slot, status string, at time.Time, bare bool) any {
	end := struct {
		Task      string          `json:"task"`
		Version   string          `json:"version"`
		Redrives  int             `json:"redrives"`
		Runner    string          `json:"runner_id"`
		Status    string          `json:"status"`
		Outcome   task.Outcome    `json:"outcome"`
		Settled   task.Settled    `json:"settled"`
		Result    json.RawMessage `json:"result,omitempty"`
		Omitted   bool            `json:"result_omitted,omitempty"`
		Error     string          `json:"error,omitempty"`
		Class     task.Class      `json:"error_class,omitempty"`
		Type      string          `json:"error_type,omitempty"`
		Timestamp float64         `json:"timestamp"`
	}{Task: string(taskID(s.origin())), Version: w.agent.Version, Redrives: s.header.round(), Runner: w.node, Status: status,
		Outcome: s.verdict.Outcome, Settled: s.verdict.Settled, Timestamp: float64(at.UnixMilli()) / 1000}
	switch {
	case s.verdict.Outcome != task.Completed:
		end.Error, end.Class, end.Type = clip(s.message(), messageLimit), s.verdict.Class, clip(s.result.Type, messageLimit)
		if end.Type == "" {
			end.Type = "error"
		}
	case bare || len(s.result.Value) > webhookResult:
		end.Result, end.Omitted = json.RawMessage("null"), true
	default:
		end.Result = s.content()
	}
	return end
}
