package hop_test

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// What was polled is not lost, wherever the last commit stands: the range begins behind it.
func TestWhatRetentionTakesFromAMemberThatConsumesIsReportedFromWhereItReads(t *testing.T) {
	s := newStand(t, "in", "out")
	s.publish("in", 0, 20)
	h := newHandler()
	m := s.member("a", h)
	copyTo(t, m, s.pool("a"), "a", "out", 20)
	m.Pause(0)
	<-time.After(1100 * time.Millisecond) // a fetch that was under way has ended by then: it would bring what is published now
	s.publish("in", 20, 20)
	if _, err := s.adm.DeleteRecords(t.Context(), kadm.Offsets{"in": {0: {Topic: "in", Partition: 0, At: 30}}}); err != nil {
		t.Fatal(err)
	}
	m.Resume(0)
	copyTo(t, m, s.pool("b"), "a", "out", 40)
	for limit := time.After(time.Minute); ; {
		h.mu.Lock()
		told := slices.Clone(h.overtaken)
		h.mu.Unlock()
		if slices.Equal(told, []int64{20, 30}) {
			return
		}
		select {
		case <-limit:
			t.Fatalf("reported %v", told)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
