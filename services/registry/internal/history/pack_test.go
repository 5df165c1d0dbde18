package history

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestAPackGivesBackWhatWasPutIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]byte("abc 0")), 0, 4)
		number := rapid.Int64Range(-5, 1<<45)
		var b builder
		var in []attempt
		for range rapid.IntRange(1, 50).Draw(t, "count") {
			a := attempt{offset: 1<<40 + rapid.Int64Range(0, 2*span).Draw(t, "offset"), atPartition: rapid.Int32Range(0, 100).Draw(t, "at"), atOffset: number.Draw(t, "atOffset"),
				published: number.Draw(t, "published"), dispatched: number.Draw(t, "dispatched"), started: number.Draw(t, "started"), settled: number.Draw(t, "settled"),
				version: text.Draw(t, "version"), runner: text.Draw(t, "runner"), eventID: text.Draw(t, "event")}
			if !b.fits(&a) {
				continue
			}
			b.add(&a)
			in = append(in, a)
		}
		out, err := unpack(7, 3, b.data)
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

func FuzzUnpack(f *testing.F) {
	var b builder
	b.add(&attempt{offset: 3, version: []byte("1"), eventID: []byte("e")})
	f.Add(b.data)
	f.Add([]byte{packVersion, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, err := unpack(1, 1, data); err != nil && out != nil {
			t.Error(fmt.Sprint("half a pack: ", out))
		}
	})
}
