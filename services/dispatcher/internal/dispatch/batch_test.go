package dispatch

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
)

// roomy is a rule that lets as many records pass as it has places left.
type roomy struct {
	awaited
	places int
}

func (r *roomy) Take(_ int32, records []*kgo.Record, limit int) ([]*kgo.Record, time.Duration) {
	n := min(len(records), limit, r.places)
	r.places -= n
	return records[:n], time.Second
}

// fill holds n records of each of some partitions.
func fill(rule Rule, n int, partitions ...int32) *Carrier {
	c := &Carrier{cfg: CarrierConfig{Rule: rule}, parts: map[int32]*held{}}
	for _, p := range partitions {
		h := &held{}
		for i := range n {
			h.queue = append(h.queue, &kgo.Record{Partition: p, Offset: int64(i)})
		}
		c.parts[p] = h
	}
	return c
}

func TestATransactionsRoomIsSharedByPartitions(t *testing.T) {
	for name, x := range map[string]struct {
		held       int
		partitions []int32
		want       map[int32]int
	}{
		"one has all of it":              {9000, []int32{4}, map[int32]int{4: maxBatch}},
		"each of two has a half":         {9000, []int32{1, 4}, map[int32]int{1: maxBatch / 2, 4: maxBatch / 2}},
		"all that is held, if it fits":   {100, []int32{1, 4, 7}, map[int32]int{1: 100, 4: 100, 7: 100}},
		"no shares that aren't worth it": {9000, []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, map[int32]int{1: share, 2: share, 3: share, 4: share, 5: share, 6: share, 7: share, 8: share, 9: share, 10: share}},
	} {
		b, _ := fill(&roomy{places: 1 << 20}, x.held, x.partitions...).choose(hop.Generation{})
		got := map[int32]int{}
		for p, taken := range b.taken {
			got[p] = taken.n
		}
		if len(got) != len(x.want) {
			t.Errorf("%s: %v", name, got)
		}
		for p, n := range x.want {
			if got[p] != n {
				t.Errorf("%s: %v, not %v", name, got, x.want)
			}
		}
	}
}

// However little finds room, and however many partitions there are, all of them get on alike.
func TestNoPartitionFallsBehindTheOthers(t *testing.T) {
	for _, places := range []int{300, 700, 2600, maxBatch} {
		for _, partitions := range []int{2, 8, 12, 40} {
			rule := &roomy{}
			var ps []int32
			for p := range partitions {
				ps = append(ps, int32(p))
			}
			const most = 20_000
			c := fill(rule, most, ps...)
			for range 50 {
				rule.places = places
				b, _ := c.choose(hop.Generation{})
				c.done(b)
			}
			least, furthest := int64(most), int64(0)
			for _, h := range c.parts {
				least, furthest = min(least, h.next), max(furthest, h.next)
			}
			if furthest-least > maxBatch {
				t.Errorf("%d places a transaction, %d partitions: one is at %d, another at %d", places, partitions, least, furthest)
			}
			if total := int64(50 * places); furthest < total/int64(partitions)/2 && furthest < most {
				t.Errorf("%d places a transaction, %d partitions: the furthest is at %d", places, partitions, furthest)
			}
		}
	}
}

func TestAPartitionThatHeldNothingHasNoClaimToWhatTheOthersHad(t *testing.T) {
	rule := &roomy{}
	c := fill(rule, 20_000, 0, 1, 2)
	late := c.parts[2]
	delete(c.parts, 2)
	move := func() batch {
		rule.places = 1000
		b, _ := c.choose(hop.Generation{})
		c.done(b)
		return b
	}
	for range 20 {
		move()
	}
	c.parts[2] = late
	for range 3 {
		move()
	}
	if n := late.next; n < 500 || n > 1500 {
		t.Errorf("of 3000 places it had %d", n)
	}
}
