package offsets

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRunsAgreeWithASetOfOffsets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.Int64Range(0, 50).Draw(t, "low")
		model := map[int64]bool{}
		l := Ledger{Low: low}
		at := low
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			from := at + rapid.Int64Range(0, 80).Draw(t, "from")
			to := from + rapid.Int64Range(0, 6).Draw(t, "length")
			before := slices.Clone(l.Settled)
			next := l.Settle(from, to)
			if !slices.Equal(before, l.Settled) {
				t.Fatalf("what was before has changed: %v, %v", before, l.Settled)
			}
			for o := from; o < to; o++ {
				model[o] = true
			}
			for model[at] {
				at++
			}
			if next.Low != at {
				t.Fatalf("committed at %d, want %d", next.Low, at)
			}
			l = next
		}
		rs := l.Settled
		var n int64
		for o := at; o < low+300; o++ {
			if l.Open(o) == model[o] {
				t.Fatalf("%d of %v: %v", o, rs, model[o])
			}
			if !model[o] {
				n++
			}
		}
		if l.Within(low, low+300) != n || l.Within(at, low+300) != n {
			t.Fatalf("%v has %d open, want %d", rs, l.Within(low, low+300), n)
		}
		m := Metadata{Node: "n", Far: rs}
		got, err := Decode(at, m.Encode(at))
		if err != nil || !slices.Equal(got.Far, rs) || LedgerAt(at, got).Low != at {
			t.Fatalf("%v became %v, %v", rs, got.Far, err)
		}
		cut := got.From(at, at+40)
		for o := at + 40; o < low+300; o++ {
			if cut.Far.Has(o) != rs.Has(o) {
				t.Fatalf("cut at %d, %d of %v: %v", at+40, o, cut.Far, rs.Has(o))
			}
		}
	})
}

// How scattered dead letters may be settled in any case.
func TestSettledDeadLettersFitTheMetadata(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, c := range map[string]struct {
		letters int
		gap     int64 // between two letters: a transaction's marker stands behind each where they die one by one
		settled func(i int) bool
	}{
		"every second of a million":           {1_000_000, 1, func(i int) bool { return i%2 == 1 }},
		"one fingerprint of three, at random": {15_000, 1, func(int) bool { return random.IntN(3) == 0 }},
		"the same, with markers":              {15_000, 2, func(int) bool { return random.IntN(3) == 0 }},
		"900 here and there in ten millions":  {10_000_000, 1, func(i int) bool { return i%11_111 == 5_000 }},
		"all but a few":                       {1_000_000, 2, func(i int) bool { return i%10_000 != 0 }},
	} {
		var rs Runs
		open := int64(0)
		for i := range c.letters {
			o := int64(i) * c.gap
			if !c.settled(i) {
				open = o + 1
				continue
			}
			if n := len(rs); n > 0 && rs[n-1].To == open {
				rs[n-1].To = o + 1
			} else {
				rs = append(rs, Range{open, o + 1})
			}
			open = o + 1
		}
		low, rs := rs.above(0)
		m := Metadata{Node: strings.Repeat("n", MaxNode), TopicID: [16]byte{1}, Far: rs}
		text := m.Encode(low)
		if !Fits(text) {
			t.Errorf("%s: %d runs take %d bytes", name, len(rs), len(text))
			continue
		}
		if got, err := Decode(low, text); err != nil || !slices.Equal(got.Far, rs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var scattered Runs
	for i := range int64(4000) {
		at := 1 + i*100_000 + random.Int64N(50_000)
		scattered = append(scattered, Range{at, at + 1})
	}
	m := Metadata{Far: scattered}
	if Fits(m.Encode(0)) {
		t.Error("4,000 places at random in 400 millions fit")
	}
}

func FuzzDecodeRuns(f *testing.F) {
	for _, rs := range []Runs{{{3, 4}}, {{1, 9}, {100, 5000}}, {{2, 1 << 40}}} {
		m := Metadata{Far: rs}
		f.Add(m.Encode(1))
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Decode(1, text)
		if err != nil {
			return
		}
		for i, r := range m.Far {
			if r.From >= r.To || i > 0 && r.From <= m.Far[i-1].To {
				t.Fatalf("%v", m.Far)
			}
		}
	})
}

// What lies from an end on is forgotten, whatever form it has.
func TestMetadataBelowAnEnd(t *testing.T) {
	var settled Set
	settled.Add(2)
	settled.Add(70)
	m := Metadata{Reserved: 200, Suspects: 5, Settled: settled, Entries: []Entry{{Offset: 20}, {Offset: 90}}, Far: Runs{{11, 13}, {15, 30}, {95, 99}}}
	if got := (Metadata{}).Reach(10); got != 10 {
		t.Errorf("nothing reaches to %d", got)
	}
	if got := m.Reach(10); got != 99 {
		t.Errorf("it reaches to %d", got)
	}
	for _, tt := range []struct {
		end, reach int64
		settled    int
		entries    int
		far        Runs
	}{
		{100, 99, 2, 2, m.Far}, {99, 99, 2, 2, m.Far}, {81, 81, 2, 1, m.Far[:2]}, {80, 30, 1, 1, m.Far[:2]}, {20, 20, 1, 0, Runs{{11, 13}, {15, 20}}},
		{15, 13, 1, 0, m.Far[:1]}, {12, 12, 0, 0, Runs{{11, 12}}}, {5, 10, 0, 0, nil},
	} {
		b := m.Below(10, tt.end)
		if b.Reach(10) != tt.reach || b.Settled.Len() != tt.settled || len(b.Entries) != tt.entries || !slices.Equal(b.Far, tt.far) || b.Reserved != min(200, tt.end) {
			t.Errorf("below %d: %+v reaches to %d", tt.end, b, b.Reach(10))
		}
		if l := (Ledger{Low: 10, Settled: m.Far}).Below(tt.end); l.Low != min(10, tt.end) || !slices.Equal(l.Settled, tt.far) {
			t.Errorf("below %d: %+v", tt.end, l)
		}
	}
	if m.Settled.Len() != 2 || len(m.Far) != 3 || m.Far[1].To != 30 {
		t.Errorf("it has changed: %+v", m)
	}
}
