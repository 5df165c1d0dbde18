package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
)

// asked is a move of an agent that somebody asks for.
type asked struct {
	ref
	reason string
}

// move is a command that asks the registry to change an agent's phase.
func (c *command) move(use, short, done string, ask func(context.Context, *client.ClientWithResponses, asked) (*client.PhaseChange, error)) *cobra.Command {
	var r ref
	var reason string
	cmd := &cobra.Command{
		Use: use + " TOPIC/NAME", Short: short,
		Example: "  reeve agent " + use + " orders/hello",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := r.resolve(cmd, args)
			if err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			change, err := ask(cmd.Context(), cl, asked{r, reason})
			if err != nil {
				return err
			}
			return c.write(change, func() {
				if change.Changed {
					_, _ = fmt.Fprintf(c.Out, "%s %s, its phase is %s\n", r, done, change.Phase)
				} else {
					_, _ = fmt.Fprintf(c.Out, "%s is unchanged, its phase is %s\n", r, change.Phase)
				}
			})
		},
	}
	reasonFlag(cmd, &reason)
	return c.outputFlag(c.refFlags(cmd, &r))
}

// reasonFlag is why something is done, for the agent's history.
func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "why, for the agent's history")
}

func (c *command) agentUnsubscribe() *cobra.Command {
	var hold bool
	cmd := c.move("unsubscribe", "Pause an agent: its position stays, its events wait", "is paused",
		func(ctx context.Context, cl *client.ClientWithResponses, r asked) (*client.PhaseChange, error) {
			answer, err := cl.UnsubscribeAgentWithResponse(ctx, r.topic, r.name, &client.UnsubscribeAgentParams{Reason: r.reason}, client.UnsubscribeAgentJSONRequestBody{Hold: hold})
			if err != nil {
				return nil, err
			}
			return answer.JSON200, nil
		})
	cmd.Flags().BoolVar(&hold, "hold", false, "until somebody says resume: applying a file doesn't resume it")
	return cmd
}

func (c *command) agentResume() *cobra.Command {
	return c.move("resume", "Make a paused agent active where it stopped", "is resumed",
		func(ctx context.Context, cl *client.ClientWithResponses, r asked) (*client.PhaseChange, error) {
			answer, err := cl.ResumeAgentWithResponse(ctx, r.topic, r.name, &client.ResumeAgentParams{Reason: r.reason})
			if err != nil {
				return nil, err
			}
			return answer.JSON200, nil
		})
}

func (c *command) agentInitialize() *cobra.Command {
	return c.move("initialize", "Make an agent that was only registered, or is in error, ready to be started", "is initialized",
		func(ctx context.Context, cl *client.ClientWithResponses, r asked) (*client.PhaseChange, error) {
			answer, err := cl.InitializeAgentWithResponse(ctx, r.topic, r.name, &client.InitializeAgentParams{Reason: r.reason})
			if err != nil {
				return nil, err
			}
			return answer.JSON200, nil
		})
}

func (c *command) agentStart() *cobra.Command {
	return c.move("start", "Make an initialized agent active", "is started",
		func(ctx context.Context, cl *client.ClientWithResponses, r asked) (*client.PhaseChange, error) {
			answer, err := cl.StartAgentWithResponse(ctx, r.topic, r.name, &client.StartAgentParams{Reason: r.reason})
			if err != nil {
				return nil, err
			}
			return answer.JSON200, nil
		})
}

func (c *command) agentStop() *cobra.Command {
	return c.move("stop", "End an agent's processes; its events wait until it is started", "is stopped",
		func(ctx context.Context, cl *client.ClientWithResponses, r asked) (*client.PhaseChange, error) {
			answer, err := cl.StopAgentWithResponse(ctx, r.topic, r.name, &client.StopAgentParams{Reason: r.reason})
			if err != nil {
				return nil, err
			}
			return answer.JSON200, nil
		})
}

func (c *command) agentReset() *cobra.Command {
	return c.move("reset", "Close an agent's circuits, and bring it back from error", "is reset",
		func(ctx context.Context, cl *client.ClientWithResponses, r asked) (*client.PhaseChange, error) {
			answer, err := cl.ResetAgentWithResponse(ctx, r.topic, r.name, &client.ResetAgentParams{Reason: r.reason})
			if err != nil {
				return nil, err
			}
			return answer.JSON200, nil
		})
}

func (c *command) agentRestart() *cobra.Command {
	return c.move("restart", "Replace an agent's processes, one after the other, and bring it back from error", "is restarted",
		func(ctx context.Context, cl *client.ClientWithResponses, r asked) (*client.PhaseChange, error) {
			answer, err := cl.RestartAgentWithResponse(ctx, r.topic, r.name, &client.RestartAgentParams{Reason: r.reason})
			if err != nil {
				return nil, err
			}
			return answer.JSON200, nil
		})
}
