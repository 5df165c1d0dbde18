package spec

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/topics"
)

// Backoff is another way to write retry_delays: each delay is Factor times the one before, from Base up to Max, which
// repeats. Base and Max are retry tiers of the installation; what lies between is rounded up to one.
type Backoff struct {
	Base   Delay   `json:"base"`          // before the first retry
	Factor float64 `json:"factor"`        // Defaults to 2
	Max    Delay   `json:"max,omitempty"` // Defaults to the longest tier
}

// Delay is a duration as a text: 5s, 30s, 5m. In JSON it may also be a number of seconds.
type Delay string

// UnmarshalJSON takes a text or a number of seconds.
func (d *Delay) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*d = Delay(s)
		return nil
	}
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%s is neither a duration, as 5s or 5m, nor a number of seconds", b)
	}
	*d = Delay(strconv.FormatFloat(f, 'f', -1, 64))
	return nil
}

// Duration reads it; a bare number is one of seconds.
func (d Delay) Duration() (time.Duration, error) {
	text := string(d)
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		text += "s"
	}
	t, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: write 5s, 30s, 5m", string(d))
	}
	return t, nil
}

// maxSteps is how many delays a back-off may have.
const maxSteps = 64

// backoff compiles Backoff into RetryDelays. Where both are given they have to agree, so that what was read from a
// registry can be sent back.
func (c *Config) backoff(tiers []time.Duration, add adder) {
	if c.Backoff == nil {
		return
	}
	delays := c.Backoff.compile(tiers, func(field, format string, args ...any) { add("config.backoff."+field, format, args...) })
	if delays == nil || tiers == nil {
		return
	}
	if c.RetryDelays == nil {
		c.RetryDelays = delays
	} else if !slices.Equal(c.Delays(), Config{RetryDelays: delays}.Delays()) {
		add("config.backoff", "makes the delays %s, retry_delays has others: give one of the two", strings.Join(delays, ", "))
	}
}

// compile makes the delays, or nil where something is wrong. Without tiers it only reads the values.
func (b Backoff) compile(tiers []time.Duration, add adder) []string {
	fine := true
	read := func(field string, d Delay) time.Duration {
		t, err := d.Duration()
		switch {
		case err != nil:
			add(field, "%v", err)
		case tiers != nil && !slices.Contains(tiers, t):
			add(field, "%s", noTier(string(d), t, tiers))
		default:
			return t
		}
		fine = false
		return 0
	}
	if b.Base == "" {
		add("base", "is missing: give the delay before the first retry")
		return nil
	}
	base, longest := read("base", b.Base), time.Duration(0)
	if b.Max != "" {
		longest = read("max", b.Max)
	} else if tiers != nil {
		longest = tiers[len(tiers)-1]
	}
	if !(b.Factor >= 1) || b.Factor > 1000 {
		add("factor", "%v is out of range: give 1 to 1000", b.Factor)
		return nil
	}
	switch {
	case !fine || tiers == nil:
		return nil
	case longest < base:
		add("max", "%s is less than base, %s: give at least that", topics.Tier(longest), topics.Tier(base))
		return nil
	case b.Factor == 1 && b.Max != "" && longest > base:
		add("factor", "1 never gets from %s to %s: give more, or leave max out", topics.Tier(base), topics.Tier(longest))
		return nil
	case b.Factor == 1:
		longest = base
	}
	return b.steps(base, longest, tiers, add)
}

func (b Backoff) steps(base, longest time.Duration, tiers []time.Duration, add adder) []string {
	var delays []string
	for d := float64(base); d < float64(longest); d *= b.Factor {
		if len(delays) == maxSteps {
			add("factor", "%v takes more than %d steps from %s to %s: give a larger one", b.Factor, maxSteps, topics.Tier(base), topics.Tier(longest))
			return nil
		}
		i := slices.IndexFunc(tiers, func(t time.Duration) bool { return float64(t) >= d })
		delays = append(delays, topics.Tier(tiers[i]))
	}
	last := topics.Tier(longest)
	for len(delays) > 0 && delays[len(delays)-1] == last {
		delays = delays[:len(delays)-1] // the last repeats anyway
	}
	return append(delays, last)
}

// noTier says that a delay is no retry tier, and which are near it.
func noTier(written string, d time.Duration, tiers []time.Duration) string {
	i := slices.IndexFunc(tiers, func(t time.Duration) bool { return t > d })
	var near string
	switch i {
	case 0:
		near = "the nearest is " + topics.Tier(tiers[0])
	case -1:
		near = "the nearest is " + topics.Tier(tiers[len(tiers)-1])
	default:
		near = "the nearest are " + topics.Tier(tiers[i-1]) + " and " + topics.Tier(tiers[i])
	}
	return fmt.Sprintf("%s is no retry tier of this installation, %s: use %s", written, near, tierList(tiers))
}

func tierList(tiers []time.Duration) string {
	s := make([]string, len(tiers))
	for i, t := range tiers {
		s[i] = topics.Tier(t)
	}
	return strings.Join(s, ", ")
}
