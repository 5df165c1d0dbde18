package hop

import (
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestPartitionOfSpreadsAndStays(t *testing.T) {
	tp := partitioner{}.ForTopic("t")
	counts := make([]int, 8)
	for i := range 8000 {
		what := []byte("agent-" + strconv.Itoa(i))
		r := &kgo.Record{Partition: PartitionOf(what), Key: []byte("a key that doesn't matter")}
		p := tp.Partition(r, len(counts))
		if again := tp.Partition(&kgo.Record{Partition: PartitionOf(what)}, len(counts)); p != again || !tp.RequiresConsistency(r) {
			t.Fatalf("%s is on %d and on %d", what, p, again)
		}
		counts[p]++
	}
	for p, n := range counts {
		if n < 800 || n > 1200 {
			t.Errorf("partition %d has %d of 8000", p, n)
		}
	}
}
