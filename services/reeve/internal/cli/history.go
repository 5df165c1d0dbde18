package cli

import (
	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
)

// agentHistory lists what was done to an agent.
func (c *command) agentHistory() *cobra.Command {
	var r ref
	var limit int
	cmd := &cobra.Command{
		Use: "history TOPIC/NAME", Short: "List what was done to an agent, by whom and why, the latest first",
		Example: "  reeve agent history orders/hello\n  reeve agent history orders/hello --limit 5 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := r.resolve(cmd, args)
			if err != nil {
				return err
			}
			if err := checkBounds(limit, ""); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			list, err := pages(limit, func(size int, token string) ([]byte, error) {
				answer, err := cl.GetAgentHistoryWithResponse(cmd.Context(), r.topic, r.name, &client.GetAgentHistoryParams{PageSize: &size, PageToken: token})
				if err != nil {
					return nil, err
				}
				return answer.Body, nil
			})
			if err != nil {
				return err
			}
			return writeList(c, list, []string{"AT", "ACTION", "FROM", "TO", "GENERATION", "BY", "REASON"}, func(m client.Move) []string {
				return []string{moment(&m.At), m.Action, orDash(string(m.OldPhase)), string(m.Phase), number(m.Generation), m.Actor, orDash(c.clip(m.Reason, 80))}
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many, 0 for all")
	return c.outputFlag(c.watchFlag(c.refFlags(cmd, &r)))
}
