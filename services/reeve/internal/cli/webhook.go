package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
)

func (c *command) webhook() *cobra.Command {
	return group(&cobra.Command{Use: "webhook", Short: "Look at webhooks that were given up, redrive and purge them"},
		c.webhookList(), c.webhookCount(), c.webhookGet(), c.webhookRedrive(), c.webhookPurge(), c.webhookOrders(), c.webhookCancel())
}

func (c *command) webhookList() *cobra.Command {
	var limit int
	var p client.ListDeadWebhooksParams
	cmd := &cobra.Command{
		Use: "list", Short: "List the webhooks that were given up", Args: exactly(0, "no argument"),
		Example: "  reeve webhook list\n  reeve webhook list --endpoint https://hooks.example.com:443 --since 1h -o wide",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkBounds(limit, p.Since); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			list, err := pages(limit, func(size int, token string) ([]byte, error) {
				p.PageSize, p.PageToken = &size, token
				answer, err := cl.ListDeadWebhooksWithResponse(cmd.Context(), &p)
				if err != nil {
					return nil, err
				}
				return answer.Body, nil
			})
			if err != nil {
				return err
			}
			return writeListing(c, list, c.deadWebhookListing())
		},
	}
	f := cmd.Flags()
	f.IntVar(&limit, "limit", 100, "at most so many, 0 for all")
	f.StringVar(&p.Endpoint, "endpoint", "", "only those to this endpoint; `reeve webhook count` lists endpoints")
	f.StringVar(&p.ErrorClass, "error-class", "", "only those that failed last with this class")
	f.StringVar(&p.Since, "since", "", "only those that failed last since a time (RFC 3339) or a duration back from now (15m)")
	completeFlag(cmd, "endpoint", c.completeEndpoints())
	return c.outputFlag(c.watchFlag(cmd))
}

func (c *command) deadWebhookListing() listing[client.DeadWebhook] {
	return listing[client.DeadWebhook]{
		columns: []string{"WEBHOOK", "ENDPOINT", "TASK", "CLASS", "ATTEMPTS", "LAST FAILED", "ERROR"},
		row: func(w client.DeadWebhook) []string {
			return []string{w.WebhookId, w.Endpoint, orDash(w.Task), orDash(w.ErrorClass), number(w.Attempts), orDash(moment(w.LastFailedAt)), c.clip(w.ErrorMessage, 60)}
		},
		more: []string{"AGENT", "FIRST FAILED", "REDRIVES", "AT"},
		moreRow: func(w client.DeadWebhook) []string {
			return []string{orDash(w.Agent), orDash(moment(w.FirstFailedAt)), number(w.Redrives), number(w.Partition) + "/" + number(w.Offset)}
		},
	}
}

func (c *command) webhookCount() *cobra.Command {
	cmd := &cobra.Command{
		Use: "count", Short: "Count the webhooks that were given up by their endpoint", Args: exactly(0, "no argument"),
		Example: "  reeve webhook count",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.CountDeadWebhooksWithResponse(cmd.Context())
			if err != nil {
				return err
			}
			if !answer.JSON200.Complete {
				c.say("there are more: these are of the oldest %d", answer.JSON200.Total)
			}
			return writeAnswer(c, answer.Body, []string{"ENDPOINT", "COUNT", "GUARDED", "CLASS", "FIRST FAILED", "LAST FAILED", "ERROR"}, func(g client.DeadWebhookGroup) []string {
				return []string{g.Endpoint, number(g.Count), number(g.Guarded), orDash(g.ErrorClass), orDash(moment(g.FirstFailedAt)), orDash(moment(g.LastFailedAt)), c.clip(g.ErrorMessage, 60)}
			})
		},
	}
	return c.outputFlag(c.watchFlag(cmd))
}

func (c *command) webhookGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a webhook that was given up with its body and all headers of its record", Args: exactly(1, "one webhook's id"),
		Example: "  reeve webhook get msg_6d1f0c7b2a9e4f35\n  reeve webhook get msg_6d1f0c7b2a9e4f35 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.GetDeadWebhookWithResponse(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.write(json.RawMessage(answer.Body), func() { c.deadWebhookFacts(*answer.JSON200) })
		},
	}
	cmd.ValidArgsFunction = first(c.completeWebhooks())
	return c.outputFlag(cmd)
}

func (c *command) deadWebhookFacts(w client.DeadWebhookDetail) {
	c.facts("Webhook", w.WebhookId, "Endpoint", w.Endpoint, "Task", w.Task, "Agent", w.Agent, "Error class", w.ErrorClass, "Error", w.ErrorMessage, "Attempts", number(w.Attempts),
		"Redrives", number(w.Redrives), "First failed", moment(w.FirstFailedAt), "Last failed", moment(w.LastFailedAt), "At", number(w.Partition)+"/"+number(w.Offset),
		"Body", short(w.Body, 2000))
	c.headers(w.Headers)
}

// selectedWebhooks says which are meant.
type selectedWebhooks struct {
	orderFlags
	id, endpoint string
}

// read checks what was given.
func (s *selectedWebhooks) read(args []string) error {
	if err := s.check(len(args)+howMany(s.endpoint != ""), "webhooks, in one way: the id of one, --endpoint SCHEME://HOST:PORT or --all"); err != nil {
		return err
	}
	if len(args) == 1 {
		s.id = args[0]
	}
	return nil
}

