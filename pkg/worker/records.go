package worker

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	// messageLimit bounds an error's message in headers, in bytes.
	messageLimit = 4 << 10
	// errorLimit bounds message and traceback in an outcome's value, so that no error is too large to be settled: as JSON
	// they may take six times as much.
	errorLimit = 64 << 10
)

// writer makes the records that settle attempts. A transaction has one; memory is taken a batch at a time, and that of
// records that are committed serves later ones: making it anew costs a tenth of all that an event does.
type writer struct {
	names         topics.Names
	agent         *spec.Agent
	node          string
	outcomes, dlq string

	recs    []kgo.Record
	headers []kgo.RecordHeader
	text    []byte
	out     []*kgo.Record
	owners  []*slot
}

// headersMost is how many headers an outcome has at most, headersEach how many nearly all have no more than, and textEach how
// many bytes nearly all have to be written for.
const (
	headersMost = 20
	headersEach = 12
	textEach    = 96
)

// records makes all records of a batch; owners names the task of each.
func (w *writer) records(batch []*slot) (out []*kgo.Record, owners []*slot) {
	w.recs = slices.Grow(w.recs[:0], len(batch))
	w.headers = slices.Grow(w.headers[:0], len(batch)*headersEach+headersMost)
	w.text = slices.Grow(w.text[:0], len(batch)*textEach)
	w.out, w.owners = slices.Grow(w.out[:0], len(batch)), slices.Grow(w.owners[:0], len(batch))
	ref := []byte(w.agent.Ref())
	version := []byte(w.agent.Version)
	place := hop.PartitionOf(ref)
	for _, s := range batch {
		w.outcome(s, ref, version, place)
		switch s.verdict.Settled {
		case task.SettledRetry:
			if s.keeps == nil {
				w.add(s, w.retry(s))
			}
			continue
		case task.SettledDLQ:
			w.add(s, w.deadLetter(s))
		}
		if s.replies() {
			w.add(s, w.reply(s))
		}
		if len(s.header.webhook) > 0 {
			w.add(s, w.webhook(s))
		}
		for _, r := range s.published() {
			w.add(s, &kgo.Record{Topic: r.Topic, Partition: hop.AnyPartition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp})
		}
	}
	return w.out, w.owners
}

// clear forgets the records, so that its memory keeps nothing of them. Nobody may read them any more.
func (w *writer) clear() {
	clear(w.recs)
	clear(w.headers)
	clear(w.out)
	clear(w.owners)
}

func (w *writer) add(s *slot, r *kgo.Record) {
	w.out, w.owners = append(w.out, r), append(w.owners, s)
}

// bytes keeps what f appends.
func (w *writer) bytes(f func([]byte) []byte) []byte {
	if cap(w.text)-len(w.text) < 128 {
		w.text = make([]byte, 0, max(cap(w.text), 4096))
	}
	from := len(w.text)
	w.text = f(w.text)
	return w.text[from:len(w.text):len(w.text)]
}

func (w *writer) int(n int) []byte {
	if n >= 0 && n < len(digits) {
		return digits[n]
	}
	return strconv.AppendInt(nil, int64(n), 10)
}

// Values that most records share; they are never written to.
var (
	digits   = [...][]byte{[]byte("0"), []byte("1"), []byte("2"), []byte("3"), []byte("4"), []byte("5"), []byte("6"), []byte("7"), []byte("8"), []byte("9")}
	yes, no  = []byte("true"), []byte("false")
	outcomes = map[task.Outcome][]byte{task.Completed: []byte(task.Completed), task.Failed: []byte(task.Failed), task.TimedOut: []byte(task.TimedOut),
		task.Crashed: []byte(task.Crashed), task.Cancelled: []byte(task.Cancelled), task.Rejected: []byte(task.Rejected), task.Discarded: []byte(task.Discarded)}
	settleds = map[task.Settled][]byte{task.SettledDone: []byte(task.SettledDone), task.SettledRetry: []byte(task.SettledRetry), task.SettledDLQ: []byte(task.SettledDLQ),
		task.SettledFailed: []byte(task.SettledFailed), task.SettledDropped: []byte(task.SettledDropped)}
)

