package offsets

import "testing"

func TestWhoGoesOnWithAWorkGoesOnCounting(t *testing.T) {
	const work, another = 7, 8
	var l Ledger
	for _, offset := range []int64{0, 4, 9} { // far ones and none
		l = l.Settle(offset, offset+1).Count(work, 1)
		m := Metadata{Passed: l.Counted, Far: l.Settled}
		read, err := Decode(l.Low, m.Encode(l.Low))
		if err != nil {
			t.Fatal(err)
		}
		l = LedgerAt(l.Low, read)
	}
	if l.CountOf(work) != 3 || l.CountOf(another) != 0 {
		t.Errorf("%+v", l)
	}
	if l = l.Settle(20, 30); l.CountOf(work) != 3 {
		t.Errorf("settled without counting: %+v", l)
	}
	if l = l.Count(another, 2); l.CountOf(another) != 2 || l.CountOf(work) != 0 {
		t.Errorf("another work: %+v", l)
	}
}
