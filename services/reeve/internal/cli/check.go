package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// checked is what is known of an agent that runs, as JSON.
type checked struct {
	Runtime      string   `json:"runtime"`
	Callback     string   `json:"callback,omitempty"`
	Command      []string `json:"command,omitempty"`
	StartSeconds float64  `json:"start_seconds"`
	PingMS       float64  `json:"ping_ms"`
	MemoryMB     float64  `json:"memory_mb"`
}

func (c *command) agentCheck() *cobra.Command {
	var flags aloneFlags
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Test an agent alone: start it, ping it, end it",
		Long: `Start the agent of a directory as a supervisor does, without Kafka and registry, wait until it answers a ping, and end
it. Which one that is says its agents.yaml, unless --callback or --command does. A callback that isn't there, a library that is missing, a program that ends at once are told with what to do.`,
		Example: "  reeve agent check my-agent",
		Args:    exactly(1, "the agent's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			agent, err := flags.agent(args[0])
			if err != nil {
				return err
			}
			lone, err := c.startAlone(cmd.Context(), args[0], agent)
			if err != nil {
				return err
			}
			defer lone.Stop()
			memory, ping, err := lone.Figures(cmd.Context())
			if err != nil {
				return didNotRun(err)
			}
			got := checked{agent.Runtime, agent.Callback, agent.Command, lone.Took().Seconds(), float64(ping) / float64(time.Millisecond), memory}
			return c.write(got, func() {
				what := got.Callback
				if what == "" {
					what = strings.Join(got.Command, " ")
				}
				_, _ = fmt.Fprintf(c.Out, "ok: %s %s was up after %s, answers a ping in %.1f ms and has %.1f MB\n",
					got.Runtime, what, lone.Took().Round(time.Millisecond), got.PingMS, got.MemoryMB)
			})
		},
	}
	flags.add(cmd)
	return alone(c.outputFlag(cmd))
}
