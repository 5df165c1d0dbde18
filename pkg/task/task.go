// Package task has the words of a task on Kafka: header names, origins, outcomes and error classes.
package task

import (
	"fmt"
	"strconv"
	"strings"
)

// Headers that Reeve reads or adds.
const (
	HeaderAgent            = "reeve-agent"   // topic/name
	HeaderOrigin           = "reeve-origin"  // topic/partition/offset/topic UUID[/life]
	HeaderAttempt          = "reeve-attempt" // from 1
	HeaderCorrelationID    = "reeve-correlation-id"
	HeaderCausationID      = "reeve-causation-id"
	HeaderTenantID         = "reeve-tenant-id"
	HeaderSource           = "reeve-source"
	HeaderReplyTo          = "reeve-reply-to"
	HeaderWebhook          = "reeve-webhook"
	HeaderType             = "reeve-type"
	HeaderErrorClass       = "reeve-error-class"
	HeaderErrorMessage     = "reeve-error-message"
	HeaderErrorFingerprint = "reeve-error-fingerprint"
	HeaderAttempts         = "reeve-attempts"
	HeaderFirstFailedAt    = "reeve-first-failed-at" // RFC 3339 with milliseconds
	HeaderLastFailedAt     = "reeve-last-failed-at"
	HeaderRedrives         = "reeve-redrives"
	// HeaderOrder is the id of the order about dead letters that has opened the task's round, or sent a webhook off once
	// more. It rides along to the outcomes, so that who counts these for the order needs no memory of what it has moved.
	HeaderOrder = "reeve-order"

	// HeaderEvent is "<milliseconds> <id>": when the event was published (its record's timestamp in Unix
	// milliseconds), and its id. The dispatcher adds it; the id is the rest of the value and may hold any character.
	HeaderEvent = "reeve-event"
	// HeaderBurnt counts the attempts that used up a retry before this one; absent means 0. A repeat after a
	// crash of its host or a drain has a higher attempt and the same count.
	HeaderBurnt = "reeve-burnt"
	// HeaderBurntAt has when the attempts ended that used up those retries, in Unix milliseconds, parted by spaces: the last
	// ones, where there are many. What was burnt in an outage of the agent is given back.
	HeaderBurntAt = "reeve-burnt-at"
	// HeaderSpared is "<outages> <since>": in how many outages of its agent the task failed without a retry being burnt for
	// it, and when the last of them began, in Unix milliseconds. Absent means none.
	HeaderSpared = "reeve-spared"
	// HeaderTimeouts counts the attempts that timed out before this one; absent means 0.
	HeaderTimeouts = "reeve-timeouts"

	// HeaderNotBefore is when a webhook is tried again, in Unix milliseconds: it may wait longer than the tier that it is in.
	HeaderNotBefore = "reeve-not-before"
	// HeaderDeferred counts how often a webhook went back to wait without having been tried, because its endpoint was
	// busy or down; absent means 0.
	HeaderDeferred = "reeve-deferred"
	// HeaderWebhookRedriven is "<times> <last>" of a webhook that was given up and redriven: how often that was, and when
	// last, in Unix milliseconds. HeaderRedrives is the round of its task, which is part of its id.
	HeaderWebhookRedriven = "reeve-webhook-redriven"

	// On records of the outcomes topic.
	HeaderOutcome = "reeve-outcome"
	HeaderSettled = "reeve-settled"
	HeaderFinal   = "reeve-final"   // true when it finishes the task
	HeaderVersion = "reeve-version" // the agent's version that ran it
	// HeaderTimes is "<published> <dispatched> <started> <ended>" in Unix milliseconds; started and ended are 0 for
	// a task that never ran.
	HeaderTimes = "reeve-times"
	// HeaderRunner is "<node> <instance>" of the attempt; the instance is empty for a function.
	HeaderRunner = "reeve-runner"
	// HeaderReply is ReplyUndeliverable on a final outcome whose event asked for a reply to a topic that can't take it;
	// HeaderReplyReason says why.
	HeaderReply       = "reeve-reply"
	HeaderReplyReason = "reeve-reply-reason"
	// HeaderWebhookState is WebhookPending on a final outcome whose event asked for a webhook. What becomes of it is
	// told on the status topic.
	HeaderWebhookState = "reeve-webhook-state"
)

// Values of HeaderReply and HeaderWebhookState.
const (
	ReplyUndeliverable = "reply_undeliverable"
	WebhookPending     = "pending"
)

// Outcome is how an attempt ended.
type Outcome string

