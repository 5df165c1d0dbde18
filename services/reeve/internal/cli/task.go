package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/task"
)

func (c *command) task() *cobra.Command {
	return group(&cobra.Command{Use: "task", Short: "Look at tasks, one event for one agent, cancel and retry them"}, c.taskList(), c.taskGet(), c.taskWatch(), c.taskCancel(), c.taskRetry())
}

func (c *command) taskList() *cobra.Command {
	var p client.ListTasksParams
	var status string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List tasks by their latest attempt, newest first", Args: exactly(0, "no arguments"),
		Long: `List tasks by their latest attempt, newest first.

A task that waits or runs for the first time has no attempt yet and isn't listed: ` + "`reeve agent get`" + ` says how many there are, and
` + "`reeve task get`" + ` how one stands. One in a further round is.`,
		Example: "  reeve task list --agent orders/hello --status dead_lettered\n  reeve task list --since 15m -o jsonl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(checkBounds(limit, p.Since), checkWord("status", status, statuses()), checkWord("error-class", p.ErrorClass, errorClasses()), checkAgent(p.Agent)); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			p.Status = client.TaskStatus(status)
			list, err := pages(limit, func(size int, token string) ([]byte, error) {
				p.PageSize, p.PageToken = &size, token
				r, err := cl.ListTasksWithResponse(cmd.Context(), &p)
				if err != nil {
					return nil, err
				}
				return r.Body, nil
			})
			if err != nil {
				return err
			}
			return writeListing(c, list, c.taskListing())
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.Agent, "agent", "", "only those of an agent, TOPIC/NAME")
	f.StringVar(&status, "status", "", "only those in a status: "+strings.Join(statuses(), ", "))
	f.StringVar(&p.ErrorClass, "error-class", "", "only those whose latest attempt failed with this class")
	f.StringVar(&p.CorrelationId, "correlation-id", "", "only those of this correlation id")
	f.StringVar(&p.Since, "since", "", "only those since a time (RFC 3339) or a duration back from now (15m)")
	f.IntVar(&limit, "limit", 100, "at most so many, 0 for all")
	completeFlag(cmd, "agent", c.completeAgents())
	completeFlag(cmd, "status", words(statuses()...))
	completeFlag(cmd, "error-class", words(errorClasses()...))
	return c.outputFlag(c.watchFlag(cmd))
}

// statuses are those that a task can be in of which there is a list.
func statuses() []string {
	return []string{"retrying", "completed", "failed", "dead_lettered", "cancelled", "rejected", "discarded"}
}

// errorClasses are those that an attempt can fail with.
func errorClasses() []string {
	return []string{"network", "timeout", "rate_limited", "resource", "dependency", "crash", "internal", "invalid_input", "incompatible_task", "permanent", "result_too_large"}
}

func (c *command) taskListing() listing[client.Task] {
	return listing[client.Task]{
		columns: []string{"TASK", "AGENT", "STATUS", "ATTEMPTS", "TOOK", "SETTLED", "ERROR"},
		row: func(t client.Task) []string {
			return []string{t.Id, t.Agent, string(t.Status), number(t.Attempts), milliseconds(t.DurationMs), orDash(moment(t.SettledAt)),
				orDash(c.clip(strings.TrimPrefix(t.ErrorClass+": "+t.ErrorMessage, ": "), 60))}
		},
		more: []string{"EVENT", "CORRELATION", "VERSION", "NODE", "INSTANCE", "PUBLISHED", "STARTED", "REDRIVES", "FINGERPRINT"},
		moreRow: func(t client.Task) []string {
			return []string{orDash(t.EventId), orDash(t.CorrelationId), orDash(t.Version), orDash(t.Node), orDash(t.Instance), orDash(moment(t.PublishedAt)),
				orDash(moment(t.StartedAt)), number(t.Redrives), orDash(t.Fingerprint)}
		},
	}
}

