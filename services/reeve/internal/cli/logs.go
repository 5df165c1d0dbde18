package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
)

const (
	// followEvery is how often new lines are asked for.
	followEvery = time.Second
	mostLines   = 1000 // that the registry gives at once, and keeps
)

func (c *command) agentLogs() *cobra.Command {
	var r ref
	var l logs
	cmd := &cobra.Command{
		Use: "logs TOPIC/NAME", Short: "Show what an agent's processes wrote on standard error; the latest 1000 lines of a day are kept",
		Example: "  reeve agent logs orders/hello --tail 20\n  reeve agent logs orders/hello -o jsonl",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := r.resolve(cmd, args)
			if err != nil {
				return err
			}
			if l.tail < 1 || l.tail > mostLines {
				return usage("--tail %d is out of range: give 1 to %d", l.tail, mostLines)
			}
			if l.follow && !c.forPeople() && c.format != "jsonl" {
				return usage("--follow has no end, so that -o %s can't hold it: use -o jsonl", c.format)
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			l.ask = func(ctx context.Context, after int64, limit int) (*client.GetAgentLogsResponse, error) {
				return cl.GetAgentLogsWithResponse(ctx, r.topic, r.name, &client.GetAgentLogsParams{Instance: l.instance, After: after, Limit: &limit})
			}
			return c.logs(cmd.Context(), &l)
		},
	}
	cmd.Flags().StringVar(&l.instance, "instance", "", "only this process's lines, such as dev-3")
	cmd.Flags().IntVar(&l.tail, "tail", 100, "at most so many lines from the end, 1 to 1000")
	cmd.Flags().BoolVarP(&l.follow, "follow", "f", false, "show new lines as they come, until Ctrl-C")
	return c.outputFlag(c.refFlags(cmd, &r))
}

// logs is what to show of a log.
type logs struct {
	instance string
	tail     int
	follow   bool
	ask      func(ctx context.Context, after int64, limit int) (*client.GetAgentLogsResponse, error)
}

// logs shows the end of a log, and goes on with what comes. A registry that goes away meanwhile is waited for.
func (c *command) logs(ctx context.Context, l *logs) error {
	answer, err := l.ask(ctx, 0, l.tail)
	if err != nil {
		return err
	}
	last, err := c.logLines(answer)
	if err != nil || !l.follow {
		return err
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for away := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		answer, err := l.ask(ctx, last, mostLines)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !passing(err):
			return err
		case err != nil:
			if !away {
				c.say("%s: trying again every %s", firstLine(err), followEvery)
			}
			away = true
			continue
		case away:
			c.say("the registry answers again")
			away = false
		}
		newest, err := c.logLines(answer)
		if err != nil {
			return err
		}
		last = max(last, newest)
	}
}

// logLines writes lines and gives the number of the last one.
func (c *command) logLines(answer *client.GetAgentLogsResponse) (last int64, err error) {
	lines := answer.JSON200.Items
	if len(lines) > 0 {
		last = lines[len(lines)-1].Id
	}
	return last, c.write(json.RawMessage(answer.Body), func() {
		for _, l := range lines {
			_, _ = fmt.Fprintf(c.Out, "%s %s  %s\n", moment(&l.At), l.Instance, oneLine(l.Line))
		}
	})
}
