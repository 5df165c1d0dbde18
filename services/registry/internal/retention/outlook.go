package retention

import (
	"fmt"
	"time"
)

// Policy is a topic's retention. A negative value is none.
type Policy struct {
	Age   time.Duration
	Bytes int64
}

// Partition is a partition on which events wait for an agent.
type Partition struct {
	Number     int32
	Start, End int64 // of the log
	Next       int64 // the agent's position
	Oldest     time.Time
	Size       int64 // bytes of the log, 0 where nobody knows
}

// Outlook is what retention will do to the events that wait for an agent. The zero value is that nothing waits.
type Outlook struct {
	// OldestAt is the timestamp of the oldest event that waits, and ExpiresAt when retention.ms removes it at the earliest;
	// zero where it never does.
	OldestAt, ExpiresAt time.Time
	// Partition is where it waits.
	Partition int32
	// Gone counts offsets that were removed already and that the agent hasn't passed: events, and markers of transactions.
	Gone int64
	// Warning says why somebody should look, "" if nobody has to; Critical that events are gone.
	Warning  string
	Critical bool
}

const (
	// lastFifth of retention.ms, or lastHour where that is more: then people are warned.
	lastFifth = 5
	lastHour  = time.Hour
	// nearlyFull is how much of retention.bytes may have come behind the oldest waiting event before people are warned, in
	// percent.
	nearlyFull = 80
)

// margin is how long before it is removed people are warned of an event: a fifth of the retention, and at least an hour,
// but never more than half.
func margin(age time.Duration) time.Duration {
	return max(age/lastFifth, min(lastHour, age/2))
}

// Judge says what retention will do to what waits on partitions.
func Judge(ps []Partition, policy Policy, now time.Time) Outlook {
	var o Outlook
	var full string
	for _, p := range ps {
		if p.Next < p.Start {
			o.Gone += p.Start - p.Next
		}
		if p.Next >= p.End || p.Oldest.IsZero() {
			continue
		}
		if o.OldestAt.IsZero() || p.Oldest.Before(o.OldestAt) {
			o.OldestAt, o.Partition = p.Oldest, p.Number
		}
		if share := filled(p, policy.Bytes); share >= nearlyFull && full == "" {
			full = fmt.Sprintf("what came behind the oldest waiting event of partition %d fills %d %% of retention.bytes", p.Number, share)
		}
	}
	if policy.Age >= 0 && !o.OldestAt.IsZero() {
		o.ExpiresAt = o.OldestAt.Add(policy.Age)
	}
	switch {
	case o.Gone > 0:
		o.Warning, o.Critical = fmt.Sprintf("retention has removed %d events before they were consumed, and goes on", o.Gone), true
	case !o.ExpiresAt.IsZero() && o.ExpiresAt.Sub(now) < margin(policy.Age):
		o.Warning = fmt.Sprintf("the oldest waiting event, on partition %d, is removed by retention.ms from %s on", o.Partition, o.ExpiresAt.UTC().Format(time.RFC3339))
	case full != "":
		o.Warning = full
	}
	return o
}

// filled is how much of retention.bytes what came behind the position fills, in percent. Records count as equally large.
func filled(p Partition, bytes int64) int64 {
	if bytes <= 0 || p.Size <= 0 || p.End <= p.Start {
		return 0
	}
	behind := float64(p.Size) * float64(p.End-max(p.Next, p.Start)) / float64(p.End-p.Start)
	return int64(behind * 100 / float64(bytes))
}
