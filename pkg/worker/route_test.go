package worker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
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
		needed int
		lame   bool
	}{
		"whole": {whole, 0, false}, "a replica is missing": {short, 0, true}, "no leader": {headless, 1, true}, "one that may be missing is": {short, 1, false},
		"it needs more than there are": {whole, 3, false},
	} {
		if lame(kadm.TopicDetail{Partitions: kadm.PartitionDetails{0: tt.p}}, tt.needed) != tt.lame {
			t.Error(name)
		}
	}
}