// outcome makes the attempt's record on the outcomes topic. An agent's outcomes stand on one partition, in the order in
// which they were settled; a transaction that touches one partition is also cheaper than one that touches all.
func (w *writer) outcome(s *slot, ref, version []byte, place int32) {
	if len(w.headers)+headersMost > cap(w.headers) {
		w.headers = make([]kgo.RecordHeader, 0, headersMost*64)
	}
	from := len(w.headers)
	add := func(key string, value []byte) {
		w.headers = append(w.headers, kgo.RecordHeader{Key: key, Value: value})
	}
	redrives := s.header.redrives()
	if redrives == nil {
		redrives = digits[0]
	}
	final := yes
	if s.verdict.Settled == task.SettledRetry {
		final = no
	}
	add(task.HeaderAgent, ref)
	add(task.HeaderOrigin, s.origin())
	add(task.HeaderAttempt, w.int(s.attempt.Number))
	add(task.HeaderOutcome, outcomes[s.verdict.Outcome])
	add(task.HeaderSettled, settleds[s.verdict.Settled])
	add(task.HeaderRedrives, redrives)
	add(task.HeaderFinal, final)
	add(task.HeaderVersion, version)
	add(task.HeaderTimes, w.bytes(s.appendTimes))
	add(task.HeaderRunner, w.bytes(func(b []byte) []byte { return append(append(append(b, w.node...), ' '), s.result.Instance...) }))
	if order := s.header.order(); order != nil {
		add(task.HeaderOrder, order)
	}
	if s.header.event != nil {
		add(task.HeaderEvent, s.header.event)
	}
	if s.header.correlation != nil {
		add(task.HeaderCorrelationID, s.header.correlation)
	}
	value := s.result.Value
	if s.verdict.Class != "" {
		message := clip(s.result.Message, messageLimit)
		add(task.HeaderErrorClass, []byte(s.verdict.Class))
		add(task.HeaderErrorMessage, []byte(message))
		add(task.HeaderErrorFingerprint, []byte(Fingerprint(s.verdict.Class, message, w.agent.Version)))
		value = errorJSON(s)
	} else if s.verdict.Outcome == task.Cancelled {
		add(task.HeaderErrorMessage, []byte(clip(s.result.Message, messageLimit)))
		value = errorJSON(s)
	} else if value == nil {
		value = []byte("null")
	}
	if final[0] == 't' {
		if s.noReply != untroubled {
			add(task.HeaderReply, []byte(task.ReplyUndeliverable))
			add(task.HeaderReplyReason, []byte(s.noReply.String()))
		}
		if len(s.header.webhook) > 0 {
			add(task.HeaderWebhookState, []byte(task.WebhookPending))
		}
	}
	w.recs = append(w.recs, kgo.Record{Topic: w.outcomes, Partition: place, Key: taskID(s.origin()), Value: value, Headers: w.headers[from:len(w.headers):len(w.headers)]})
	w.add(s, &w.recs[len(w.recs)-1])
}

// origin is the record's, or where it stands itself for one that Reeve didn't write.
func (s *slot) origin() []byte {
	if s.header.origin == nil {
		r := s.attempt.Record
		s.header.origin = task.Origin{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}.AppendHeader(nil)
	}
	return s.header.origin
}

// taskID is an origin without the topic's UUID.
func taskID(origin []byte) []byte {
	slashes := 0
	for i, b := range origin {
		if b == '/' {
			if slashes++; slashes == 3 {
				return origin[:i:i]
			}
		}
	}
	return origin
}

