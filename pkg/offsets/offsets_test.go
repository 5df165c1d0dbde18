package offsets

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The metadata's size limit holds for the worst that the tracker can produce: a full window of alternating
// offsets, 64 entries with everything in them, the longest node name.
func TestEncodeStaysBelowKafkasLimit(t *testing.T) {
	l := int64(1 << 40)
	m := Metadata{Node: strings.Repeat("n", MaxNode), Reserved: l + Window, Suspects: l + Window, Passed: Count{1 << 42, 1 << 62, 0}}
	for i := range MaxEntries {
		m.Entries = append(m.Entries, Entry{Offset: l + int64(i)*255, Attempt: MaxAttempt, Alone: true, NotBefore: 1 << 41})
	}
	for i := int64(1); i < Window; i += 2 {
		m.Settled.Add(i)
	}
	if s := m.Encode(l); len(s) > MaxBytes {
		t.Errorf("the longest metadata has %d bytes, Kafka takes %d", len(s), MaxBytes)
	}
	for i := range m.Entries {
		m.Entries[i].Kept, m.Entries[i].Burnt, m.Entries[i].Timeouts, m.Entries[i].FirstFailed = true, MaxBurnt, MaxTimeouts, 1<<41
	}
	m.Outages = []Outage{{1 << 41, 1<<41 + 1<<33}, {1<<41 + 1<<34, 1<<41 + 1<<35}, {1<<41 + 1<<36, 1<<41 + 1<<37}, {1 << 42, 0}}
	s := m.Encode(l)
	if len(s) > MaxBytes {
		t.Errorf("the longest metadata of version 3 has %d bytes, Kafka takes %d", len(s), MaxBytes)
	}
	got, err := Decode(l, s)
	if err != nil || !slices.Equal(got.Outages, m.Outages) || !got.Entries[MaxEntries-1].Kept || got.Entries[MaxEntries-1].Burnt != MaxBurnt || got.Entries[MaxEntries-1].FirstFailed != 0 {
		t.Errorf("the counts have to be kept, and the times be left out: %+v, %v", got.Entries, err)
	}
}

func drawMetadata(t *rapid.T, l int64) Metadata {
	m := Metadata{
		Clean:    rapid.Bool().Draw(t, "clean"),
		Node:     rapid.StringN(0, 25, MaxNode).Draw(t, "node"),
		Reserved: l + rapid.Int64Range(0, Window).Draw(t, "reserved"),
		Suspects: l + rapid.Int64Range(0, Window).Draw(t, "suspects"),
	}
	if rapid.Bool().Draw(t, "counts") {
		m.Passed = Count{Since: rapid.Int64Range(1, 1<<62).Draw(t, "since"), N: rapid.Int64Range(0, 1<<62).Draw(t, "passed")}
	}
	m.Strict = rapid.Bool().Draw(t, "strict")
	keeps := rapid.Bool().Draw(t, "keeps")
	copy(m.TopicID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic"))
	at := rapid.SliceOfNDistinct(rapid.Int64Range(0, Window-1), 0, MaxEntries, rapid.ID[int64]).Draw(t, "entries")
	slices.Sort(at)
	for _, o := range at {
		m.Entries = append(m.Entries, Entry{Offset: l + o, Attempt: rapid.IntRange(1, MaxAttempt).Draw(t, "attempt"),
			NotBefore: rapid.Int64Range(0, 1<<42).Draw(t, "notBefore"), Alone: rapid.Bool().Draw(t, "alone")})
		if e := &m.Entries[len(m.Entries)-1]; keeps && rapid.Bool().Draw(t, "kept") {
			e.Kept, e.Burnt, e.Timeouts = true, rapid.IntRange(0, MaxBurnt).Draw(t, "burnt"), rapid.IntRange(0, MaxTimeouts).Draw(t, "timeouts")
			e.FirstFailed = rapid.Int64Range(0, 1<<41).Draw(t, "firstFailed")
		}
	}
	for range rapid.IntRange(0, MaxOutages).Draw(t, "outages") {
		o := Outage{Since: rapid.Int64Range(0, 1<<42).Draw(t, "outage since")}
		if rapid.Bool().Draw(t, "is over") {
			o.Until = o.Since + rapid.Int64Range(1, 1<<42).Draw(t, "lasted")
		}
		m.Outages = append(m.Outages, o)
	}
	if !keeps && m.Passed.Since > 0 && len(m.Outages) == 0 { // only dispatchers pass over, and they keep nothing else
		m.Passed.Over = rapid.Int64Range(0, 1<<62).Draw(t, "over")
	}
	density := rapid.IntRange(0, 100).Draw(t, "density")
	span := rapid.Int64Range(0, Window-1).Draw(t, "span")
	draw := rapid.Uint64().Draw(t, "seed")
	for i := range span {
		draw = draw*6364136223846793005 + 1442695040888963407
		if int(draw>>33)%100 < density {
			m.Settled.Add(i)
		}
	}
	return m
}

func TestMetadataRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := rapid.Int64Range(0, 1<<50).Draw(t, "low")
		m := drawMetadata(t, l)
		s := m.Encode(l)
		if len(s) > MaxBytes {
			t.Fatalf("%d bytes", len(s))
		}
		got, err := Decode(l, s)
		if err != nil {
			t.Fatal(err)
		}
		if len(s) > MaxBytes-600 && !slices.Equal(got.Entries, m.Entries) { // no room for the times
			for i := range m.Entries {
				m.Entries[i].FirstFailed = 0
			}
		}
		if got.Clean != m.Clean || got.Strict != m.Strict || got.TopicID != m.TopicID || got.Node != m.Node || got.Reserved != m.Reserved || got.Suspects != m.Suspects ||
			got.Passed != m.Passed || !slices.Equal(got.Outages, m.Outages) || !slices.Equal(got.Entries, m.Entries) || got.Settled.Len() != m.Settled.Len() {
			t.Fatalf("wrote %+v, read %+v", m, got)
		}
		for i := range int64(len(m.Settled)) * 64 {
			if got.Settled.Has(i) != m.Settled.Has(i) {
				t.Fatalf("offset L+%d: wrote %v", i, m.Settled.Has(i))
			}
		}
	})
}

