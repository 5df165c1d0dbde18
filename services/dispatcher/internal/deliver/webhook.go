package deliver

import (
	"net/url"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// A Webhook is a record of the topic of webhooks, read.
type Webhook struct {
	Record   *kgo.Record
	ID       string   // of Standard Webhooks
	URL      *url.URL // nil where Problem isn't nil
	Endpoint string   // scheme://host:port, which is safe to show
	Problem  error    // why it can't be sent to anybody
	Attempt  int      // the one to come, from 1
	Before   int      // tries before it was given up and redriven
	Deferred int      // how often it waited since without having been tried
}

// Read reads a record.
func Read(r *kgo.Record) Webhook {
	w := Webhook{Record: r, ID: route.WebhookID(r), Attempt: max(number(route.Header(r, task.HeaderAttempt)), 1), Deferred: number(route.Header(r, task.HeaderDeferred)),
		Before: number(route.Header(r, task.HeaderAttempts))}
	w.URL, w.Endpoint, w.Problem = route.WebhookURL(r)
	return w
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// NextTier is the tier to wait in when so much is left to wait: the longest that isn't too long, else the shortest. tiers
// are ascending.
func NextTier(tiers []time.Duration, left time.Duration) time.Duration {
	tier := tiers[0]
	for _, t := range tiers {
		if t <= left {
			tier = t
		}
	}
	return tier
}

// Onward is what a webhook becomes that has waited its tier's delay: one to be sent, or one that waits on, where it has to
// wait longer than any tier does.
func Onward(names topics.Names, tiers []time.Duration, r *kgo.Record, now time.Time) *kgo.Record {
	out := &kgo.Record{Topic: names.Webhooks(), Partition: hop.AnyPartition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: now}
	left := time.UnixMilli(int64(number(route.Header(r, task.HeaderNotBefore)))).Sub(now)
	if left > tiers[0]/2 {
		out.Topic = names.WebhookRetry(NextTier(tiers, left))
	}
	return out
}