// The outcomes.
const (
	Completed Outcome = "completed"
	Failed    Outcome = "failed"
	TimedOut  Outcome = "timed_out"
	Crashed   Outcome = "crashed"
	Cancelled Outcome = "cancelled"
	Rejected  Outcome = "rejected"  // never run
	Discarded Outcome = "discarded" // dropped by a deletion
)

// Settled is what became of the task with this outcome.
type Settled string

// Ways to settle an attempt. All but SettledRetry finish the task.
const (
	SettledDone    Settled = "done"
	SettledRetry   Settled = "retry"
	SettledDLQ     Settled = "dlq"
	SettledFailed  Settled = "failed" // final failure of an agent without a DLQ
	SettledDropped Settled = "dropped"
)

// Class is the class of an error; it decides what happens next.
type Class string

// The error classes.
const (
	ClassTimeout          Class = "timeout"
	ClassResource         Class = "resource"
	ClassNetwork          Class = "network"
	ClassCrash            Class = "crash"
	ClassInternal         Class = "internal" // also: no class
	ClassRateLimited      Class = "rate_limited"
	ClassDependency       Class = "dependency"
	ClassInvalidInput     Class = "invalid_input"
	ClassIncompatibleTask Class = "incompatible_task"
	ClassPermanent        Class = "permanent"
	ClassResultTooLarge   Class = "result_too_large"
)

// Outside reports whether a class says that something outside of the agent failed. Then two tasks that fail alike may show an
// outage of it, if nothing succeeds; in any other class it takes nearly all of many.
func (c Class) Outside() bool {
	return c == ClassDependency || c == ClassNetwork || c == ClassTimeout
}

// Origin is a task's identity: where its event stands on the user's topic. The topic's UUID tells a topic from
// a later one of the same name; it may be empty. Life tells an event's tasks apart of an agent that was deleted with its
// group and registered again, which reads its topic anew: it is that of the agent's spec, 0 for most.
type Origin struct {
	Topic     string
	Partition int32
	Offset    int64
	TopicID   string
	Life      int64
}

// ID is the task's id, topic/partition/offset.
func (o Origin) ID() string {
	return o.Topic + "/" + strconv.Itoa(int(o.Partition)) + "/" + strconv.FormatInt(o.Offset, 10)
}

// Means reports whether who names a task by o means t. Where o says less than t it means each: the topic's UUID counts
// where both have one, and the life, which rides behind the UUID, where o names one too.
func (o Origin) Means(t Origin) bool {
	switch {
	case o.Topic != t.Topic || o.Partition != t.Partition || o.Offset != t.Offset:
		return false
	case o.TopicID == "" || t.TopicID == "":
		return true
	}
	return o.TopicID == t.TopicID && (o.Life == 0 || o.Life == t.Life)
}

// AppendHeader appends the value of HeaderOrigin: topic/partition/offset/uuid, and /life where that isn't 0 and the UUID is
// known.
func (o Origin) AppendHeader(b []byte) []byte {
	b = append(append(b, o.Topic...), '/')
	b = append(strconv.AppendInt(b, int64(o.Partition), 10), '/')
	b = strconv.AppendInt(b, o.Offset, 10)
	if o.TopicID != "" {
		b = append(append(b, '/'), o.TopicID...)
		if o.Life > 0 {
			b = strconv.AppendInt(append(b, '/'), o.Life, 10)
		}
	}
	return b
}

// ParseOrigin reads a HeaderOrigin value, with or without the UUID and the life.
func ParseOrigin(s string) (Origin, error) {
	parts := strings.SplitN(s, "/", 4)
	if len(parts) < 3 || parts[0] == "" {
		return Origin{}, fmt.Errorf("%q is no task id: expected topic/partition/offset", s)
	}
	p, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil || p < 0 {
		return Origin{}, fmt.Errorf("%q is no task id: the partition %q is no number", s, parts[1])
	}
	off, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil || off < 0 {
		return Origin{}, fmt.Errorf("%q is no task id: the offset %q is no number", s, parts[2])
	}
	o := Origin{Topic: parts[0], Partition: int32(p), Offset: off}
	if len(parts) == 4 {
		id, life, lives := strings.Cut(parts[3], "/")
		o.TopicID = id
		if o.Life, err = strconv.ParseInt(life, 10, 64); lives && (err != nil || o.Life < 1) {
			return Origin{}, fmt.Errorf("%q is no task id: %q is no life of an agent", s, life)
		}
	}
	return o, nil
}
