package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
)

func (c *command) agent() *cobra.Command {
	return group(&cobra.Command{Use: "agent", Short: "Look at agents and steer them"},
		c.agentList(), c.agentGet(), c.agentHistory(), c.agentLogs(), c.agentInitialize(), c.agentStart(), c.agentStop(), c.agentUnsubscribe(), c.agentResume(), c.agentReset(), c.agentRestart(), c.agentDelete(), c.agentDeleteTopic(), c.agentCheck())
}

func (c *command) agentList() *cobra.Command {
	var topic string
	var all bool
	cmd := &cobra.Command{
		Use: "list", Short: "List agents with their phase and live figures", Args: exactly(0, "no arguments"),
		Example: "  reeve agent list\n  reeve agent list --topic orders -o wide\n  reeve agent list -o jsonl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			list, err := pages(0, func(size int, token string) ([]byte, error) {
				r, err := cl.ListAgentsWithResponse(cmd.Context(), &client.ListAgentsParams{Topic: topic, All: all, PageSize: &size, PageToken: token})
				if err != nil {
					return nil, err
				}
				return r.Body, nil
			})
			if err != nil {
				return err
			}
			return writeListing(c, list, listing[client.Agent]{
				columns: []string{"TOPIC", "NAME", "PHASE", "VERSION", "RUNTIME", "WORKERS", "INSTANCES", "RUNNING", "WAITING", "LAG"}, row: agentRow,
				more: []string{"RUNS", "DIR", "ORDERING", "CONCURRENCY", "RETRIES", "PARTITIONS", "TAGS", "REGISTERED", "ATTENTION"}, moreRow: agentMore,
			})
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "only the agents of this topic")
	completeFlag(cmd, "topic", c.completeTopics())
	cmd.Flags().BoolVar(&all, "all", false, "deleted agents too")
	return c.outputFlag(c.watchFlag(cmd))
}

func agentRow(a client.Agent) []string {
	return []string{a.Topic, a.Name, phase(a), a.Version, a.Runtime, number(a.Workers), number(a.Instances), number(a.Running), number(a.Waiting), maybe(a.Lag)}
}

func agentMore(a client.Agent) []string {
	return []string{orDash(runs(a)), orDash(a.Dir), a.Config.Ordering, number(a.Config.Concurrency), number(a.Config.MaxRetries), number(a.Partitions),
		orDash(strings.Join(a.Tags, ",")), moment(&a.RegisteredAt), orDash(short(attention(a), 100))}
}

// runs is what an agent's process runs.
func runs(a client.Agent) string {
	if a.Runtime == spec.Command {
		return strings.Join(a.Command, " ")
	}
	return a.Callback
}

// attention is the first thing that keeps an agent from its work, or "".
func attention(a client.Agent) string {
	switch {
	case a.Cause != nil:
		return a.Cause.Type + ": " + a.Cause.Message
	case a.TopicMissing:
		return "the topic doesn't exist"
	}
	if len(a.Problems) == 0 {
		return ""
	}
	p := a.Problems[0]
	if p.Error == nil {
		return p.State + " on " + p.Node
	}
	return p.State + " on " + p.Node + ": " + p.Error.Type + ": " + p.Error.Message
}

func phase(a client.Agent) string {
	if a.Hold && a.Phase == spec.Paused {
		return "paused (held)"
	}
	return string(a.Phase)
}

func (c *command) agentGet() *cobra.Command {
	var r ref
	cmd := &cobra.Command{
		Use: "get TOPIC/NAME", Short: "Show an agent",
		Example: "  reeve agent get orders/hello\n  reeve agent get --topic orders --name hello -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := r.resolve(cmd, args)
			if err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.GetAgentWithResponse(cmd.Context(), r.topic, r.name)
			if err != nil {
				return err
			}
			return c.write(json.RawMessage(answer.Body), func() { c.describe(*answer.JSON200) })
		},
	}
	return c.outputFlag(c.watchFlag(c.refFlags(cmd, &r)))
}

