package rest

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/task"
)

// What is said of a failure is what its last letter says, wherever that stands on the topic; where letters don't say when they
// failed, the last of them that came.
func TestAFailureIsToldByItsLastLetter(t *testing.T) {
	letter := func(message, first, last string) *kgo.Record {
		return &kgo.Record{Headers: []kgo.RecordHeader{{Key: task.HeaderErrorMessage, Value: []byte(message)},
			{Key: task.HeaderFirstFailedAt, Value: []byte(first)}, {Key: task.HeaderLastFailedAt, Value: []byte(last)}}}
	}
	var f failure
	for i, rec := range []*kgo.Record{letter("second", "2026-01-02T00:00:00Z", "2026-01-02T12:00:00Z"), letter("third", "2026-01-03T00:00:00Z", "2026-01-03T12:00:00Z"),
		letter("first", "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z"), letter("of no time", "", "")} {
		f.add(rec, deadletter.MaxRedrives-1+i/3)
	}
	at := func(day int) time.Time { return time.Date(2026, 1, day, 12*(day/3), 0, 0, 0, time.UTC) }
	if f.count != 4 || f.guarded != 1 || f.message != "third" || !f.first.Equal(at(1)) || !f.last.Equal(at(3)) {
		t.Errorf("%+v, first %s, last %s", f, f.first, f.last)
	}
	f = failure{}
	f.add(letter("a", "", ""), 0)
	f.add(letter("b", "", ""), 0)
	if f.count != 2 || f.message != "b" || f.first != nil || f.last != nil {
		t.Errorf("%+v", f)
	}
}
