package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
)

func (c *command) health() *cobra.Command {
	cmd := &cobra.Command{
		Use: "health", Short: "Say how the system is; exit code 0 only for running and ready", Args: exactly(0, "no arguments"),
		Example: "  reeve health\n  reeve health -o wide",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.GetHealthWithResponse(cmd.Context())
			if err != nil {
				return err
			}
			h := answer.JSON200
			if h == nil {
				h = answer.JSON503
			}
			if h == nil {
				return failure(Failed, "the answer is no Reeve registry's: HTTP %d", answer.StatusCode())
			}
			if err := c.write(json.RawMessage(answer.Body), func() { c.condition(*h) }); err != nil {
				return err
			}
			if h.Status == "running" || h.Status == "ready" {
				return nil
			}
			return silent(Failed)
		},
	}
	return c.outputFlag(c.watchFlag(cmd))
}

// condition is health for people.
func (c *command) condition(h client.Health) {
	line := func(name, format string, args ...any) { _, _ = fmt.Fprintf(c.Out, name+": "+format+"\n", args...) }
	line("Status", "%s", h.Status)
	line("Registered Agents", "%d", h.RegisteredAgents)
	line("Active Consumers", "%d", h.ActiveConsumers)
	line("Uptime", "%s", uptime(h.UptimeSeconds))
	if h.Detail != "" {
		line("Detail", "%s", h.Detail)
	}
	for _, name := range sorted(h.Components) {
		if part := h.Components[name]; part.Status != "up" || c.wide() {
			line(name, "%s", strings.TrimSpace(string(part.Status)+" "+part.Detail))
		}
	}
	for _, name := range sorted(h.Agents) {
		if a := h.Agents[name]; !a.Healthy && a.Detail != "" {
			line(name, "%s", a.Detail)
		}
	}
	if c.wide() && len(h.Nodes) > 0 {
		rows := make([][]string, len(h.Nodes))
		for i, n := range h.Nodes {
			rows[i] = []string{n.Service, n.Node, n.Host, number(n.Pid), yesNo(n.Alive), orDash(moment(n.StartedAt)), moment(&n.LastSeenAt)}
		}
		c.table([]string{"SERVICE", "NODE", "HOST", "PID", "ALIVE", "STARTED", "LAST SEEN"}, rows)
	}
	for _, a := range h.Alerts {
		about := a.Subject // one about a node names it, or one of its parts
		if a.Name != "" {
			about = a.Topic + "/" + a.Name
		}
		if len(a.Nodes) > 0 {
			about += ", told by " + strings.Join(a.Nodes, ", ")
		}
		line("Alert", "%s (%s, since %s)", a.Message, about, moment(&a.Since))
	}
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (c *command) metrics() *cobra.Command {
	var topic string
	var byVersion bool
	cmd := &cobra.Command{
		Use: "metrics", Short: "Show the agents' exact counters", Args: exactly(0, "no arguments"),
		Example: "  reeve metrics --topic orders\n  reeve metrics --topic orders --by-version\n  reeve metrics -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			list, err := pages(0, func(int, string) ([]byte, error) {
				r, err := cl.ListMetricsWithResponse(cmd.Context(), &client.ListMetricsParams{Topic: topic})
				if err != nil {
					return nil, err
				}
				return r.Body, nil
			})
			if err != nil {
				return err
			}
			if !byVersion {
				return writeListing(c, list, metricsListing())
			}
			if list, err = versionsOf(list); err != nil {
				return err
			}
			return writeListing(c, list, versionListing())
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "only the agents of this topic")
	cmd.Flags().BoolVar(&byVersion, "by-version", false, "the counters of each version apart: a task counts for the version that ended it")
	completeFlag(cmd, "topic", c.completeTopics())
	return c.outputFlag(c.watchFlag(cmd))
}

// versionMetrics is what one version of an agent did.
type versionMetrics struct {
	Topic   string `json:"topic"`
	Name    string `json:"name"`
	Version string `json:"version"` // "" for what no worker has run
	client.Counters
}

// versionsOf parts agents' metrics into those of their versions.
func versionsOf(list []json.RawMessage) ([]json.RawMessage, error) {
	out := []json.RawMessage{}
	for _, raw := range list {
		var m client.AgentMetrics
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		for _, v := range sorted(m.ByVersion) {
			b, err := json.Marshal(versionMetrics{m.Topic, m.Name, v, m.ByVersion[v]})
			if err != nil {
				return nil, fmt.Errorf("write the metrics of a version: %w", err)
			}
			out = append(out, b)
		}
	}
	return out, nil
}

func versionListing() listing[versionMetrics] {
	return listing[versionMetrics]{
		columns: []string{"TOPIC", "NAME", "VERSION", "RECEIVED", "COMPLETED", "FAILED", "RETRIED", "DEAD-LETTERED", "REJECTED", "CANCELLED"},
		row: func(m versionMetrics) []string {
			return []string{m.Topic, m.Name, orDash(m.Version), number(m.Received), number(m.Completed), number(m.Failed), number(m.Retried), number(m.DeadLettered), number(m.Rejected),
				number(m.Cancelled)}
		},
		more:    []string{"DISCARDED"},
		moreRow: func(m versionMetrics) []string { return []string{number(m.Discarded)} },
	}
}

func metricsListing() listing[client.AgentMetrics] {
	return listing[client.AgentMetrics]{
		columns: []string{"TOPIC", "NAME", "RECEIVED", "COMPLETED", "FAILED", "RETRIED", "DEAD-LETTERED", "REJECTED", "WAITING", "RUNNING", "LAG", "P50", "P99"},
		row: func(m client.AgentMetrics) []string {
			return []string{m.Topic, m.Name, number(m.Received), number(m.Completed), number(m.Failed), number(m.Retried), number(m.DeadLettered), number(m.Rejected),
				number(m.Waiting), number(m.Running), maybe(m.Lag), milliseconds(m.Timings.P50Ms), milliseconds(m.Timings.P99Ms)}
		},
		more: []string{"CANCELLED", "DISCARDED", "FILTERED", "MEAN", "P90", "MAX", "COMPLETED BY VERSION"},
		moreRow: func(m client.AgentMetrics) []string {
			var versions []string
			for _, v := range sorted(m.ByVersion) {
				versions = append(versions, fmt.Sprintf("%s: %d", v, m.ByVersion[v].Completed))
			}
			return []string{number(m.Cancelled), number(m.Discarded), number(m.Filtered), milliseconds(m.Timings.MeanMs), milliseconds(m.Timings.P90Ms), milliseconds(m.Timings.MaxMs),
				orDash(strings.Join(versions, ", "))}
		},
	}
}
