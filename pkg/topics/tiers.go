package topics

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultTiers are the retry tiers of an installation that names none, ascending.
func DefaultTiers() []time.Duration {
	return []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 5 * time.Minute, time.Hour}
}

// ParseTiers reads retry tiers as REEVE_RETRY_TIERS has them: durations parted by commas, in any order. "" is DefaultTiers.
func ParseTiers(text string) ([]time.Duration, error) {
	if text == "" {
		return DefaultTiers(), nil
	}
	var tiers []time.Duration
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		d, err := time.ParseDuration(part)
		if err != nil {
			return nil, fmt.Errorf("%q is no duration: write 500ms, 30s, 5m, 24h", part)
		}
		if d < 100*time.Millisecond || d%time.Millisecond != 0 {
			return nil, fmt.Errorf("%s is no retry tier: give whole milliseconds, at least 100ms", part)
		}
		tiers = append(tiers, d)
	}
	slices.Sort(tiers)
	if tiers = slices.Compact(tiers); len(tiers) == 0 {
		return nil, errors.New("names no tier: give durations parted by commas, such as 1s,5s,30s")
	}
	return tiers, nil
}
