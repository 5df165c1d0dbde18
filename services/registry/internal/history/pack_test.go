package history

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestAPackGivesBackWhatWasPutIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]byte("abc 0")), 0, 4)
		id := rapid.OneOf(text, rapid.Map(rapid.SampledFrom([]string{"t:3:", "t:4:", "tt:3:", ":3:", "t:3:0"}), func(s string) []byte { return []byte(s + "1099511627776") }),
			rapid.Map(rapid.StringMatching(`[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-g]{12}`), func(s string) []byte { return []byte(s) }))
		number := rapid.Int64Range(-5, 1<<45)
		var b builder
		var in []attempt
		for range rapid.IntRange(1, 50).Draw(t, "count") {
			a := attempt{agent: []byte("t/n"), partition: 3, offset: 1<<40 + rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 2*span)).Draw(t, "offset"), atPartition: rapid.Int32Range(0, 100).Draw(t, "at"), atOffset: number.Draw(t, "atOffset"),
				published: number.Draw(t, "published"), dispatched: number.Draw(t, "dispatched"), started: number.Draw(t, "started"), settled: number.Draw(t, "settled"),
				version: text.Draw(t, "version"), runner: text.Draw(t, "runner"), eventID: id.Draw(t, "event")}
			if !b.fits(&a) {
				continue
			}
			b.add(&a)
			in = append(in, a)
		}
		out, err := unpack(7, "t", 3, b.data)
		if err != nil || len(out) != len(in) || b.last-b.first >= span {
			t.Fatalf("%d of %d, %v", len(out), len(in), err)
		}
		for i, a := range in {
			got, want := out[i], Attempt{ID: 7 + int64(i), Partition: 3, Offset: a.offset, Attempt: 1, StatusNumber: completed, OutcomeNumber: 1, AtPartition: a.atPartition,
				AtOffset: a.atOffset, PublishedMS: a.published, DispatchedMS: a.dispatched, StartedMS: a.started, SettledMS: a.settled, Version: string(a.version),
				Runner: string(a.runner), EventID: string(a.eventID)}
			if got != want {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		}
	})
}

// Ids that many events have take no place, or little.
func TestEventIdsThatMostEventsHaveAreSmall(t *testing.T) {
	for id, want := range map[string]int{"t:3:9": 1, "t:3:10": 7, "7f1c1d9e-0b5c-4f0e-9d6a-00000000002a": 17, "7F1C1D9E-0b5c-4f0e-9d6a-00000000002a": 37, "7f1c1d9e": 9, "": 1} {
		a := &attempt{agent: []byte("t/n"), partition: 3, offset: 9, eventID: []byte(id)}
		if got := len(appendEventID(nil, a, a.eventID)); got != want {
			t.Errorf("%s takes %d bytes, want %d", id, got, want)
		}
	}
}

func TestAPackHasAThousandAttemptsAtMost(t *testing.T) {
	var b builder
	a := &attempt{}
	for b.fits(a) && b.count < 2*mostInPack {
		b.add(a)
	}
	if out, err := unpack(1, "t", 0, b.data); err != nil || len(out) != mostInPack {
		t.Errorf("%d attempts, %v", len(out), err)
	}
}

// firstPack is a pack as it was written in version 1: tasks 3 and 5 of the events "e" and "t:1:5".
var firstPack = []byte{1, 6, 2, 18, 20, 2, 4, 6, 2, '1', 3, 'n', ' ', 1, 'e', 4, 2, 2, 2, 2, 4, 6, 0, 0, 5, 't', ':', '1', ':', '5'}

func TestAPackOfTheFirstVersionIsRead(t *testing.T) {
	out, err := unpack(7, "t", 1, firstPack)
	if err != nil || len(out) != 2 {
		t.Fatal(out, err)
	}
	for i, want := range []Attempt{
		{ID: 7, Offset: 3, AtOffset: 9, PublishedMS: 10, DispatchedMS: 11, StartedMS: 13, SettledMS: 16, EventID: "e"},
		{ID: 8, Offset: 5, AtOffset: 10, PublishedMS: 11, DispatchedMS: 12, StartedMS: 14, SettledMS: 17, EventID: "t:1:5"},
	} {
		want.Partition, want.Attempt, want.StatusNumber, want.OutcomeNumber, want.AtPartition, want.Version, want.Runner = 1, 1, completed, 1, 2, "1", "n "
		if out[i] != want {
			t.Errorf("got %+v, want %+v", out[i], want)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	var b builder
	b.add(&attempt{offset: 3, version: []byte("1"), eventID: []byte("e")})
	f.Add(b.data)
	f.Add([]byte{packVersion, 0xff})
	f.Add(firstPack)
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, err := unpack(1, "t", 1, data); err != nil && out != nil {
			t.Error(fmt.Sprint("half a pack: ", out))
		}
	})
}
