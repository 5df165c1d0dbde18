package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/task"
)

const (
	// orderPatience is how long a redrive or a purge is waited for without --wait: most have ended by then.
	orderPatience = 3 * time.Second
	orderLook     = 200 * time.Millisecond
)

// selected says which dead letters are meant.
type selected struct {
	ref
	origin, fingerprint string
	all, dryRun, wait   bool
}

// read checks what was given.
func (s *selected) read(cmd *cobra.Command, args []string) error {
	n := 0
	for _, given := range []bool{s.origin != "", s.fingerprint != "", s.all} {
		if given {
			n++
		}
	}
	switch {
	case n != 1:
		return usage("say which dead letters, in one way: --origin TOPIC/PARTITION/OFFSET, --fingerprint F or --all")
	case s.dryRun && s.wait:
		return usage("--dry-run does nothing that --wait could wait for: give one of them")
	}
	r, err := s.resolve(cmd, args)
	if err != nil {
		return err
	}
	s.ref = r
	if s.origin == "" {
		return nil
	}
	o, err := task.ParseOrigin(s.origin)
	switch {
	case err != nil:
		return usage("--origin: %w", err)
	case o.Topic != s.topic:
		return usage("--origin %s is no event of %s, which %s listens to", s.origin, s.topic, s.ref)
	}
	return nil
}

// found makes an error of an order that found no dead letter of the failure that was named. o is nil for one that goes on.
func (s selected) found(err error, o *client.DLQOrder) error {
	if err != nil || s.fingerprint == "" || o == nil || o.Matched+o.Guarded > 0 || !ended(*o) {
		return err
	}
	return noSuchFailure(s.ref, s.fingerprint)
}

func (c *command) selectionFlags(cmd *cobra.Command, s *selected) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&s.origin, "origin", "", "that of one event, TOPIC/PARTITION/OFFSET")
	f.StringVar(&s.fingerprint, "fingerprint", "", "those of one failure, by its fingerprint or how that begins; `reeve dlq count` lists failures")
	f.BoolVar(&s.all, "all", false, "all that are there now")
	f.BoolVar(&s.dryRun, "dry-run", false, "only say how many that are")
	f.BoolVar(&s.wait, "wait", false, "wait until it has ended, however long that takes")
	return c.outputFlag(c.refFlags(cmd, &s.ref))
}

func (c *command) dlqRedrive() *cobra.Command {
	var s selected
	var force bool
	cmd := &cobra.Command{
		Use: "redrive TOPIC/NAME (--origin ID | --fingerprint F | --all)", Short: "Send dead letters to their agent once more",
		Long: `Send dead letters to their agent once more, as the tasks that they were, with all their retries.

Those of a failure begin with five. They go on as far as tasks succeed; where five more come back dead than are completed,
the rest of that failure stays where it is. The exit code is 1 where any is known to have come back dead when the command ends:
with --wait that is once all have ended, or a minute after the last was sent. What was redriven five times already is left alone by
--all and --fingerprint, unless --force is given. While the agent isn't active the redrive waits. They go by the agent's filter
and accepted types as these are now: what it takes no more is rejected, not run.`,
		Example: "  reeve dlq redrive orders/hello --all --dry-run\n  reeve dlq redrive orders/hello --origin orders/0/17\n  reeve dlq redrive orders/hello --fingerprint 7d0c41 --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.read(cmd, args); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			if s.fingerprint, err = wholeFingerprint(cmd.Context(), cl, s.ref, s.fingerprint); err != nil {
				return err
			}
			answer, err := cl.RedriveDeadLettersWithResponse(cmd.Context(), s.topic, s.name,
				client.RedriveRequest{Origin: s.origin, Fingerprint: s.fingerprint, All: s.all, Force: force, DryRun: s.dryRun})
			if err != nil {
				return err
			}
			return s.found(c.followOrder(cmd.Context(), s.order(cl), s.wait, answer.Body), answer.JSON200)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also what came back dead five times")
	return c.selectionFlags(cmd, &s)
}

func (c *command) dlqPurge() *cobra.Command {
	var s selected
	var yes bool
	cmd := &cobra.Command{
		Use: "purge TOPIC/NAME (--origin ID | --fingerprint F | --all)", Short: "Delete dead letters for ever",
		Example: "  reeve dlq purge orders/hello --fingerprint 7d0c41 --dry-run\n  reeve dlq purge orders/hello --all --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.read(cmd, args); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			if s.fingerprint, err = wholeFingerprint(cmd.Context(), cl, s.ref, s.fingerprint); err != nil {
				return err
			}
			ask := client.PurgeRequest{Origin: s.origin, Fingerprint: s.fingerprint, All: s.all, DryRun: true}
			if !s.dryRun && !yes {
				counted, err := cl.PurgeDeadLettersWithResponse(cmd.Context(), s.topic, s.name, ask)
				if err != nil {
					return err
				}
				if counted.JSON200.Reason != "" {
					c.say("%s", counted.JSON200.Reason)
				}
				if err := c.confirm(false, "purging deletes %s of %s for ever", count(counted.JSON200.Matched, "dead letter"), s.ref); err != nil {
					return err
				}
			}
			ask.DryRun = s.dryRun
			answer, err := cl.PurgeDeadLettersWithResponse(cmd.Context(), s.topic, s.name, ask)
			if err != nil {
				return err
			}
			return s.found(c.followOrder(cmd.Context(), s.order(cl), s.wait, answer.Body), answer.JSON200)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return c.selectionFlags(cmd, &s)
}

