package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// A partition that was lost and comes back untouched isn't gone on with where its log has lost its end meanwhile: what comes
// at the offsets that were read would count as delivered.
func TestALostPartitionWhoseLogIsShorterIsReadAnew(t *testing.T) {
	m := loneMember(t)
	for _, tt := range []struct{ end, next int64 }{{10, 10}, {6, 4}} {
		e := New(Config{Spec: &spec.Agent{Topic: "orders", Name: "biller", Config: spec.NewConfig(spec.SDK), Process: spec.NewProcess()}, Node: "n", Tiers: []time.Duration{time.Second}})
		e.member = m
		o := (*ownership)(e)
		o.Assigned(t.Context(), []hop.Assignment{{Offset: 4, LogEnd: 10}})
		var rs []*kgo.Record
		for offset := int64(4); offset < 10; offset++ {
			rs = append(rs, &kgo.Record{Offset: offset, Headers: []kgo.RecordHeader{{Key: task.HeaderAttempt, Value: []byte("1")}}})
		}
		e.admit(kgo.Fetches{{Topics: []kgo.FetchTopic{{Partitions: []kgo.FetchPartition{{Records: rs}}}}}})
		o.Lost([]int32{0})
		o.Assigned(t.Context(), []hop.Assignment{{Offset: 4, LogEnd: tt.end, Own: true}})
		if got := e.parts[0].tracker.Next(); got != tt.next || len(e.lost) != 0 {
			t.Errorf("with a log that ends at %d it was read to %d", tt.end, got)
		}
	}
}

// What is found at the assignment is the same loss.
func TestALossThatIsFoundAtTheAssignmentIsToldOf(t *testing.T) {
	var told []Alert
	e := New(Config{Spec: &spec.Agent{Topic: "orders", Name: "biller", Config: spec.NewConfig(spec.SDK), Process: spec.NewProcess()}, Node: "n", Tiers: []time.Duration{time.Second},
		Alert: func(a Alert) { told = append(told, a) }})
	e.member = loneMember(t)
	(*ownership)(e).Assigned(t.Context(), []hop.Assignment{{Partition: 0, Offset: 4, LogEnd: 10}, {Partition: 1, Offset: 7, LogEnd: 7, Reached: 12}})
	if len(told) != 1 || told[0].Kind != "records_lost" || told[0].Severity != "critical" || !strings.Contains(told[0].Message, "orders.biller/1: the broker has lost the end of the log, from offset 7 to 11") {
		t.Errorf("%+v", told)
	}
}
