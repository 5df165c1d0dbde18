package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/task"
)

// taskCancel ends a task.
func (c *command) taskCancel() *cobra.Command {
	return c.control(&cobra.Command{
		Use: "cancel TOPIC/PARTITION/OFFSET", Short: "End a task wherever it is: waiting, running or between attempts",
		Long: `End a task wherever it is: waiting, running or between attempts.

One that runs is asked to end, and ended by force when graceful_timeout_sec of its agent is over. Its outcome is
"cancelled". A finished task is a conflict (exit code 4), unless it was cancelled before. Where nobody has come across the
task yet, the wish stands until the task is finished, 90 days at most, and the command says so.`,
		Example: "  reeve task cancel orders/0/17\n  reeve task cancel orders/0/17 --name hello --reason 'ordered twice'",
	}, func(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, name, reason, wait string) ([]byte, error) {
		answer, err := cl.CancelTaskWithResponse(ctx, o.Topic, name, o.Partition, o.Offset, &client.CancelTaskParams{Reason: reason, Wait: wait})
		if err != nil {
			return nil, err
		}
		return answer.Body, nil
	})
}

// taskRetry runs a task again.
func (c *command) taskRetry() *cobra.Command {
	return c.control(&cobra.Command{
		Use: "retry TOPIC/PARTITION/OFFSET", Short: "Run a task at once that waits for its next attempt, or a finished one once more",
		Long: `Run a task at once that waits for its next attempt, or a finished one once more.

A task that has failed for good, or was cancelled or rejected, begins its next round with attempt 1, made of its event,
which must still stand on its topic; a dead letter is redriven. A task that is queued, runs or has completed is a conflict
(exit code 4).`,
		Example: "  reeve task retry orders/0/17\n  reeve task retry orders/0/17 --name hello --reason 'the bank is back'",
	}, func(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, name, reason, wait string) ([]byte, error) {
		answer, err := cl.RetryTaskWithResponse(ctx, o.Topic, name, o.Partition, o.Offset, &client.RetryTaskParams{Reason: reason, Wait: wait})
		if err != nil {
			return nil, err
		}
		return answer.Body, nil
	})
}

// control makes a command that asks something of a task.
func (c *command) control(cmd *cobra.Command, ask func(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, name, reason, wait string) ([]byte, error)) *cobra.Command {
	var name, reason string
	var wait time.Duration
	cmd.Args = exactly(1, "one task")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		origin, agent, err := parseTask(args[0], name)
		if err != nil {
			return err
		}
		if wait < 0 || wait > 15*time.Second {
			return usage("--wait %s: give 0s to 15s", wait)
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		if agent, err = oneAgent(cmd.Context(), cl, origin, agent); err != nil {
			return err
		}
		body, err := ask(cmd.Context(), cl, origin, agent, reason, wait.String())
		if err != nil {
			return err
		}
		var t client.TaskControl
		if err := json.Unmarshal(body, &t); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		return c.write(json.RawMessage(body), func() {
			_, _ = fmt.Fprintf(c.Out, "%s of %s: %s: %s\n", t.Task, t.Agent, t.State, t.Message)
			if t.ExpiresAt != nil && t.State == client.TaskControlStatePending {
				_, _ = fmt.Fprintf(c.Out, "the wish stands until the task is finished, at most until %s\n", moment(t.ExpiresAt))
			}
		})
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "the agent whose task is meant, where several listen to the topic")
	f.StringVar(&reason, "reason", "", "why, for the task's outcome and the history")
	f.DurationVar(&wait, "wait", 5*time.Second, "how long to wait until it is done, at most 15s")
	completeFlag(cmd, "name", c.completeNames(new(string)))
	cmd.ValidArgsFunction = first(c.completeTasks())
	return c.outputFlag(cmd)
}

// oneAgent is the agent that a task is of: the one that is named, or the only one of the topic.
func oneAgent(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, name string) (string, error) {
	if name != "" {
		return name, nil
	}
	answer, err := cl.ListAgentsWithResponse(ctx, &client.ListAgentsParams{Topic: o.Topic})
	if err != nil {
		return "", err
	}
	var names []string
	for _, a := range answer.JSON200.Items {
		names = append(names, a.Name)
	}
	switch len(names) {
	case 0:
		return "", failure(NotFound, "no agent listens to %s", o.Topic)
	case 1:
		return names[0], nil
	}
	return "", usage("several agents listen to %s: say by --name whose task is meant: %s", o.Topic, strings.Join(names, ", "))
}

