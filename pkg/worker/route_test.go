package worker

import (
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestARouteIsHeldByAnyDestinationOnIt(t *testing.T) {
	for _, tt := range []struct {
		route, destination string
		passes             bool
	}{
		{"", "", true}, {"dlq", "", true}, {"dlq", "dlq", true}, {"dlq\x00hooks", "hooks", true}, {"dlq\x00hooks\x00answers", "answers", true}, {"dlq\x00hooks", "dlq\x00hooks", true},
		{"", "dlq", false}, {"dlq\x00hooks", "hook", false}, {"hooks", "dlq\x00hooks", false}, {offsetsOnly, "", false}, {offsetsOnly, "dlq", false}, {offsetsOnly, offsetsOnly, true},
		{"dlq", offsetsOnly, false}, {"dlq\x00hooks", offsetsOnly, false},
	} {
		if passes(tt.route, tt.destination) != tt.passes {
			t.Errorf("%q on %q: %v", tt.destination, tt.route, !tt.passes)
		}
	}
	now := time.Now()
	d := delivery{waits: map[string]wait{"hooks": {until: now.Add(time.Minute)}, "late": {until: now.Add(-time.Minute)}}}
	for route, admitted := range map[string]bool{"": true, "dlq": true, "hooks": false, "dlq\x00hooks": false, "late": true, "late\x00hooks": false, offsetsOnly: true} {
		if d.admits(route, now) != admitted {
			t.Errorf("%q is admitted: %v", route, !admitted)
		}
	}
}

func TestATopicIsLameWithoutItsReplicas(t *testing.T) {
	whole := kadm.PartitionDetail{Leader: 1, Replicas: []int32{1, 2}, ISR: []int32{2, 1}}
	short, headless := whole, whole
	short.ISR, headless.Leader = []int32{1}, -1
	for name, tt := range map[string]struct {
		p      kadm.PartitionDetail
		needed int // 0: that can't be learnt
		lame   bool
	}{
		"whole": {whole, 0, false}, "a replica is missing": {short, 2, true}, "no leader": {headless, 1, true}, "one that may be missing is": {short, 1, false},
		"it needs more than there are": {whole, 3, false}, "one that may be missing for all that is known": {short, 0, false}, "no leader, and no more is known": {headless, 0, true},
	} {
		if lamenessOf(kadm.TopicDetail{Partitions: kadm.PartitionDetails{0: tt.p}}, tt.needed).takes(nil) == tt.lame {
			t.Error(name)
		}
	}
}

// A partition that is lame says nothing of the others.
func TestALamePartitionIsInNobodysWayButItsOwn(t *testing.T) {
	whole := kadm.PartitionDetail{Leader: 1, Replicas: []int32{1, 2}, ISR: []int32{2, 1}}
	short, headless := whole, whole
	short.ISR, headless.Leader = []int32{1}, -1
	for name, tt := range map[string]struct {
		lame    kadm.PartitionDetail
		keyless bool // whether what has no key may go: a client leaves out what has no leader, and nothing else
	}{"no leader": {headless, true}, "a replica is missing": {short, false}} {
		ps := kadm.PartitionDetails{}
		for i := range int32(12) {
			ps[i] = whole
		}
		ps[7] = tt.lame
		var u userTopics
		u.learnLame("answers", lamenessOf(kadm.TopicDetail{Partitions: ps}, 2))
		if trouble, known := u.recall("answers", nil); !known || (trouble == untroubled) != tt.keyless {
			t.Errorf("%s: without a key it is %q", name, trouble)
		}
		refused := 0
		for i := range 100 {
			key := []byte(strconv.Itoa(i))
			at := kgo.StickyKeyPartitioner(nil).ForTopic("answers").Partition(&kgo.Record{Key: key}, len(ps))
			trouble, _ := u.recall("answers", key)
			if (trouble == troubleDown) != (at == 7) {
				t.Errorf("%s: on partition %d it is %q", name, at, trouble)
			} else if at == 7 {
				refused++
			}
		}
		if refused == 0 {
			t.Error("no key lives on the partition")
		}
	}
}