// appendTimes writes task.HeaderTimes.
func (s *slot) appendTimes(b []byte) []byte {
	if at, _, ok := bytes.Cut(s.header.event, []byte(" ")); ok {
		b = append(b, at...)
	} else {
		b = strconv.AppendInt(b, s.attempt.Record.Timestamp.UnixMilli(), 10)
	}
	dispatched := s.attempt.Record.Timestamp
	if s.hold != nil && s.hold.due.After(dispatched) { // the attempt's own: when it might have started
		dispatched = s.hold.due
	}
	b = strconv.AppendInt(append(b, ' '), dispatched.UnixMilli(), 10)
	b = strconv.AppendInt(append(b, ' '), millis(s.attempt.started), 10)
	return strconv.AppendInt(append(b, ' '), millis(s.ended), 10)
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// errorJSON is the value of a failed attempt's outcome.
func errorJSON(s *slot) []byte {
	b, _ := json.Marshal(struct { // strings and a bool always marshal
		Error     string     `json:"error"`
		Class     task.Class `json:"error_class,omitempty"`
		Type      string     `json:"error_type,omitempty"`
		Traceback string     `json:"traceback,omitempty"`
		Derived   bool       `json:"derived,omitempty"`
	}{clip(s.message(), errorLimit), s.verdict.Class, clip(s.result.Type, messageLimit), clip(s.result.Traceback, errorLimit), s.verdict.Derived})
	return b
}

func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}

// carried copies the record's headers but those that are named, which the caller writes anew.
func carried(r *kgo.Record, anew ...string) []kgo.RecordHeader {
	hs := make([]kgo.RecordHeader, 0, len(r.Headers)+len(anew))
	for _, h := range r.Headers {
		if !slices.Contains(anew, h.Key) {
			hs = append(hs, h)
		}
	}
	return hs
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// failure makes the headers that tell of the failure.
func (w *writer) failure(s *slot, hs []kgo.RecordHeader) []kgo.RecordHeader {
	ended := s.ended
	if ended.IsZero() {
		ended = time.Now()
	}
	last := []byte(ended.UTC().Format(timeFormat))
	first := s.header.before().firstFailed
	if first == nil {
		first = last
	}
	message := clip(s.result.Message, messageLimit)
	return append(hs,
		kgo.RecordHeader{Key: task.HeaderErrorClass, Value: []byte(s.verdict.Class)},
		kgo.RecordHeader{Key: task.HeaderErrorMessage, Value: []byte(message)},
		kgo.RecordHeader{Key: task.HeaderErrorFingerprint, Value: []byte(Fingerprint(s.verdict.Class, message, w.agent.Version))},
		kgo.RecordHeader{Key: task.HeaderFirstFailedAt, Value: first},
		kgo.RecordHeader{Key: task.HeaderLastFailedAt, Value: last},
	)
}

var failureHeaders = []string{task.HeaderErrorClass, task.HeaderErrorMessage, task.HeaderErrorFingerprint, task.HeaderFirstFailedAt, task.HeaderLastFailedAt}

// retry makes the record on the tier's topic.
func (w *writer) retry(s *slot) *kgo.Record {
	r := s.attempt.Record
	hs := w.failure(s, carried(r, slices.Concat(accountHeaders, failureHeaders)...))
	hs = s.account.headers(append(hs, kgo.RecordHeader{Key: task.HeaderAttempt, Value: w.int(s.attempt.Number + 1)}), w.int)
	return &kgo.Record{Topic: w.names.Retry(s.verdict.Delay), Partition: hop.AnyPartition, Key: r.Key, Value: r.Value, Headers: hs}
}

// deadLetter makes the record on the agent's DLQ: the event as it came, and what went wrong.
func (w *writer) deadLetter(s *slot) *kgo.Record {
	r := s.attempt.Record
	hs := w.failure(s, carried(r, slices.Concat(accountHeaders, failureHeaders, []string{task.HeaderAttempts})...))
	hs = append(hs, kgo.RecordHeader{Key: task.HeaderAttempts, Value: w.int(s.attempt.Number)})
	return &kgo.Record{Topic: w.dlq, Partition: hop.AnyPartition, Key: r.Key, Value: r.Value, Headers: hs}
}