func (c *command) describe(a client.Agent) {
	trouble := attention(a)
	if a.Cause != nil {
		trouble = "" // it is told below, with what to do
	}
	description := ""
	if a.Description != nil {
		description = *a.Description
	}
	c.facts("Agent", a.Topic+"/"+a.Name, "Description", description, "Phase", phase(a), "Version", a.Version, "Tags", strings.Join(a.Tags, ", "),
		"Runtime", a.Runtime, "Runs", runs(a), "Directory", a.Dir, "Workers", number(a.Workers), "Instances", number(a.Instances),
		"Running", number(a.Running), "Waiting", number(a.Waiting), "Lag", maybe(a.Lag), "Oldest waiting", moment(a.OldestWaitingAt), "Expires", moment(a.ExpiresAt),
		"Removed by retention", orNone(a.Overtaken), "Attention", trouble,
		"Retries", fmt.Sprintf("%d, after %s", a.Config.MaxRetries, strings.Join(a.Config.RetryDelays, ", ")),
		"Ordering", a.Config.Ordering, "Concurrency", number(a.Config.Concurrency), "Partitions", number(a.Partitions),
		"Filter", a.Filter, "Rate", rate(a.Rate), "Accepts", strings.Join(a.Accepts, ", "), "Capabilities", strings.Join(a.Capabilities, ", "),
		"On incompatible", string(a.OnIncompatible), "Start", a.Start,
		"Registered", moment(&a.RegisteredAt), "Generation", number(a.Generation), "Terminated", moment(a.TerminatedAt))
	if c.wide() {
		c.facts("Id", a.Id, "Type", a.Type, "Dead letters kept", yesNo(a.Config.DLQEnabled), "Request timeout", seconds(a.Process.RequestTimeout),
			"Restart policy", a.Process.RestartPolicy, "Environment", strings.Join(sorted(a.Env), ", "), "Created", moment(&a.CreatedAt), "Updated", moment(&a.UpdatedAt))
	}
	for _, l := range a.Lost {
		c.facts("Lost", lostRange(l))
	}
	if a.Cause != nil {
		c.facts("Error", a.Cause.Type+": "+a.Cause.Message, "Remedy", a.Cause.Remediation)
	}
	for _, p := range a.Problems {
		line := p.State
		remedy := ""
		if p.Error != nil {
			line, remedy = p.State+": "+p.Error.Type+": "+p.Error.Message, p.Error.Remediation
		}
		c.facts("On "+p.Node, line, "Remedy", remedy)
	}
}

// rate is how many events a second are dispatched at most, "" for no limit.
func rate(r float64) string {
	if r == 0 {
		return ""
	}
	return strconv.FormatFloat(r, 'g', -1, 64) + " events a second"
}

// orNone is a number, or "" for 0.
func orNone(n int64) string {
	if n == 0 {
		return ""
	}
	return number(n)
}

// lostRange says what retention removed before it was consumed.
func lostRange(l client.LostRange) string {
	if l.First == nil {
		return fmt.Sprintf("partition %d, up to offset %d, found %s", l.Partition, l.Last, moment(&l.At))
	}
	return fmt.Sprintf("%d events, partition %d, offsets %d to %d, found %s", l.Last-*l.First+1, l.Partition, *l.First, l.Last, moment(&l.At))
}

// destruction are the flags of what deletes.
type destruction struct {
	cleanup, deleteDLQ, yes, dryRun bool
	reason                          string
}

func (d *destruction) flags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&d.cleanup, "cleanup", false, "the group, the task topic and pending retries go too")
	cmd.Flags().BoolVar(&d.deleteDLQ, "delete-dlq", false, "the dead letters go too")
	cmd.Flags().BoolVar(&d.yes, "yes", false, "don't ask")
	cmd.Flags().BoolVar(&d.dryRun, "dry-run", false, "say what would go, and delete nothing")
	reasonFlag(cmd, &d.reason)
	return cmd
}

func (d destruction) destroys() bool { return d.cleanup || d.deleteDLQ }

func (c *command) agentDelete() *cobra.Command {
	var r ref
	var d destruction
	cmd := &cobra.Command{
		Use: "delete TOPIC/NAME", Short: "Delete an agent; its history stays, and its group and DLQ unless told",
		Example: "  reeve agent delete orders/hello\n  reeve agent delete orders/hello --cleanup --delete-dlq --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := r.resolve(cmd, args)
			if err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			if d.dryRun || d.destroys() && !d.yes {
				would, err := cl.DeleteAgentWithResponse(cmd.Context(), r.topic, r.name, &client.DeleteAgentParams{DeleteGroup: d.cleanup, DeleteDlq: d.deleteDLQ, DryRun: true})
				if err != nil {
					return err
				}
				if d.dryRun {
					return c.write(json.RawMessage(would.Body), func() {
						_, _ = fmt.Fprintf(c.Out, "%s would be deleted%s%s\n", r, d.stays(), d.goes(*would.JSON200))
					})
				}
				if err := c.confirm(false, "deleting %s discards %s for ever", r, d.loss(*would.JSON200)); err != nil {
					return err
				}
			}
			answer, err := cl.DeleteAgentWithResponse(cmd.Context(), r.topic, r.name, &client.DeleteAgentParams{DeleteGroup: d.cleanup, DeleteDlq: d.deleteDLQ, Reason: d.reason})
			if err != nil {
				return err
			}
			return c.write(json.RawMessage(answer.Body), func() {
				_, _ = fmt.Fprintf(c.Out, "%s is deleted%s%s\n", r, d.stays(), discarded(answer.JSON200.Cleanup.Discards))
			})
		},
	}
	return c.outputFlag(d.flags(c.refFlags(cmd, &r)))
}