// lookAt gives an order as it is now.
type lookAt func(ctx context.Context, id string) ([]byte, *client.DLQOrder, error)

func (s selected) order(cl *client.ClientWithResponses) lookAt {
	return func(ctx context.Context, id string) ([]byte, *client.DLQOrder, error) {
		answer, err := cl.GetDLQOrderWithResponse(ctx, s.topic, s.name, id)
		if err != nil {
			return nil, nil, err
		}
		return answer.Body, answer.JSON200, nil
	}
}

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
	if err := json.Unmarshal(body, &o); err != nil {
		return o, fmt.Errorf("read answer: %w", err)
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

// ended reports whether nothing more becomes of an order.
func ended(o client.DLQOrder) bool {
	switch o.State {
	case "dry_run", "done", "stopped", "refused", "cancelled":
		return true
	}
	return false
}

// orderWords are what an order is about.
type orderWords struct{ thing, completed, back, orders string }

func wordsOf(o client.DLQOrder) orderWords {
	if o.Topic == "" {
		return orderWords{"webhook", "delivered", "failed again", "reeve webhook orders"}
	}
	return orderWords{"dead letter", "completed", "came back", "reeve dlq orders " + o.Topic + "/" + o.Name}
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

func (c *command) dlqCancel() *cobra.Command {
	var s selected
	var id, reason string
	cmd := &cobra.Command{
		Use: "cancel TOPIC/NAME --order ID", Short: "Take a redrive or a purge back that hasn't ended",
		Long: `Take a redrive or a purge back that hasn't ended, such as one that waits for a paused agent. What it has moved stays moved,
and the rest stays where it is. Where it has ended already the exit code is 4.`,
		Example: "  reeve dlq cancel orders/hello --order 9f0c2e51-6d3b-4c1e-8f53-1f6f0f1e7a42\n  reeve dlq cancel orders/hello --order 9f0c2e51-6d3b-4c1e-8f53-1f6f0f1e7a42 --reason 'not yet mended' --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.resolve(cmd, args)
			if err != nil {
				return err
			}
			if s.ref = r; id == "" {
				return usage("say which, --order ID: `reeve dlq orders %s` lists them", r)
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.CancelDLQOrderWithResponse(cmd.Context(), s.topic, s.name, id, &client.CancelDLQOrderParams{Reason: reason})
			if err != nil {
				return err
			}
			o, err := c.untilOrderEnds(cmd.Context(), s.order(cl), s.wait, answer.Body)
			if err == nil && ended(o) && o.State != "cancelled" { // it was faster
				return silent(Conflict)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&id, "order", "", "the order's id; `reeve dlq orders` lists them")
	f.StringVar(&reason, "reason", "", "why, for who asked")
	f.BoolVar(&s.wait, "wait", false, "wait until it has ended, however long that takes")
	return c.outputFlag(c.refFlags(cmd, &s.ref))
}

func (c *command) dlqOrders() *cobra.Command {
	var r ref
	cmd := &cobra.Command{
		Use: "orders TOPIC/NAME", Short: "List the redrives and purges of an agent's dead letters and how far they have come",
		Example: "  reeve dlq orders orders/hello",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := r.resolve(cmd, args)
			if err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.ListDLQOrdersWithResponse(cmd.Context(), r.topic, r.name)
			if err != nil {
				return err
			}
			return c.listOrders(answer.Body, "COMPLETED", "CAME BACK")
		},
	}
	return c.outputFlag(c.watchFlag(c.refFlags(cmd, &r)))
}

// listOrders lists orders; the words are those for what went well and what didn't.
func (c *command) listOrders(body []byte, completed, back string) error {
	var list items
	if err := json.Unmarshal(body, &list); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return writeList(c, list.Items, []string{"ID", "ASKED", "BY", "VERB", "MEANT", "STATE", "MATCHED", "MOVED", completed, back, "STAY", "REASON"}, func(o client.DLQOrder) []string {
		meant := o.Origin + o.Fingerprint + o.WebhookId + o.Endpoint
		if o.All {
			meant = "all"
		}
		return []string{o.Id, orDash(moment(o.RequestedAt)), orDash(o.RequestedBy), string(o.Verb), orDash(meant), string(o.State), number(o.Matched), number(o.Moved), number(o.Completed),
			number(o.CameBack), number(o.Kept + o.Guarded), orDash(c.clip(o.Reason, 80))}
	})
}