func (c *command) taskGet() *cobra.Command {
	var name string
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "get TOPIC/PARTITION/OFFSET",
		Short:   "Show what became of an event: its task for each agent, with every attempt",
		Example: "  reeve task get orders/0/17\n  reeve task get orders/0/17 --name hello -o json\n  reeve task get orders/0/17 --name hello --wait",
		Args:    exactly(1, "one task"),
		RunE: func(cmd *cobra.Command, args []string) error {
			origin, agent, err := parseTask(args[0], name)
			switch {
			case err != nil:
				return err
			case cmd.Flags().Changed("timeout") && !wait:
				return usage("--timeout is of --wait: give both")
			case timeout <= 0:
				return usage("--timeout %s: give more than 0", timeout)
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			if wait && agent == "" {
				return c.awaitOutcome(cmd.Context(), cl, origin, timeout)
			}
			if wait {
				return c.awaitOutcomes(cmd.Context(), cl, origin, []string{agent}, timeout)
			}
			names := []string{agent}
			if agent == "" {
				if names, err = agentsOf(cmd.Context(), cl, origin); err != nil {
					return err
				}
			}
			_, err = c.showTasks(cmd.Context(), cl, origin, names)
			return err
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is finished; exit code 0 only if it completed")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long --wait waits")
	cmd.Flags().StringVar(&name, "name", "", "only the task of this agent")
	completeFlag(cmd, "name", c.completeNames(new(string)))
	cmd.ValidArgsFunction = first(c.completeTasks())
	return c.outputFlag(cmd)
}

// parseTask takes topic/partition/offset, or topic/name/partition/offset as in REST.
func parseTask(id, name string) (task.Origin, string, error) {
	if parts := strings.Split(id, "/"); len(parts) == 4 && !isNumber(parts[1]) {
		if name != "" && name != parts[1] {
			return task.Origin{}, "", usage("%s and --name %s name two agents", id, name)
		}
		name, id = parts[1], parts[0]+"/"+parts[2]+"/"+parts[3]
	}
	o, err := task.ParseOrigin(id)
	if err != nil {
		return o, "", &coded{Usage, err}
	}
	return o, name, nil
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

// agentsOf are the agents that have a task of an event.
func agentsOf(ctx context.Context, cl *client.ClientWithResponses, o task.Origin) ([]string, error) {
	answer, err := cl.ListTasksWithResponse(ctx, &client.ListTasksParams{Origin: o.ID()})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range answer.JSON200.Items {
		names = append(names, t.Name)
	}
	if len(names) == 0 {
		return nil, failure(NotFound, "no agent has settled an attempt of the event %s: name the agent by --name to see a task that waits", o.ID())
	}
	return names, nil
}

// showTasks writes one task as an object, several as a list, and gives their statuses.
func (c *command) showTasks(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, names []string) ([]client.TaskStatus, error) {
	var raw []json.RawMessage
	var details []client.TaskDetail
	var statuses []client.TaskStatus
	for _, name := range names {
		answer, err := cl.GetTaskWithResponse(ctx, o.Topic, name, o.Partition, o.Offset, &client.GetTaskParams{})
		if err != nil {
			return nil, err
		}
		raw = append(raw, answer.Body)
		details = append(details, *answer.JSON200)
		statuses = append(statuses, answer.JSON200.Status)
	}
	var value any = items{raw}
	if len(raw) == 1 {
		value = raw[0]
	}
	return statuses, c.write(value, func() {
		for i, t := range details {
			if i > 0 {
				_, _ = fmt.Fprintln(c.Out)
			}
			c.taskFacts(t)
		}
	})
}

func (c *command) taskFacts(t client.TaskDetail) {
	result := short(string(t.Result), 2000)
	if len(t.Result) == 0 && t.ResultState != "" && t.ResultState != "none" {
		result = "(" + string(t.ResultState) + ")"
	}
	c.facts("Task", t.Id, "Agent", t.Agent, "Status", string(t.Status), "Progress", progressText(t.Progress), "Event", t.EventId, "Correlation", t.CorrelationId,
		"Attempts", number(t.Attempts), "Published", moment(t.PublishedAt), "Settled", moment(t.SettledAt), "Took", milliseconds(t.DurationMs),
		"Error class", t.ErrorClass, "Error", t.ErrorMessage, "Result", result, "Reply", joined(string(t.Reply), t.ReplyReason), "Webhook", webhookFacts(t.Webhook))
	if t.Traceback != "" {
		_, _ = fmt.Fprintln(c.Out, lines(t.Traceback))
	}
	if len(t.History) == 0 {
		return
	}
	var rows [][]string
	for _, a := range t.History {
		rows = append(rows, []string{number(a.Attempt), string(a.Outcome), string(a.Settled), a.Version, a.Node, moment(a.StartedAt), moment(a.SettledAt),
			short(strings.TrimPrefix(a.ErrorClass+": "+a.ErrorMessage, ": "), 60)})
	}
	c.table([]string{"ATTEMPT", "OUTCOME", "SETTLED", "VERSION", "NODE", "STARTED", "ENDED", "ERROR"}, rows)
}

// joined is two texts with a colon between them, or the one that is there.
func joined(a, b string) string { return strings.Trim(a+": "+b, ": ") }

// webhookFacts says what became of a task's webhook, on one line; "" where there is none.
func webhookFacts(w *client.WebhookDelivery) string {
	if w == nil {
		return ""
	}
	text := string(w.State)
	if w.Endpoint != "" {
		text += " to " + w.Endpoint
	}
	if w.Attempts > 1 {
		text += fmt.Sprintf(" (%d tries)", w.Attempts)
	}
	if w.NextAt != nil {
		text += ", again at " + moment(w.NextAt)
	}
	return joined(text, short(w.ErrorMessage, 200))
}
