package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
)

func (c *command) bus() *cobra.Command {
	return group(&cobra.Command{Use: "bus", Short: "Look at what stands on Kafka"}, c.busStreams(), c.busInspect(), c.busGroups(), c.busDLQ(), c.busStats())
}

// topicFlag gives a command one topic, as an argument or by a flag, and completes topics.
func (c *command) topicFlag(cmd *cobra.Command, flag string, topic *string, complete completer) *cobra.Command {
	var given string
	cmd.Flags().StringVar(&given, flag, "", "the topic")
	completeFlag(cmd, flag, complete)
	cmd.ValidArgsFunction = first(complete)
	show := cmd.RunE
	cmd.Args = atMostOne("one topic")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 1 && given != "":
			return usage("name the topic once: as %s, or by --%s", args[0], flag)
		case len(args) == 1:
			*topic = args[0]
		case given != "":
			*topic = given
		default:
			return usage("name the topic: %s TOPIC, or --%s TOPIC", cmd.CommandPath(), flag)
		}
		c.topic = *topic
		return show(cmd, args)
	}
	return cmd
}

// array reads an answer that is an array of JSON.
func array(body []byte) ([]json.RawMessage, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return list, nil
}

func (c *command) busStreams() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "streams", Short: "List the topics of users, with how long they are", Args: exactly(0, "no arguments"),
		Example: "  reeve bus streams",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRange(limit, 10_000); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.ListStreamsWithResponse(cmd.Context(), &client.ListStreamsParams{Limit: &limit})
			if err != nil {
				return err
			}
			list, err := array(answer.Body)
			if err != nil {
				return err
			}
			return writeList(c, list, []string{"STREAM", "LENGTH"}, func(s client.Stream) []string { return []string{s.Stream, number(s.Length)} })
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 1000, "at most so many, 1 to 10000")
	return c.outputFlag(c.watchFlag(cmd))
}

func (c *command) busInspect() *cobra.Command {
	var topic string
	var limit int
	cmd := &cobra.Command{
		Use: "inspect TOPIC", Short: "Show the latest events of a topic, the latest first",
		Example: "  reeve bus inspect orders\n  reeve bus inspect orders --limit 1 -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRange(limit, 1000); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.InspectStreamWithResponse(cmd.Context(), topic, &client.InspectStreamParams{Limit: &limit})
			if err != nil {
				return err
			}
			list, err := array(answer.Body)
			if err != nil {
				return err
			}
			return writeListing(c, list, c.recordListing())
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 10, "at most so many, 1 to 1000")
	return c.outputFlag(c.watchFlag(c.topicFlag(cmd, "stream", &topic, c.completeStreams())))
}

// seen is what a table shows of an event as an agent is given it.
type seen struct {
	ID          string          `json:"task_id"`
	Content     json.RawMessage `json:"content"`
	Correlation string          `json:"correlation_id"`
	Tenant      string          `json:"tenant_id"`
	Source      string          `json:"source"`
	Error       string          `json:"error"`
}

func (c *command) recordListing() listing[client.StreamRecord] {
	read := func(r client.StreamRecord) seen {
		var s seen
		_ = json.Unmarshal(r.Data, &s) // what isn't as expected is left out of the table; -o json shows it
		return s
	}
	return listing[client.StreamRecord]{
		columns: []string{"ID", "AT", "KEY", "EVENT", "CONTENT"},
		row: func(r client.StreamRecord) []string {
			s := read(r)
			return []string{r.Id, moment(&r.Timestamp), short(orDash(text(r.Key)), 24), orDash(s.ID), orDash(c.clip(string(s.Content), 80))}
		},
		more: []string{"CORRELATION", "TENANT", "SOURCE", "ERROR"},
		moreRow: func(r client.StreamRecord) []string {
			s := read(r)
			return []string{orDash(s.Correlation), orDash(s.Tenant), orDash(s.Source), orDash(s.Error)}
		},
	}
}

