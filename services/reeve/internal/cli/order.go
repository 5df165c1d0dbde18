package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/reeve-run/reeve/pkg/client"
)

const (
	// orderPatience is how long a redrive or a purge is waited for without --wait: most have ended by then.
	orderPatience = 3 * time.Second
	orderLook     = 200 * time.Millisecond
)

// orderFlags are those of a redrive or a purge, whatever it is about.
type orderFlags struct{ all, dryRun, wait bool }

func (o *orderFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&o.all, "all", false, "all that are there now")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say how many that are")
	waitFlag(f, &o.wait)
}

func waitFlag(f *pflag.FlagSet, wait *bool) {
	f.BoolVar(wait, "wait", false, "wait until it has ended, however long that takes")
}

// check refuses what doesn't say in one way what is meant. n counts how often it is said, but for --all.
func (o orderFlags) check(n int, ways string) error {
	switch n += howMany(o.all); {
	case n != 1:
		return usage("say which %s", ways)
	case o.dryRun && o.wait:
		return usage("--dry-run does nothing that --wait could wait for: give one of them")
	}
	return nil
}

// howMany counts the ways that were used.
func howMany(ways ...bool) (n int) {
	for _, is := range ways {
		if is {
			n++
		}
	}
	return n
}

// lookAt gives an order as it is now.
type lookAt func(ctx context.Context, id string) ([]byte, *client.DLQOrder, error)

// followOrder shows how an order goes on, for a while or until its end, and what became of it.
func (c *command) followOrder(ctx context.Context, look lookAt, wait bool, body []byte) error {
	o, err := c.untilOrderEnds(ctx, look, wait, body)
	if err != nil {
		return err
	}
	switch o.State {
	case "done":
		if o.CameBack > 0 && o.Topic != "" { // a webhook that has failed once is tried again
			return silent(Failed)
		}
	case "stopped", "cancelled":
		return silent(Failed)
	case "refused":
		return silent(Conflict)
	}
	return nil
}

// untilOrderEnds shows an order for a while or until its end, and gives it as it is then.
func (c *command) untilOrderEnds(ctx context.Context, look lookAt, wait bool, body []byte) (o client.DLQOrder, err error) {
	if o, err = orderIn(body); err != nil {
		return o, err
	}
	began, said := time.Now(), ""
	bar := c.progress(int(o.Matched))
	defer bar.end()
	tick := time.NewTicker(orderLook)
	defer tick.Stop()
	for moved := int64(0); !ended(o) && (wait || time.Since(began) < orderPatience); {
		select {
		case <-ctx.Done():
			return o, failure(Failed, "interrupted: the %s goes on; see `%s`", o.Verb, wordsOf(o).orders)
		case <-tick.C:
		}
		now, at, err := look(ctx, o.Id)
		if err != nil {
			return o, err
		}
		body, o = now, *at
		bar.add(int(o.Moved - moved))
		moved = o.Moved
		if o.State == "waiting" && o.Reason != said {
			said = o.Reason
			c.say("waiting: %s", o.Reason)
		}
	}
	bar.end()
	return o, c.write(json.RawMessage(body), func() { _, _ = fmt.Fprintln(c.Out, orderSentence(o)) })
}

func orderIn(body []byte) (o client.DLQOrder, err error) {
	if err := json.Unmarshal(body, &o); err != nil {
		return o, fmt.Errorf("read answer: %w", err)
	}
	return o, nil
}

// purge has deleted what is meant, once somebody has said yes to how much that is.
func (c *command) purge(ctx context.Context, o orderFlags, yes bool, look lookAt, ask func(dryRun bool) ([]byte, error)) error {
	if !o.dryRun && !yes {
		body, err := ask(true)
		if err != nil {
			return err
		}
		counted, err := orderIn(body)
		if err != nil {
			return err
		}
		if counted.Reason != "" {
			c.say("%s", counted.Reason)
		}
		words := wordsOf(counted)
		if err := c.confirm(false, "purging deletes %s%s for ever", count(counted.Matched, words.thing), words.whose); err != nil {
			return err
		}
	}
	body, err := ask(o.dryRun)
	if err != nil {
		return err
	}
	return c.followOrder(ctx, look, o.wait, body)
}

