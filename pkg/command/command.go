// Package command has the records of the commands topic: what people ask of a running installation that has no level, such
// as to cancel a task. The registry writes them, dispatchers and workers follow them and carry out what is theirs.
//
// A command reaches every follower at least once, in the topic's order, also one that starts later, until it expires. So
// what carries it out is idempotent: it must see from its own state what is done already. Within one process a Follower
// gives each command only once, unless it is renewed.
//
// Whoever carries a command out says so by a status.CommandResult. Where doing it twice would be wrong and nothing else can
// tell, it writes Finished of the command in the transaction that does it: a follower that starts later doesn't get the
// command any more, and Follower.Finished knows.
//
// What is wanted for longer than a command may live is issued again shortly before it expires; see Renewal.
package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/topics"
)

// MaxLife is the longest time that a command may live. The topic keeps its records longer.
const MaxLife = 12 * time.Hour

// Renewal is how long before it expires a command may be issued again, with the same id, to count for longer: then it is given
// once more. Before that, what has its id is taken for a repeat.
const Renewal = time.Hour

// Verb is what is to be done.
type Verb string

// The verbs.
const (
	// Cancel ends a task, wherever it is: Task, Round.
	Cancel Verb = "cancel"
	// Retry runs a task at once that waits for its next attempt: Task, Round, Attempt.
	Retry Verb = "retry"
	// Redrive sends dead letters to their agent once more: Task or Dead.All or Dead.Fingerprint. With Webhooks for an agent
	// it sends off webhooks that were given up: Dead.Webhook or Dead.All or Dead.Endpoint.
	Redrive Verb = "redrive"
	// Purge deletes dead letters: the same.
	Purge Verb = "purge"
	// CancelOrder takes a redrive or a purge back that hasn't ended: Order. What it has moved by then stays moved.
	CancelOrder Verb = "cancel_order"
	// Reopen makes a task of its event once more, which has finished Round and left no dead letter: Task, Round.
	Reopen Verb = "reopen"
	// Done says that the command with its ID is carried out. It is no command, and no Handler gets it.
	Done Verb = "done"
)

// Webhooks is the Agent, with an empty Topic, of an order about webhooks that were given up. No agent has an empty topic.
const Webhooks = "webhooks"

// known reports whether a verb is one that this version knows.
func known(v Verb) bool {
	switch v {
	case Cancel, Retry, Reopen, Redrive, Purge, CancelOrder, Done:
		return true
	}
	return false
}

// Command is one command. All fields are required but Task, Round, Order, Attempt and Reason.
type Command struct {
	ID    string `json:"id"`
	Verb  Verb   `json:"verb"`
	Topic string `json:"topic"` // the agent's
	Agent string `json:"agent"` // its name, or Webhooks
	// Task is the origin of the task that it is about, topic/partition/offset, with the topic's UUID behind a further slash
	// where that is known.
	Task string `json:"task,omitempty"`
	// Round is that of the task: how often it was redriven. A task in a later round isn't meant.
	Round int `json:"round,omitempty"`
	// Dead says which dead letters are meant, in place of Task or beside it.
	Dead *Dead `json:"dead,omitempty"`
	// Order is the ID of the command that is taken back.
	Order string `json:"order,omitempty"`
	// Attempt is the number of the attempt that is waited for.
	Attempt int       `json:"attempt,omitempty"`
	Actor   string    `json:"actor"` // who asks
	Reason  string    `json:"reason,omitempty"`
	At      time.Time `json:"at"`
	Expires time.Time `json:"expires"` // at most MaxLife after At; nobody begins with it later
}

// Ref is the agent, topic/name; it is the record's key.
func (c Command) Ref() string { return c.Topic + "/" + c.Agent }

// OfWebhooks reports whether it is about webhooks that were given up, and not about an agent.
func (c Command) OfWebhooks() bool { return c.Topic == "" && c.Agent == Webhooks }

// OfOne reports whether it names a single dead letter.
func (c Command) OfOne() bool { return c.Task != "" || c.Dead != nil && c.Dead.Webhook != "" }

