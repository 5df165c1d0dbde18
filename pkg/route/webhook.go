package route

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

// NoEndpoint is the endpoint of a webhook whose URL can't be one.
const NoEndpoint = "an illegal URL"

// WebhookID is a webhook's id, of its record on any of the topics of webhooks. It is the same in every try, in every repeat
// after a kill and when the webhook is redriven; a new round of the task has a new one. The topic's UUID is part of it, so
// that the tasks of a topic that was made again are others.
func WebhookID(r *kgo.Record) string {
	redrives := Header(r, task.HeaderRedrives)
	if redrives == "" {
		redrives = "0"
	}
	sum := sha256.Sum256([]byte(Header(r, task.HeaderAgent) + "\x00" + Header(r, task.HeaderOrigin) + "\x00" + redrives))
	return "msg_" + hex.EncodeToString(sum[:16])
}

// WebhookURL is where a webhook goes, and its Endpoint; where nobody can be sent it, the endpoint is NoEndpoint.
func WebhookURL(r *kgo.Record) (u *url.URL, endpoint string, err error) {
	text := Header(r, task.HeaderWebhook)
	if err = spec.CheckWebhook(text); err == nil {
		u, err = url.Parse(text)
	}
	if err != nil {
		return nil, NoEndpoint, err
	}
	return u, Endpoint(u), nil
}

// Endpoint is what of a URL may be shown, scheme://host:port: who is at its other end.
func Endpoint(u *url.URL) string {
	host := strings.ToLower(u.Host)
	switch port := u.Port(); {
	case port != "":
	case u.Scheme == "https":
		host = strings.TrimSuffix(host, ":") + ":443"
	default:
		host = strings.TrimSuffix(host, ":") + ":80"
	}
	return u.Scheme + "://" + host
}

// WebhookRedrives says how often a webhook that was given up was sent off once more, and when last; the zero time where it
// never was.
func WebhookRedrives(r *kgo.Record) (times int, last time.Time) {
	n, at, _ := strings.Cut(Header(r, task.HeaderWebhookRedriven), " ")
	times, err := strconv.Atoi(n)
	if err != nil || times <= 0 {
		return 0, time.Time{}
	}
	if ms, err := strconv.ParseInt(at, 10, 64); err == nil {
		last = time.UnixMilli(ms)
	}
	return times, last
}

// WebhookTries says how often a webhook was tried by the time it was given up.
func WebhookTries(r *kgo.Record) int {
	n, err := strconv.Atoi(Header(r, task.HeaderAttempts))
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// ofTry are the headers that tell of a webhook's tries. It is redriven without them, with all its tries; how often it was
// tried before it was given up stays, in task.HeaderAttempts.
var ofTry = []string{task.HeaderAttempt, task.HeaderDeferred, task.HeaderNotBefore, task.HeaderWebhookRedriven, task.HeaderOrder,
	task.HeaderErrorClass, task.HeaderErrorMessage, task.HeaderErrorFingerprint, task.HeaderFirstFailedAt, task.HeaderLastFailedAt}

// RedriveWebhook makes a webhook that was given up one that is to be sent: body and id as they are. order is the id of what
// people ordered.
func RedriveWebhook(names topics.Names, rec *kgo.Record, order string, now time.Time) *kgo.Record {
	hs := make([]kgo.RecordHeader, 0, len(rec.Headers)+2)
	for _, h := range rec.Headers {
		if !slices.Contains(ofTry, h.Key) {
			hs = append(hs, h)
		}
	}
	times, _ := WebhookRedrives(rec)
	hs = append(hs, kgo.RecordHeader{Key: task.HeaderWebhookRedriven, Value: fmt.Appendf(nil, "%d %d", times+1, now.UnixMilli())},
		kgo.RecordHeader{Key: task.HeaderOrder, Value: []byte(order)})
	return &kgo.Record{Topic: names.Webhooks(), Partition: hop.AnyPartition, Key: rec.Key, Value: rec.Value, Headers: hs, Timestamp: now}
}
