package history

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func record(headers ...string) *kgo.Record {
	r := &kgo.Record{Partition: 3, Offset: 9, Timestamp: time.UnixMilli(1234)}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestReadTakesAnOutcomeApart(t *testing.T) {
	var a attempt
	err := a.read(record("reeve-agent", "t/n", "reeve-origin", "t/2/77/UUID", "reeve-attempt", "3", "reeve-outcome", "timed_out", "reeve-settled", "retry",
		"reeve-redrives", "1", "reeve-version", "2.0", "reeve-event", "55 id with spaces", "reeve-times", "1 2 3 4", "reeve-runner", "node inst", "reeve-error-class", "timeout"), headerKeys())
	if err != nil {
		t.Fatal(err)
	}
	if string(a.agent) != "t/n" || string(a.topicID) != "UUID" || a.partition != 2 || a.offset != 77 || a.number != 3 || a.redrives != 1 || a.status != retrying ||
		string(a.eventID) != "id with spaces" || a.published != 1 || a.dispatched != 2 || a.started != 3 || a.settled != 1234 || a.atPartition != 3 || a.atOffset != 9 {
		t.Errorf("%+v", a)
	}
}

func TestReadRefusesWhatIsNoOutcome(t *testing.T) {
	for _, r := range []*kgo.Record{
		record(),
		record("reeve-agent", "tn", "reeve-origin", "t/2/77", "reeve-outcome", "completed"),
		record("reeve-agent", "t/n", "reeve-origin", "t/x/77", "reeve-outcome", "completed"),
		record("reeve-agent", "t/n", "reeve-origin", "t/1/", "reeve-outcome", "completed"),
		record("reeve-agent", "t/n", "reeve-origin", "t", "reeve-outcome", "completed"),
	} {
		var a attempt
		if a.read(r, headerKeys()) == nil {
			t.Errorf("%v was taken", r.Headers)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("t/n", "t/2/77/UUID", "1 2 3 4", "55 id")
	f.Fuzz(func(t *testing.T, agent, origin, times, event string) {
		var a attempt
		if a.read(record("reeve-agent", agent, "reeve-origin", origin, "reeve-outcome", "completed", "reeve-times", times, "reeve-event", event), headerKeys()) == nil {
			var text lines
			text.attempt(1, 2, &a)
			if n := len(text); text[n-1] != '\n' {
				t.Error("no line")
			}
		}
	})
}
