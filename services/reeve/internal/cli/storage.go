package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
)

func (c *command) storage() *cobra.Command {
	return group(&cobra.Command{Use: "storage", Short: "Look at what the registry keeps, and clear it"},
		c.storageHealth(),
		c.clear(clearing{
			use: "clear-agents", short: "Delete every agent; groups, positions, dead letters and history stay", what: "agents",
			count: func(h client.StorageHealth) int64 { return h.AgentsCount },
			loses: "deletes all %d agents; groups, positions, dead letters and history stay",
			do: func(ctx context.Context, cl *client.ClientWithResponses) ([]byte, int64, error) {
				r, err := cl.ClearAgentsWithResponse(ctx)
				if err != nil {
					return nil, 0, err
				}
				return r.Body, r.JSON200.AgentsDeleted, nil
			},
		}),
		c.clear(clearing{
			use: "clear-results", short: "Delete every stored result; what became of each task stays known", what: "results",
			count: func(h client.StorageHealth) int64 { return h.ResultsCount },
			loses: "deletes all %d stored results, and the outcomes up to now from their topic, for ever",
			do: func(ctx context.Context, cl *client.ClientWithResponses) ([]byte, int64, error) {
				r, err := cl.ClearResultsWithResponse(ctx)
				if err != nil {
					return nil, 0, err
				}
				return r.Body, r.JSON200.ResultsDeleted, nil
			},
		}),
		c.clear(clearing{
			use: "clear-metrics", short: "Begin to count anew", what: "rows of counters",
			count: func(h client.StorageHealth) int64 { return h.MetricsCount },
			loses: "deletes %d rows of counters, one for each agent and version, for ever: what the tasks did before counts no more",
			do: func(ctx context.Context, cl *client.ClientWithResponses) ([]byte, int64, error) {
				r, err := cl.ClearMetricsWithResponse(ctx)
				if err != nil {
					return nil, 0, err
				}
				return r.Body, r.JSON200.MetricsDeleted, nil
			},
		}))
}

// askStorage asks how much there is; an error is only where nobody answered.
func (c *command) askStorage(ctx context.Context, cl *client.ClientWithResponses) (client.StorageHealth, []byte, error) {
	answer, err := cl.GetStorageHealthWithResponse(ctx)
	switch {
	case err != nil:
		return client.StorageHealth{}, nil, err
	case answer.JSON200 != nil:
		return *answer.JSON200, answer.Body, nil
	case answer.JSON503 != nil:
		return *answer.JSON503, answer.Body, nil
	}
	return client.StorageHealth{}, nil, failure(Failed, "the answer is no Reeve registry's: HTTP %d", answer.StatusCode())
}

func (c *command) storageHealth() *cobra.Command {
	cmd := &cobra.Command{
		Use: "health", Short: "Say whether Postgres answers and how much is kept; exit code 0 only if it does", Args: exactly(0, "no arguments"),
		Example: "  reeve storage health",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			h, body, err := c.askStorage(cmd.Context(), cl)
			if err != nil {
				return err
			}
			if err := c.write(json.RawMessage(body), func() { c.kept(h) }); err != nil {
				return err
			}
			if !h.Connected {
				return silent(Failed)
			}
			return nil
		},
	}
	return c.outputFlag(c.watchFlag(cmd))
}

func (c *command) kept(h client.StorageHealth) {
	if !h.Connected {
		c.facts("Status", string(h.Status), "Detail", h.Detail, "Backend", string(h.Backend))
		return
	}
	c.facts("Status", string(h.Status), "Backend", string(h.Backend), "Agents", number(h.AgentsCount), "Results", number(h.ResultsCount),
		"Rows of counters", number(h.MetricsCount), "Answers in", fmt.Sprintf("%.1f ms", h.LatencyMs),
		"Results cleared", moment(h.ResultsClearedAt), "Counters begun anew", moment(h.MetricsClearedAt))
}

// clearing is one thing that can be cleared.
type clearing struct {
	use, short, what string
	loses            string // what it costs, with the count
	count            func(client.StorageHealth) int64
	do               func(context.Context, *client.ClientWithResponses) (body []byte, deleted int64, err error)
}

// clear is a command that clears one thing, after it has named how much and asked.
func (c *command) clear(what clearing) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: what.use, Short: what.short, Args: exactly(0, "no arguments"),
		Example: "  reeve storage " + what.use + " --yes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			if !yes {
				h, _, err := c.askStorage(cmd.Context(), cl)
				if err != nil {
					return err
				}
				if !h.Connected {
					return failure(Unreachable, "nothing can be cleared, Postgres doesn't answer: %s", h.Detail)
				}
				if err := c.confirm(false, "%s "+what.loses, cmd.CommandPath(), what.count(h)); err != nil {
					return err
				}
			}
			body, deleted, err := what.do(cmd.Context(), cl)
			if err != nil {
				return err
			}
			return c.write(json.RawMessage(body), func() { _, _ = fmt.Fprintf(c.Out, "%d %s are deleted\n", deleted, what.what) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return c.outputFlag(cmd)
}