func (c *command) webhookFlags(cmd *cobra.Command, s *selectedWebhooks) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&s.endpoint, "endpoint", "", "those to one endpoint, SCHEME://HOST:PORT; `reeve webhook count` lists endpoints")
	s.add(f)
	completeFlag(cmd, "endpoint", c.completeEndpoints())
	cmd.ValidArgsFunction = first(c.completeWebhooks())
	return c.outputFlag(cmd)
}

func (c *command) webhookRedrive() *cobra.Command {
	var s selectedWebhooks
	var force bool
	cmd := &cobra.Command{
		Use: "redrive (ID | --endpoint E | --all)", Short: "Send webhooks off once more that were given up",
		Long: `Send webhooks off once more that were given up, with the same webhook-id and all their tries.

Those to an endpoint begin with one. They go on as far as they are delivered; where five more fail in their first try than
are delivered, the rest of that endpoint stays where it is, and the exit code is 1. What was redriven five times already is
left alone by --all and --endpoint, unless --force is given.`,
		Example: "  reeve webhook redrive --all --dry-run\n  reeve webhook redrive msg_6d1f0c7b2a9e4f35\n  reeve webhook redrive --endpoint https://hooks.example.com:443 --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.read(args); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.RedriveDeadWebhooksWithResponse(cmd.Context(), client.WebhookRedriveRequest{WebhookId: s.id, Endpoint: s.endpoint, All: s.all, Force: force, DryRun: s.dryRun})
			if err != nil {
				return err
			}
			return c.followOrder(cmd.Context(), webhookOrder(cl), s.wait, answer.Body)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also what was redriven five times")
	return c.webhookFlags(cmd, &s)
}

func (c *command) webhookPurge() *cobra.Command {
	var s selectedWebhooks
	var yes bool
	cmd := &cobra.Command{
		Use: "purge (ID | --endpoint E | --all)", Short: "Delete webhooks for ever that were given up",
		Example: "  reeve webhook purge --endpoint https://hooks.example.com:443 --dry-run\n  reeve webhook purge --all --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.read(args); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			return c.purge(cmd.Context(), s.orderFlags, yes, webhookOrder(cl), func(dryRun bool) ([]byte, error) {
				answer, err := cl.PurgeDeadWebhooksWithResponse(cmd.Context(), client.WebhookPurgeRequest{WebhookId: s.id, Endpoint: s.endpoint, All: s.all, DryRun: dryRun})
				if err != nil {
					return nil, err
				}
				return answer.Body, nil
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return c.webhookFlags(cmd, &s)
}

func webhookOrder(cl *client.ClientWithResponses) lookAt {
	return func(ctx context.Context, id string) ([]byte, *client.DLQOrder, error) {
		answer, err := cl.GetDeadWebhookOrderWithResponse(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		return answer.Body, answer.JSON200, nil
	}
}

func (c *command) webhookOrders() *cobra.Command {
	cmd := &cobra.Command{
		Use: "orders", Short: "List the redrives and purges of webhooks and how far they have come", Args: exactly(0, "no argument"),
		Example: "  reeve webhook orders",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.ListDeadWebhookOrdersWithResponse(cmd.Context())
			if err != nil {
				return err
			}
			return c.listOrders(answer.Body, "DELIVERED", "FAILED AGAIN")
		},
	}
	return c.outputFlag(c.watchFlag(cmd))
}

func (c *command) webhookCancel() *cobra.Command {
	var t taking
	cmd := &cobra.Command{
		Use: "cancel --order ID", Short: "Take a redrive or a purge of webhooks back that hasn't ended", Args: exactly(0, "no argument"),
		Long: `Take a redrive or a purge of webhooks back that hasn't ended. What it has moved stays moved, and the rest stays where it is.
Where it has ended already the exit code is 4.`,
		Example: "  reeve webhook cancel --order 9f0c2e51-6d3b-4c1e-8f53-1f6f0f1e7a42\n  reeve webhook cancel --order 9f0c2e51-6d3b-4c1e-8f53-1f6f0f1e7a42 --reason 'not yet mended' --wait",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.check("reeve webhook orders"); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.CancelDeadWebhookOrderWithResponse(cmd.Context(), t.id, &client.CancelDeadWebhookOrderParams{Reason: t.reason})
			if err != nil {
				return err
			}
			return c.followTaking(cmd.Context(), webhookOrder(cl), t.wait, answer.Body)
		},
	}
	t.add(cmd.Flags(), "reeve webhook orders")
	return c.outputFlag(cmd)
}

// completeWebhooks completes the ids of webhooks that were given up.
func (c *command) completeWebhooks() completer {
	return c.live(func(ctx context.Context, cl *client.ClientWithResponses) ([]string, error) {
		size := 50
		answer, err := cl.ListDeadWebhooksWithResponse(ctx, &client.ListDeadWebhooksParams{PageSize: &size})
		if err != nil {
			return nil, err
		}
		var list []string
		for _, w := range answer.JSON200.Items {
			list = append(list, fmt.Sprintf("%s\t%s of %s", w.WebhookId, w.Endpoint, w.Task))
		}
		return list, nil
	})
}

// completeEndpoints completes the endpoints whose webhooks were given up.
func (c *command) completeEndpoints() completer {
	return c.live(func(ctx context.Context, cl *client.ClientWithResponses) ([]string, error) {
		answer, err := cl.CountDeadWebhooksWithResponse(ctx)
		if err != nil {
			return nil, err
		}
		var list []string
		for _, g := range answer.JSON200.Items {
			list = append(list, fmt.Sprintf("%s\t%d", g.Endpoint, g.Count))
		}
		return list, nil
	})
}