// taskWatch follows a task to its end.
func (c *command) taskWatch() *cobra.Command {
	var name string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "watch TOPIC/PARTITION/OFFSET", Short: "Follow a task to its end: a line for each change, its progress among them",
		Example: "  reeve task watch orders/0/17\n  reeve task watch orders/0/17 --name hello --timeout 10m",
		Args:    exactly(1, "one task"),
		RunE: func(cmd *cobra.Command, args []string) error {
			origin, agent, err := parseTask(args[0], name)
			if err != nil {
				return err
			}
			if timeout <= 0 {
				return usage("--timeout %s: give more than 0", timeout)
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			if agent, err = oneAgent(cmd.Context(), cl, origin, agent); err != nil {
				return err
			}
			return c.watchTask(cmd.Context(), cl, origin, agent, timeout)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the agent whose task is meant, where several listen to the topic")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Hour, "how long to follow it")
	completeFlag(cmd, "name", c.completeNames(new(string)))
	cmd.ValidArgsFunction = first(c.completeTasks())
	return c.outputFlag(cmd)
}

// lookAtTask is how often a task is looked at that is followed.
const lookAtTask = 300 * time.Millisecond

// watchTask tells of each change and shows the task at its end. Lines of JSON are one a change; other forms have the end
// alone on standard output.
func (c *command) watchTask(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, name string, timeout time.Duration) error {
	patience, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	last := ""
	end, err := awaitTask(patience, cl, o, name, lookAtTask, func(t *client.TaskDetail, body []byte) error {
		line := taskLine(t)
		if line == last {
			return nil
		}
		last = line
		if c.format == "jsonl" {
			return c.write(json.RawMessage(body), nil)
		}
		c.say("%s %s", time.Now().Format(time.TimeOnly), line)
		return nil
	})
	if ctx.Err() == nil && patience.Err() != nil {
		return failure(Failed, "%s of %s/%s isn't finished after %s (%s)", o.ID(), o.Topic, name, timeout, orDash(last))
	}
	switch {
	case err != nil:
		return err
	case c.format == "jsonl" && end != client.TaskStatusCompleted:
		return silent(Failed)
	case c.format == "jsonl":
		return nil
	}
	return c.showEnd(ctx, cl, o, []string{name})
}

// showEnd shows finished tasks; the exit code says whether all completed. Agents that passed over the event have none, but
// one at least has.
func (c *command) showEnd(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, names []string) error {
	statuses, err := c.showTasks(ctx, cl, o, names)
	if err != nil {
		return err
	}
	statuses = slices.DeleteFunc(statuses, func(s client.TaskStatus) bool { return s == client.TaskStatusFiltered })
	if len(statuses) == 0 {
		return failure(Failed, "%s became no task: every agent that was waited for passes over it, by its filter or for its type", o.ID())
	}
	if slices.ContainsFunc(statuses, func(s client.TaskStatus) bool { return s != client.TaskStatusCompleted }) {
		return silent(Failed)
	}
	return nil
}

// taskLine says where a task stands, in one line.
func taskLine(t *client.TaskDetail) string {
	parts := []string{string(t.Status)}
	switch p := t.Progress; {
	case p != nil:
		parts = append(parts, "attempt "+number(p.Attempt), "on "+p.Node)
		if p.Fraction != nil {
			parts = append(parts, fmt.Sprintf("%.0f %%", *p.Fraction*100))
		}
		parts = append(parts, p.Message)
	case t.Attempts > 0:
		parts = append(parts, "attempt "+number(t.Attempts), strings.TrimPrefix(t.ErrorClass+": "+t.ErrorMessage, ": "))
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" || s == ": " }), ", ")
}

// finished reports whether a task's end has come.
func finished(s client.TaskStatus) bool {
	return !slices.Contains([]client.TaskStatus{client.TaskStatusQueued, client.TaskStatusRunning, client.TaskStatusRetrying}, s)
}

// awaitTask waits until a task is finished, and gives the status it was last seen in. tell, if any, gets it as often as it
// was looked at.
func awaitTask(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, name string, every time.Duration, tell func(*client.TaskDetail, []byte) error) (client.TaskStatus, error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	status := client.TaskStatusQueued
	for {
		answer, err := cl.GetTaskWithResponse(ctx, o.Topic, name, o.Partition, o.Offset, &client.GetTaskParams{})
		switch {
		case err != nil && ctx.Err() != nil:
			return status, ctx.Err()
		case err != nil && exitCode(err) != NotFound: // which it is until the registry hears of it
			return status, err
		case err == nil && answer.StatusCode() == http.StatusOK:
			status = answer.JSON200.Status
			if tell != nil {
				if err := tell(answer.JSON200, answer.Body); err != nil {
					return status, err
				}
			}
		}
		if finished(status) {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return status, ctx.Err()
		case <-tick.C:
		}
	}
}

// progressText is what a running attempt has told, "" where it has told nothing.
func progressText(p *client.TaskProgress) string {
	if p == nil {
		return ""
	}
	var parts []string
	if p.Fraction != nil {
		parts = append(parts, fmt.Sprintf("%.0f %%", *p.Fraction*100))
	}
	if p.Message != "" {
		parts = append(parts, p.Message)
	}
	return strings.Join(append(parts, "attempt "+number(p.Attempt)+" on "+p.Node+" at "+moment(&p.At)), ", ")
}
