package redrive

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

func record(headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: "reeve.dlq.orders.bill", Value: []byte("v")}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func TestHowARedrivenTaskEnded(t *testing.T) {
	outcome := func(final, settled, class, message string) *kgo.Record {
		return record(task.HeaderFinal, final, task.HeaderSettled, settled, task.HeaderErrorClass, class, task.HeaderErrorMessage, message)
	}
	cause := worker.Fingerprint(task.ClassNetwork, "host 17 is gone", "")
	for name, c := range map[string]struct {
		record *kgo.Record
		how    end
		ok     bool
	}{
		"a retry is no end":               {outcome("false", "retry", "network", "host 18 is gone"), 0, false},
		"completed":                       {outcome("true", "done", "", ""), completed, true},
		"cancelled":                       {outcome("true", "dropped", "", ""), gone, true},
		"the failure that it had":         {outcome("true", "dlq", "network", "host 18 is gone"), same, true},
		"the same where no DLQ is wanted": {outcome("true", "failed", "network", "host 18 is gone"), same, true},
		"another message":                 {outcome("true", "dlq", "network", "no route"), other, true},
		"another class":                   {outcome("true", "dlq", "internal", "host 17 is gone"), other, true},
	} {
		if how, ok := endOf(c.record, cause); how != c.how || ok != c.ok {
			t.Errorf("%s: %v, %v", name, how, ok)
		}
	}
}
