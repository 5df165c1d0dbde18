package deliver

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/reeve-run/reeve/internal/egress"
	"github.com/reeve-run/reeve/pkg/task"
)

// Answer is how a try to send a webhook ended.
type Answer struct {
	Status     int           // of HTTP; 0 where there was no answer
	Err        error         // why there was none
	RetryAfter time.Duration // as the endpoint asked; 0: it didn't
	Text       string        // the beginning of the answer's body
}

// State of a webhook.
type State string

// What a webhook can be in, as its task shows it.
const (
	Delivered State = "delivered"
	Retrying  State = "retrying"
	Failed    State = "failed" // given up, and dead-lettered
)

// Verdict is what becomes of a webhook.
type Verdict struct {
	State    State
	Class    task.Class
	Message  string
	Wait     time.Duration // with Retrying
	Deferred bool          // it wasn't tried: its attempt is still to come
}

// maxRetryAfter bounds what an endpoint can ask for.
const maxRetryAfter = 24 * time.Hour

// Judge decides about a try, given its number from 1 and the delays between tries.
func Judge(retries []time.Duration, attempt int, a Answer) Verdict {
	v := Verdict{State: Retrying}
	switch {
	case a.Err == nil && a.Status >= 200 && a.Status < 300:
		return Verdict{State: Delivered}
	case errors.Is(a.Err, egress.ErrRefused):
		return Verdict{State: Failed, Class: task.ClassPermanent, Message: a.Err.Error()}
	case a.Err == nil && a.Status == http.StatusGone:
		return Verdict{State: Failed, Class: task.ClassPermanent, Message: "the endpoint answered 410 Gone: it wants no more webhooks"}
	case timeout(a.Err):
		v.Class, v.Message = task.ClassTimeout, "the endpoint didn't answer in time"
	case a.Err != nil:
		v.Class, v.Message = task.ClassNetwork, a.Err.Error()
	case a.Status == http.StatusTooManyRequests:
		v.Class = task.ClassRateLimited
	case a.Status >= 500:
		v.Class = task.ClassDependency
	default:
		v.Class = task.ClassInvalidInput
	}
	if a.Err == nil {
		v.Message = answered(a)
	}
	if attempt > len(retries) {
		v.State = Failed
		return v
	}
	v.Wait = max(retries[attempt-1], min(a.RetryAfter, maxRetryAfter))
	return v
}

func answered(a Answer) string {
	text := fmt.Sprintf("the endpoint answered %d %s", a.Status, http.StatusText(a.Status))
	if a.Status >= 300 && a.Status < 400 {
		return text + ": redirects aren't followed, name the final URL"
	}
	if a.Text != "" {
		text += fmt.Sprintf(": %.200q", a.Text)
	}
	return text
}

func timeout(err error) bool {
	t := (interface{ Timeout() bool })(nil)
	return errors.As(err, &t) && t.Timeout()
}

const (
	busyWait  = 5 * time.Second // of what finds no place at an endpoint that answers
	downWaits = 5 * time.Minute // at most, of what finds none at one that doesn't
	// deferredFor bounds for how long a webhook is put off that couldn't be tried: so much longer than all its tries take.
	deferredFor = 24 * time.Hour
)

// Defer decides about a webhook that can't be tried now, given how often it was put off and how long ago its task ended.
func Defer(retries []time.Duration, deferred int, down bool, age time.Duration) Verdict {
	limit := deferredFor
	for _, d := range retries {
		limit += d
	}
	if age > limit {
		return Verdict{State: Failed, Class: task.ClassDependency, Message: fmt.Sprintf("the endpoint was busy or down for so long that it couldn't be tried in %s", age.Round(time.Minute))}
	}
	v := Verdict{State: Retrying, Deferred: true, Wait: busyWait}
	if down {
		v.Wait = min(busyWait<<min(deferred, 10), downWaits)
	}
	return v
}
