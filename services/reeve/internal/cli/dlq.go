package cli

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
)

func (c *command) dlq() *cobra.Command {
	return group(&cobra.Command{Use: "dlq", Short: "Look at dead letters, redrive and purge them"}, c.dlqList(), c.dlqCount(), c.dlqGet(), c.dlqRedrive(), c.dlqPurge(), c.dlqOrders(), c.dlqCancel())
}

func (c *command) dlqList() *cobra.Command {
	var r ref
	var limit int
	var p client.ListDeadLettersParams
	cmd := &cobra.Command{
		Use: "list [TOPIC/NAME]", Short: "List an agent's open dead letters; without an agent, how many each has",
		Example: "  reeve dlq list\n  reeve dlq list orders/hello -o wide\n  reeve dlq list orders/hello --error-class network --since 1h",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkBounds(limit, p.Since); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			if len(args) == 0 && r.name == "" {
				if p != (client.ListDeadLettersParams{}) || cmd.Flags().Changed("limit") {
					return usage("--fingerprint, --error-class, --since and --limit are of one agent's list: name the agent, TOPIC/NAME")
				}
				return c.queues(cmd.Context(), cl, r.topic)
			}
			r, err := r.resolve(cmd, args)
			if err != nil {
				return err
			}
			if p.Fingerprint, err = wholeFingerprint(cmd.Context(), cl, r, p.Fingerprint); err != nil {
				return err
			}
			list, err := deadLetters(cmd.Context(), cl, r, p, limit)
			if err != nil {
				return err
			}
			return writeListing(c, list, c.deadLetterListing())
		},
	}
	f := cmd.Flags()
	f.IntVar(&limit, "limit", 100, "at most so many, 0 for all")
	f.StringVar(&p.Fingerprint, "fingerprint", "", "only those of this failure, by its fingerprint or how that begins; `reeve dlq count` lists failures")
	f.StringVar(&p.ErrorClass, "error-class", "", "only those that failed last with this class")
	f.StringVar(&p.Since, "since", "", "only those that failed last since a time (RFC 3339) or a duration back from now (15m)")
	return c.outputFlag(c.watchFlag(c.refFlags(cmd, &r)))
}

func (c *command) dlqCount() *cobra.Command {
	var r ref
	cmd := &cobra.Command{
		Use: "count TOPIC/NAME", Short: "Count an agent's open dead letters by their failure",
		Example: "  reeve dlq count orders/hello",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := r.resolve(cmd, args)
			if err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.CountDeadLettersWithResponse(cmd.Context(), r.topic, r.name)
			if err != nil {
				return err
			}
			if !answer.JSON200.Complete {
				c.say("there are more: these are of the oldest %d", answer.JSON200.Total)
			}
			return writeAnswer(c, answer.Body, []string{"FINGERPRINT", "COUNT", "GUARDED", "CLASS", "FIRST FAILED", "LAST FAILED", "ERROR"}, func(g client.DeadLetterGroup) []string {
				return []string{orDash(g.Fingerprint), number(g.Count), number(g.Guarded), orDash(g.ErrorClass), orDash(moment(g.FirstFailedAt)), orDash(moment(g.LastFailedAt)), c.clip(g.ErrorMessage, 60)}
			})
		},
	}
	return c.outputFlag(c.watchFlag(c.refFlags(cmd, &r)))
}

func (c *command) dlqGet() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "get TOPIC/PARTITION/OFFSET", Short: "Show the open dead letter of an event with all its headers", Args: exactly(1, "one event"),
		Example: "  reeve dlq get orders/0/17 --name hello\n  reeve dlq get orders/hello/0/17 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			o, agent, err := parseTask(args[0], name)
			if err != nil {
				return err
			}
			if agent == "" {
				return usage("name the agent: %s %s --name NAME, or TOPIC/NAME/PARTITION/OFFSET", cmd.CommandPath(), args[0])
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.GetDeadLetterWithResponse(cmd.Context(), o.Topic, agent, o.Partition, o.Offset)
			if err != nil {
				return err
			}
			return c.write(json.RawMessage(answer.Body), func() { c.deadLetterFacts(*answer.JSON200) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the agent's name")
	completeFlag(cmd, "name", c.completeNames(new(string)))
	return c.outputFlag(cmd)
}

func (c *command) deadLetterFacts(d client.DeadLetterDetail) {
	c.facts("Event", d.Origin, "Agent", d.Topic+"/"+d.Name, "Error class", d.ErrorClass, "Error", d.ErrorMessage, "Fingerprint", d.Fingerprint, "Attempts", number(d.Attempts),
		"Redrives", number(d.Redrives), "First failed", moment(d.FirstFailedAt), "Last failed", moment(d.LastFailedAt), "At", number(d.Partition)+"/"+number(d.Offset),
		"Key", short(text(d.Key), 200), "Value", short(text(d.Value), 2000))
	c.headers(d.Headers)
}

func (c *command) queues(ctx context.Context, cl *client.ClientWithResponses, topic string) error {
	answer, err := cl.ListDLQsWithResponse(ctx, &client.ListDLQsParams{Topic: topic})
	if err != nil {
		return err
	}
	return writeAnswer(c, answer.Body, []string{"TOPIC", "NAME", "RECORDS", "DLQ"}, func(q client.DLQ) []string {
		name := q.Name
		if q.Deleted {
			name += " (deleted)"
		}
		return []string{q.Topic, name, number(q.Records), q.DlqTopic}
	})
}

func deadLetters(ctx context.Context, cl *client.ClientWithResponses, r ref, p client.ListDeadLettersParams, limit int) ([]json.RawMessage, error) {
	return pages(limit, func(size int, token string) ([]byte, error) {
		p.PageSize, p.PageToken = &size, token
		answer, err := cl.ListDeadLettersWithResponse(ctx, r.topic, r.name, &p)
		if err != nil {
			return nil, err
		}
		return answer.Body, nil
	})
}

func (c *command) deadLetterListing() listing[client.DeadLetter] {
	return listing[client.DeadLetter]{
		columns: []string{"ORIGIN", "AGENT", "CLASS", "ATTEMPTS", "LAST FAILED", "KEY", "ERROR"},
		row: func(d client.DeadLetter) []string {
			return []string{d.Origin, d.Name, d.ErrorClass, number(d.Attempts), orDash(moment(d.LastFailedAt)), short(orDash(text(d.Key)), 24), c.clip(d.ErrorMessage, 60)}
		},
		more: []string{"FINGERPRINT", "FIRST FAILED", "REDRIVES", "AT", "VALUE"},
		moreRow: func(d client.DeadLetter) []string {
			return []string{orDash(d.Fingerprint), orDash(moment(d.FirstFailedAt)), number(d.Redrives), number(d.Partition) + "/" + number(d.Offset), orDash(short(text(d.Value), 80))}
		},
	}
}

// text is a value that may be null.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