// taking is how an order is taken back.
type taking struct {
	id, reason string
	wait       bool
}

func (t *taking) add(f *pflag.FlagSet, orders string) {
	f.StringVar(&t.id, "order", "", "the order's id; `"+orders+"` lists them")
	f.StringVar(&t.reason, "reason", "", "why, for who asked")
	waitFlag(f, &t.wait)
}

// check refuses what doesn't say which order.
func (t taking) check(orders string) error {
	if t.id == "" {
		return usage("say which, --order ID: `%s` lists them", orders)
	}
	return nil
}

// followTaking shows what becomes of an order that is taken back. It may have been faster.
func (c *command) followTaking(ctx context.Context, look lookAt, wait bool, body []byte) error {
	o, err := c.untilOrderEnds(ctx, look, wait, body)
	if err == nil && ended(o) && o.State != "cancelled" {
		return silent(Conflict)
	}
	return err
}

// ended reports whether nothing more becomes of an order.
func ended(o client.DLQOrder) bool {
	switch o.State {
	case "dry_run", "done", "stopped", "refused", "cancelled":
		return true
	}
	return false
}

// orderWords are what an order is about.
type orderWords struct{ thing, whose, completed, back, orders string }

func wordsOf(o client.DLQOrder) orderWords {
	if o.Topic == "" {
		return orderWords{"webhook", "", "delivered", "failed again", "reeve webhook orders"}
	}
	agent := o.Topic + "/" + o.Name
	return orderWords{"dead letter", " of " + agent, "completed", "came back", "reeve dlq orders " + agent}
}

// orderSentence says for people how far an order has come.
func orderSentence(o client.DLQOrder) string {
	verb, would, words := "redriven", "would be redriven", wordsOf(o)
	if o.Verb == "purge" {
		verb, would = "purged", "would be purged"
	}
	var b strings.Builder
	if o.State == "dry_run" {
		fmt.Fprintf(&b, "%s %s", count(o.Matched, words.thing), would)
	} else {
		fmt.Fprintf(&b, "%s: %d of %s %s", o.State, o.Moved, count(o.Matched, words.thing), verb)
	}
	if o.Completed+o.CameBack > 0 {
		fmt.Fprintf(&b, ", %d %s, %d %s", o.Completed, words.completed, o.CameBack, words.back)
	}
	if o.Kept > 0 {
		fmt.Fprintf(&b, ", %d stay", o.Kept)
	}
	if o.Unfit > 0 {
		fmt.Fprintf(&b, ", %d stay that the agent doesn't take (--force redrives them all the same)", o.Unfit)
	}
	if o.Guarded > 0 {
		were, them := "were", "them"
		if o.Guarded == 1 {
			were, them = "was", "it"
		}
		fmt.Fprintf(&b, ", %d %s redriven too often (--force redrives %s too)", o.Guarded, were, them)
	}
	if o.Reason != "" {
		fmt.Fprintf(&b, ": %s", o.Reason)
	}
	if !ended(o) {
		fmt.Fprintf(&b, "\nit goes on by itself: %s", words.orders)
	}
	return b.String()
}

// listOrders lists orders; the words are those for what went well and what didn't.
func (c *command) listOrders(body []byte, completed, back string) error {
	return writeAnswer(c, body, []string{"ID", "ASKED", "BY", "VERB", "MEANT", "STATE", "MATCHED", "MOVED", completed, back, "STAY", "REASON"}, func(o client.DLQOrder) []string {
		meant := o.Origin + o.Fingerprint + o.WebhookId + o.Endpoint
		if o.All {
			meant = "all"
		}
		return []string{o.Id, orDash(moment(o.RequestedAt)), orDash(o.RequestedBy), string(o.Verb), orDash(meant), string(o.State), number(o.Matched), number(o.Moved), number(o.Completed),
			number(o.CameBack), number(o.Kept + o.Guarded + o.Unfit), orDash(c.clip(o.Reason, 80))}
	})
}
