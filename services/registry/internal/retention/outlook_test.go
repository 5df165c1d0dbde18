package retention

import (
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/services/registry/internal/peek"
)

func TestOutlook(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	on := func(next, start, end int64, age time.Duration, size int64) Partition {
		return Partition{Number: 1, Start: start, End: end, Next: next, Oldest: now.Add(-age), Size: size}
	}
	const week = 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		ps       []Partition
		policy   Policy
		expires  time.Duration // from now; 0 is never
		gone     int64
		warning  string // part of it
		critical bool
	}{
		"nothing waits":                           {nil, Policy{week, -1}, 0, 0, "", false},
		"it is young":                             {[]Partition{on(5, 0, 10, time.Hour, 0)}, Policy{week, -1}, week - time.Hour, 0, "", false},
		"four fifths are over":                    {[]Partition{on(5, 0, 10, week*81/100, 0)}, Policy{week, -1}, week * 19 / 100, 0, "partition 1, is removed by retention.ms from 2026-01-03", false},
		"an hour is left of a short one":          {[]Partition{on(5, 0, 10, 121*time.Minute, 0)}, Policy{3 * time.Hour, -1}, 59 * time.Minute, 0, "retention.ms", false},
		"of ten minutes half is soon enough":      {[]Partition{on(5, 0, 10, 4*time.Minute, 0)}, Policy{10 * time.Minute, -1}, 6 * time.Minute, 0, "", false},
		"the oldest of several counts":            {[]Partition{on(5, 0, 10, time.Hour, 0), on(5, 0, 10, 3*time.Hour, 0)}, Policy{week, -1}, week - 3*time.Hour, 0, "", false},
		"nothing is removed by age":               {[]Partition{on(5, 0, 10, 100*week, 0)}, Policy{-1, -1}, 0, 0, "", false},
		"what waited is gone":                     {[]Partition{on(5, 8, 10, time.Hour, 0)}, Policy{week, -1}, week - time.Hour, 3, "removed 3 events", true},
		"all of it is gone":                       {[]Partition{{Number: 1, Start: 10, End: 10, Next: 5}}, Policy{week, -1}, 0, 5, "removed 5 events", true},
		"the bytes behind it fill the limit":      {[]Partition{on(10, 0, 100, time.Hour, 1000)}, Policy{-1, 1000}, 0, 0, "fills 90 %", false},
		"they don't yet":                          {[]Partition{on(50, 0, 100, time.Hour, 1000)}, Policy{-1, 1000}, 0, 0, "", false},
		"nobody knows how large it is":            {[]Partition{on(10, 0, 100, time.Hour, 0)}, Policy{-1, 1000}, 0, 0, "", false},
		"what only looks as if it waited doesn't": {[]Partition{{Number: 1, End: 10, Next: 8}}, Policy{week, -1}, 0, 0, "", false},
	} {
		o := Judge(c.ps, c.policy, now)
		if c.expires != 0 && o.ExpiresAt.Sub(now) != c.expires || c.expires == 0 && !o.ExpiresAt.IsZero() {
			t.Errorf("%s: expires %v", name, o.ExpiresAt)
		}
		if o.Gone != c.gone || o.Critical != c.critical || c.warning == "" && o.Warning != "" || !strings.Contains(o.Warning, c.warning) {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestAReaderHasOnePlaceOnAPartition(t *testing.T) {
	var rounds []peek.Ranges
	for _, at := range []place{{"t", 0, 5}, {"t", 0, 5}, {"t", 1, 7}, {"t", 0, 9}, {"u", 0, 1}} {
		rounds, _ = want(rounds, at, 10)
	}
	if len(rounds) != 2 || rounds[0]["t"][0].Start != 5 || rounds[0]["t"][1].Start != 7 || rounds[0]["u"][0].Start != 1 || rounds[1]["t"][0].Start != 9 {
		t.Errorf("%v", rounds)
	}
}

func TestALookReadsABoundedNumberOfTimesAndComesToAllThatStand(t *testing.T) {
	const paused, busy = 3 * maxRounds, 100
	missed, read := map[place]bool{}, map[place]bool{}
	for look := range int64(6) {
		fresh := map[place]int64{}
		for i := range int64(paused) {
			if at := (place{"t", 0, i}); !read[at] {
				fresh[at] = 1 << 30
			}
		}
		for i := range int64(busy) {
			fresh[place{"t", 0, 1000*(look+1) + i}] = 1 << 30
		}
		var rounds []peek.Ranges
		rounds, missed = plan(fresh, missed)
		if len(rounds) != maxRounds || len(missed) != len(fresh)-maxRounds {
			t.Fatalf("look %d: %d rounds, %d of %d missed", look, len(rounds), len(missed), len(fresh))
		}
		for _, r := range rounds {
			read[place{"t", 0, r["t"][0].Start}] = true
		}
	}
	for i := range int64(paused) {
		if !read[place{"t", 0, i}] {
			t.Errorf("nobody has come to the agent that is paused at %d", i)
		}
	}
}
