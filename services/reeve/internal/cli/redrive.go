package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/task"
)

// selected says which dead letters are meant.
type selected struct {
	ref
	orderFlags
	origin, fingerprint string
}

// read checks what was given.
func (s *selected) read(cmd *cobra.Command, args []string) error {
	if err := s.check(howMany(s.origin != "", s.fingerprint != ""), "dead letters, in one way: --origin TOPIC/PARTITION/OFFSET, --fingerprint F or --all"); err != nil {
		return err
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

// found makes an error of an answer that found no dead letter of the failure that was named.
func (s selected) found(body []byte) ([]byte, error) {
	o, err := orderIn(body)
	if err == nil && s.fingerprint != "" && o.Matched+o.Guarded+o.Unfit == 0 && ended(o) {
		err = noSuchFailure(s.ref, s.fingerprint)
	}
	return body, err
}

func (c *command) selectionFlags(cmd *cobra.Command, s *selected) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&s.origin, "origin", "", "that of one event, TOPIC/PARTITION/OFFSET")
	f.StringVar(&s.fingerprint, "fingerprint", "", "those of one failure, by its fingerprint or how that begins; `reeve dlq count` lists failures")
	s.add(f)
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
--all and --fingerprint, unless --force is given, and so is what the agent doesn't take, by its filter and accepted types as these
are now: redriven all the same it is rejected, not run. While the agent isn't active the redrive waits.`,
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
			body, err := s.found(answer.Body)
			if err != nil {
				return err
			}
			return c.followOrder(cmd.Context(), s.order(cl), s.wait, body)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also what came back dead five times, and what the agent doesn't take")
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
			return c.purge(cmd.Context(), s.orderFlags, yes, s.order(cl), func(dryRun bool) ([]byte, error) {
				answer, err := cl.PurgeDeadLettersWithResponse(cmd.Context(), s.topic, s.name, client.PurgeRequest{Origin: s.origin, Fingerprint: s.fingerprint, All: s.all, DryRun: dryRun})
				if err != nil {
					return nil, err
				}
				return s.found(answer.Body)
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return c.selectionFlags(cmd, &s)
}

func (s selected) order(cl *client.ClientWithResponses) lookAt {
	return func(ctx context.Context, id string) ([]byte, *client.DLQOrder, error) {
		answer, err := cl.GetDLQOrderWithResponse(ctx, s.topic, s.name, id)
		if err != nil {
			return nil, nil, err
		}
		return answer.Body, answer.JSON200, nil
	}
}

func (c *command) dlqCancel() *cobra.Command {
	var s selected
	var t taking
	cmd := &cobra.Command{
		Use: "cancel TOPIC/NAME --order ID", Short: "Take a redrive or a purge back that hasn't ended",
		Long: `Take a redrive or a purge back that hasn't ended, such as one that waits for a paused agent. What it has moved stays moved,
and the rest stays where it is. Where it has ended already the exit code is 4.`,
		Example: "  reeve dlq cancel orders/hello --order 9f0c2e51-6d3b-4c1e-8f53-1f6f0f1e7a42\n  reeve dlq cancel orders/hello --order 9f0c2e51-6d3b-4c1e-8f53-1f6f0f1e7a42 --reason 'not yet mended' --wait",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if s.ref, err = s.resolve(cmd, args); err != nil {
				return err
			}
			if err := t.check("reeve dlq orders " + s.ref.String()); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.CancelDLQOrderWithResponse(cmd.Context(), s.topic, s.name, t.id, &client.CancelDLQOrderParams{Reason: t.reason})
			if err != nil {
				return err
			}
			return c.followTaking(cmd.Context(), s.order(cl), t.wait, answer.Body)
		},
	}
	t.add(cmd.Flags(), "reeve dlq orders")
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
