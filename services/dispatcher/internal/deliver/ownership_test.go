package deliver

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
)

// While a partition is handed over its last tries end and are committed, which makes room in its window. The flawed way
// fills it again: the partition never runs dry, and what was sent meanwhile is cut off and sent once more by the next owner.
func TestAPartitionThatIsHandedOverStartsNothing(t *testing.T) {
	d := &Deliverer{cfg: Config{Metrics: NewMetrics(nil)}, stopping: true, wake: make(chan struct{}, 1), parts: map[int32]*part{}, endpoints: map[string]*endpoint{}}
	at := func(offset int64) *kgo.Record {
		r := record("https://example.com/in")
		r.Offset = offset
		return r
	}
	for _, leaving := range []bool{false, true} {
		p := &part{tracker: offsets.NewTracker(0, nil), pending: []*kgo.Record{at(0), at(1)}, leaving: leaving, flight: map[*item]struct{}{}}
		d.parts[0] = p
		d.committed(&transaction{parts: []*part{p}})
		queued := 0
		for _, e := range d.endpoints {
			queued += len(e.queue)
		}
		if want := map[bool]int{false: 2, true: 0}[leaving]; queued != want {
			t.Errorf("leaving %v: %d are to be sent, not %d", leaving, queued, want)
		}
		d.endpoints = map[string]*endpoint{}
	}
}