// The first release's bytes: a change of this string is a change of the format and needs a new version.
func TestFormatIsFixed(t *testing.T) {
	m := Metadata{Clean: true, Node: "a", Reserved: 120, Suspects: 110, Entries: []Entry{{Offset: 103, Attempt: 2, Alone: true, NotBefore: 5}}}
	m.TopicID[0] = 0xff
	m.Settled.Add(1)
	m.Settled.Add(2)
	const want = "AQH_AAAAAAAAAAAAAAAAAAAAAWEUCgEDBQViBg"
	if got := m.Encode(100); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	m.Passed = Count{Since: 1_700_000_000_000, N: 300}
	const counted = "AgH_AAAAAAAAAAAAAAAAAAAAAWEUCoDQlf-8MawCAQMFBWIG"
	if got := m.Encode(100); got != counted {
		t.Errorf("version 2: got %s, want %s", got, counted)
	}
	m.Strict = true
	m.Entries[0].Kept, m.Entries[0].Burnt, m.Entries[0].Timeouts, m.Entries[0].FirstFailed = true, 2, 1, 1_700_000_000_001
	const kept = "Awf_AAAAAAAAAAAAAAAAAAAAAWEUCoDQlf-8MawCAQMFBQqB0JX_vDFiBg"
	if got := m.Encode(100); got != kept {
		t.Errorf("version 3: got %s, want %s", got, kept)
	}
	m.Strict, m.Entries, m.Outages = false, nil, []Outage{{1_700_000_000_000, 1_700_000_000_002}, {1_700_000_000_005, 0}}
	const outages = "Awn_AAAAAAAAAAAAAAAAAAAAAWEUCoDQlf-8MawCAoDQlf-8MQOF0JX_vDEAAGIG"
	if got := m.Encode(100); got != outages {
		t.Errorf("version 3 with outages: got %s, want %s", got, outages)
	}
	m.Outages = nil
	m.Passed.Over, m.Entries = 5, []Entry{{Offset: 103, Attempt: 2, Alone: true, NotBefore: 5}}
	const over = "BQH_AAAAAAAAAAAAAAAAAAAAAWEUCoDQlf-8MawCBQEDBQViBg"
	if got := m.Encode(100); got != over {
		t.Errorf("version 5: got %s, want %s", got, over)
	}
	for _, old := range []string{counted, kept, over} { // a new binary meets old metadata
		if m, err := Decode(100, old); err != nil || m.Passed.N != 300 {
			t.Errorf("read %+v, %v", m, err)
		}
	}
	if m, err := Decode(100, want); err != nil || m.Entries[0].Offset != 103 || !m.Settled.Has(2) {
		t.Errorf("read %+v, %v", m, err)
	}
}

