package bus

import (
	"slices"
	"testing"

	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

func TestDeadLettersAreCountedOneByOneAsFarAsARequestCanReadThem(t *testing.T) {
	spans := []span{{p: 0, at: peek.Bounds{Start: 5, End: 5 + exactCount + 1}}, {p: 1, at: peek.Bounds{Start: 7, End: 9}}}
	exact, others := countable(slices.Clone(spans))
	if len(exact) != 1 || exact[0].p != 1 || len(others) != 1 || others[0].p != 0 {
		t.Errorf("%v %v", exact, others)
	}
	for i := range 1000 { // agents
		spans = append(spans, span{p: int32(10 + i), at: peek.Bounds{End: int64(100 + i%900)}})
	}
	exact, others = countable(slices.Clone(spans))
	var total, longest int64
	for _, s := range exact {
		total, longest = total+s.size(), max(longest, s.size())
	}
	if total > exactTotal || total < exactTotal-exactCount || len(exact)+len(others) != len(spans) {
		t.Errorf("%d spans with %d offsets, %d others", len(exact), total, len(others))
	}
	for _, s := range others {
		if s.size() < longest {
			t.Errorf("%v is read, %v isn't", longest, s)
		}
	}
}