// Check reports what keeps a command from being one, or nil.
func (c Command) Check() error {
	switch {
	case c.ID == "":
		return errors.New("it has no id")
	case !known(c.Verb):
		return fmt.Errorf("its verb %q is none of this version", c.Verb)
	case c.Agent == "" || c.Topic == "" && !c.OfWebhooks():
		return errors.New("it names no agent")
	case c.OfWebhooks() && c.Verb != Redrive && c.Verb != Purge && c.Verb != CancelOrder && c.Verb != Done:
		return fmt.Errorf("its verb %q is none for webhooks", c.Verb)
	case c.At.IsZero() || c.Expires.Before(c.At):
		return errors.New("it doesn't say from when to when it counts")
	case c.Expires.Sub(c.At) > MaxLife:
		return fmt.Errorf("it is to live for %s, which is more than %s", c.Expires.Sub(c.At), MaxLife)
	case c.Verb == CancelOrder && c.Order == "":
		return errors.New("it doesn't say what is taken back")
	case c.Verb == Redrive || c.Verb == Purge:
		return c.checkDead()
	}
	return nil
}

// Dead says which dead letters of an agent a command means.
type Dead struct {
	// All of them, or those with this fingerprint of their failure, or that of the command's Task.
	All         bool   `json:"all,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	// Of webhooks: all of them, or those to this endpoint, scheme://host:port, or that with this webhook-id.
	Endpoint string `json:"endpoint,omitempty"`
	Webhook  string `json:"webhook,omitempty"`
	// Ends are the ends of the dead-letter topic's partitions when it was asked for, and TopicID is the topic's UUID, as
	// Kafka's tools write it. What has come later isn't meant, so the command may be carried out any number of times.
	Ends    map[int32]int64 `json:"ends"`
	TopicID string          `json:"topic_id,omitempty"`
	// Force redrives also what has come back dead too often.
	Force bool `json:"force,omitempty"`
}

// checkDead reports why it isn't clear which dead letters are meant.
func (c Command) checkDead() error {
	if c.Dead == nil || len(c.Dead.Ends) == 0 {
		return errors.New("it doesn't say which dead letters had come by then")
	}
	ways, others, which := []bool{c.Task != "", c.Dead.Fingerprint != "", c.Dead.All}, c.Dead.Endpoint+c.Dead.Webhook, "task, fingerprint and all"
	if c.OfWebhooks() {
		ways, others, which = []bool{c.Dead.Webhook != "", c.Dead.Endpoint != "", c.Dead.All}, c.Task+c.Dead.Fingerprint, "webhook, endpoint and all"
	}
	n := 0
	for _, given := range ways {
		if given {
			n++
		}
	}
	if n != 1 || others != "" {
		return fmt.Errorf("it names dead letters in %d ways of %s: one is needed, and nothing else", n, which)
	}
	return nil
}

// Cancelled is what a task or an order says that this command cancels.
func (c Command) Cancelled() string {
	if c.Reason == "" {
		return "cancelled by " + c.Actor
	}
	return "cancelled by " + c.Actor + ": " + c.Reason
}

// Record is the command as it stands on the commands topic.
func (c Command) Record(names topics.Names) (*kgo.Record, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("write a command: %w", err)
	}
	value, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write a command: %w", err)
	}
	return &kgo.Record{Topic: names.Commands(), Key: []byte(c.Ref()), Value: value}, nil
}

// Finished is the record that says, once the transaction which holds it is committed, that the command is carried out.
// actor is who did it, as service/node.
func (c Command) Finished(names topics.Names, actor string, now time.Time) (*kgo.Record, error) {
	return Command{ID: c.ID, Verb: Done, Topic: c.Topic, Agent: c.Agent, Task: c.Task, Round: c.Round, Actor: actor, At: now,
		Expires: now.Add(MaxLife)}.Record(names)
}

// Decode reads a record of the commands topic. It is strict: a field that this version doesn't know may limit what is
// asked, so that to do the rest would be wrong.
func Decode(r *kgo.Record) (Command, error) {
	var c Command
	d := json.NewDecoder(bytes.NewReader(r.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Command{}, fmt.Errorf("decode command: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Command{}, errors.New("decode command: something follows the JSON object")
	}
	if err := c.Check(); err != nil {
		return Command{}, fmt.Errorf("decode command: %w", err)
	}
	if c.Ref() != string(r.Key) {
		return Command{}, fmt.Errorf("decode command: its key is %q, and it is for the agent %s", r.Key, c.Ref())
	}
	return c, nil
}