func discarded(n int64) string {
	if n == 0 {
		return ""
	}
	if n == 1 {
		return "; 1 task that isn't finished is discarded"
	}
	return fmt.Sprintf("; %d tasks that aren't finished are discarded", n)
}

// stays says what a deletion leaves.
func (d destruction) stays() string {
	switch {
	case d.cleanup && d.deleteDLQ:
		return ""
	case d.cleanup:
		return ", its dead letters stay"
	case d.deleteDLQ:
		return ", its group stays"
	}
	return ", its group and dead letters stay"
}

// goes says what goes with what would be deleted, "" if nothing does.
func (d destruction) goes(of ...client.Deletion) string {
	if !d.destroys() {
		return ""
	}
	return ", and " + d.loss(of...) + " would go"
}

// loss says what deletions would discard.
func (d destruction) loss(of ...client.Deletion) string {
	var waiting, unread, letters int64
	for _, one := range of {
		waiting, unread, letters = waiting+one.Cleanup.Discards, unread+one.Cleanup.Unread, letters+one.Cleanup.DeadLetters
	}
	var lost []string
	if d.cleanup {
		whose, who := "its place", "it hasn't"
		if len(of) != 1 {
			whose, who = "their places", "they haven't"
		}
		lost = append(lost, fmt.Sprintf("%s and %s in the topic (%s %s read yet)", count(waiting, "waiting task"), whose, count(unread, "event"), who))
	}
	if d.deleteDLQ {
		lost = append(lost, count(letters, "dead letter"))
	}
	return strings.Join(lost, " and ")
}

func (c *command) agentDeleteTopic() *cobra.Command {
	var topic string
	var d destruction
	cmd := &cobra.Command{
		Use: "delete-topic --topic TOPIC", Short: "Delete every agent of a topic; the topic itself stays", Args: exactly(0, "no arguments"),
		Example: "  reeve agent delete-topic --topic orders --cleanup --yes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if topic == "" {
				return usage("name the topic: %s --topic TOPIC", cmd.CommandPath())
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			if d.dryRun || d.destroys() && !d.yes {
				would, err := cl.DeleteTopicAgentsWithResponse(cmd.Context(), topic, &client.DeleteTopicAgentsParams{DeleteGroup: d.cleanup, DeleteDlq: d.deleteDLQ, DryRun: true})
				if err != nil {
					return err
				}
				items := would.JSON200.Items
				if d.dryRun {
					return c.write(json.RawMessage(would.Body), func() {
						_, _ = fmt.Fprintf(c.Out, "%s of %s would be deleted%s%s\n", count(len(items), "agent"), topic, strings.ReplaceAll(d.stays(), "its", "their"), d.goes(items...))
					})
				}
				if err := c.confirm(false, "deleting %s of %s discards %s for ever", count(len(items), "agent"), topic, d.loss(items...)); err != nil {
					return err
				}
			}
			answer, err := cl.DeleteTopicAgentsWithResponse(cmd.Context(), topic, &client.DeleteTopicAgentsParams{DeleteGroup: d.cleanup, DeleteDlq: d.deleteDLQ, Reason: d.reason})
			if err != nil {
				return err
			}
			return c.write(json.RawMessage(answer.Body), func() {
				_, _ = fmt.Fprintf(c.Out, "deleted %s of %s%s\n", count(answer.JSON200.AgentsDeleted, "agent"), topic, strings.ReplaceAll(d.stays(), "its", "their"))
			})
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "the topic")
	completeFlag(cmd, "topic", c.completeTopics())
	return c.outputFlag(d.flags(cmd))
}