func FuzzDecode(f *testing.F) {
	m := Metadata{Node: "n", Reserved: 9, Entries: []Entry{{Offset: 7, Attempt: 3}}}
	f.Add(int64(5), m.Encode(5))
	m.Passed = Count{7, 8, 0}
	f.Add(int64(5), m.Encode(5))
	m.Entries[0].Kept, m.Entries[0].Burnt, m.Entries[0].FirstFailed = true, 3, 4
	f.Add(int64(5), m.Encode(5))
	m.Outages = []Outage{{5, 9}, {11, 0}}
	f.Add(int64(5), m.Encode(5))
	m.Passed.Over, m.Entries, m.Outages = 9, nil, nil
	f.Add(int64(5), m.Encode(5))
	f.Add(int64(0), "not base64!")
	f.Add(int64(0), "AQ")
	f.Fuzz(func(t *testing.T, l int64, s string) {
		l &= 1<<50 - 1
		m, err := Decode(l, s)
		if err != nil {
			return
		}
		again, err := Decode(l, m.Encode(l))
		if err != nil || again.Node != m.Node || m.Passed.Since > 0 && again.Passed != m.Passed || again.Settled.Len() != m.Settled.Len() || !slices.Equal(again.Outages, m.Outages) || !slices.Equal(again.Entries, m.Entries) {
			t.Fatalf("%q: %+v became %+v, %v", s, m, again, err)
		}
	})
}

// The tracker agrees with a plain map of offsets, whatever the order of delivery, settlement, failure and commit.
func TestTrackerAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.Int64Range(0, 1<<40).Draw(t, "low")
		done := map[int64]bool{} // settled, as a set
		open := map[int64]bool{} // delivered and unsettled
		var before Set
		for _, i := range rapid.SliceOfDistinct(rapid.Int64Range(1, 500), rapid.ID[int64]).Draw(t, "settled before") {
			before.Add(i)
			done[low+i] = true
		}
		tr := NewTracker(low, before)
		next := low
		check := func() {
			want := next
			for o := range open {
				want = min(want, o)
			}
			got, set := tr.Position()
			if got != want {
				t.Fatalf("position %d, want %d", got, want)
			}
			for o := want; o < want+2000; o++ {
				if set.Has(o-want) != done[o] {
					t.Fatalf("offset %d: settled %v, want %v (low %d)", o, set.Has(o-want), done[o], want)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"deliver": func(t *rapid.T) {
				o := next + rapid.Int64Range(0, 300).Draw(t, "gap")
				if !tr.Fits(o) {
					t.Skip("full")
				}
				if fresh := tr.Deliver(o); fresh == done[o] {
					t.Fatalf("deliver %d: fresh %v, settled %v", o, fresh, done[o])
				} else if fresh {
					open[o] = true
				}
				if tr.Deliver(o) {
					t.Fatalf("%d was delivered twice", o)
				}
				next = o + 1
			},
			"settle": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip("nothing open")
				}
				o := rapid.SampledFrom(slices.Sorted(maps.Keys(open))).Draw(t, "offset")
				tr.Settle(o)
				if rapid.Bool().Draw(t, "aborted") {
					tr.Unsettle(o)
					return
				}
				delete(open, o)
				done[o] = true
			},
			"advance": func(t *rapid.T) {
				tr.Advance()
				low, _ := tr.Position()
				if tr.Low() != low {
					t.Fatalf("low %d, position %d", tr.Low(), low)
				}
			},
			"": func(t *rapid.T) { check() },
		})
	})
}

func BenchmarkTracker(b *testing.B) {
	tr := NewTracker(0, nil)
	o := int64(0)
	for b.Loop() {
		for range 100 {
			tr.Deliver(o)
			tr.Settle(o)
			o++
		}
		tr.Position()
		tr.Advance()
	}
}

// A marker that is read again after Low has passed it must not settle the record that takes its place in the ring.
func TestWhatIsBelowLowIsLeftAlone(t *testing.T) {
	tr := NewTracker(0, nil)
	const span = 1000
	for o := range int64(span) {
		tr.Deliver(o)
		tr.Settle(o)
	}
	tr.Advance()
	for o := range int64(span) {
		tr.Deliver(o)
		tr.Settle(o)
	}
	for o := int64(span); o < 20*span; o++ {
		if !tr.Deliver(o) {
			t.Fatalf("the record at %d is dropped as settled", o)
		}
		tr.Settle(o)
		tr.Advance()
	}
}