func (c *command) busGroups() *cobra.Command {
	var topic string
	cmd := &cobra.Command{
		Use: "groups --stream TOPIC", Short: "List the agents' groups on a topic",
		Example: "  reeve bus groups --stream orders",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			list, err := pages(0, func(int, string) ([]byte, error) {
				r, err := cl.ListGroupsWithResponse(cmd.Context(), &client.ListGroupsParams{Stream: topic})
				if err != nil {
					return nil, err
				}
				return r.Body, nil
			})
			if err != nil {
				return err
			}
			return writeList(c, list, []string{"GROUP", "AGENT", "STATE", "CONSUMERS", "PENDING", "POSITION"}, func(g client.Group) []string {
				return []string{g.Name, g.Agent, g.State, number(g.Consumers), number(g.Pending), position(g.Position)}
			})
		},
	}
	return c.outputFlag(c.watchFlag(c.topicFlag(cmd, "stream", &topic, c.completeStreams())))
}

func position(p map[string]int64) string {
	var parts []string
	for _, partition := range sorted(p) {
		parts = append(parts, fmt.Sprintf("%s:%d", partition, p[partition]))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, " ")
}

func (c *command) busDLQ() *cobra.Command {
	var topic string
	var limit int
	cmd := &cobra.Command{
		Use: "dlq --topic TOPIC", Short: "List the dead letters of all agents of a topic, those of deleted agents too",
		Example: "  reeve bus dlq --topic orders",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkBounds(limit, ""); err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			queues, err := cl.ListDLQsWithResponse(cmd.Context(), &client.ListDLQsParams{Topic: topic})
			if err != nil {
				return err
			}
			var all []json.RawMessage
			for _, q := range queues.JSON200.Items {
				list, err := deadLetters(cmd.Context(), cl, ref{q.Topic, q.Name}, client.ListDeadLettersParams{}, limit)
				if err != nil {
					return err
				}
				all = append(all, list...)
			}
			return writeListing(c, all, c.deadLetterListing())
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many of each agent, 0 for all")
	return c.outputFlag(c.watchFlag(c.topicFlag(cmd, "topic", &topic, c.completeTopics())))
}

func (c *command) busStats() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stats", Short: "Show every topic's length, dead letters and groups", Args: exactly(0, "no arguments"),
		Example: "  reeve bus stats\n  reeve bus stats -o wide",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			answer, err := cl.GetBusStatsWithResponse(cmd.Context())
			if err != nil {
				return err
			}
			return c.write(json.RawMessage(answer.Body), func() { c.stats(*answer.JSON200) })
		},
	}
	return c.outputFlag(c.watchFlag(cmd))
}

// stats writes a row a topic, and in a wide table a row a group.
func (c *command) stats(s client.BusStats) {
	topics := s.Snapshot.Topics
	var rows, groups [][]string
	for _, topic := range sorted(topics) {
		t := topics[topic]
		pending := int64(0)
		for _, g := range t.Groups {
			pending += g.Pending
			groups = append(groups, []string{topic, g.Agent, g.State, number(g.Consumers), number(g.Pending), number(g.Dlq), orDash(g.LastDeliveredId)})
		}
		rows = append(rows, []string{topic, number(t.Length), number(t.DlqTotal), number(len(t.Groups)), number(pending)})
	}
	c.table([]string{"STREAM", "LENGTH", "DEAD LETTERS", "GROUPS", "PENDING"}, rows)
	if c.wide() {
		at := time.UnixMicro(int64(s.Snapshot.Timestamp * 1e6))
		_, _ = fmt.Fprintln(c.Out)
		c.table([]string{"STREAM", "AGENT", "STATE", "CONSUMERS", "PENDING", "DEAD LETTERS", "LAST ROUTED"}, groups)
		_, _ = fmt.Fprintln(c.Out)
		c.facts("Brokers", number(s.KafkaInfo.Brokers), "At", moment(&at))
	}
}

// completeStreams completes the topics of users.
func (c *command) completeStreams() completer { return c.live(streams) }

// streams are the names of the topics of users.
func streams(ctx context.Context, cl *client.ClientWithResponses) ([]string, error) {
	answer, err := cl.ListStreamsWithResponse(ctx, nil)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range *answer.JSON200 {
		names = append(names, s.Stream)
	}
	return names, nil
}
