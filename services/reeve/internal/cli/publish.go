package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// eventFlags are what publish can say of an event.
type eventFlags struct {
	key, content, ndjson, id, kind                        string
	correlation, causation, replyTo, webhook, tenant, src string
	fromLine                                              int
}

func (c *command) publish() *cobra.Command {
	var e eventFlags
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "publish TOPIC",
		Short: "Publish an event, or a file of events",
		Long: `Publish an event, or a file of events.

--ndjson takes a file with one event a line: its content as JSON, or a whole envelope (an object whose "topic" is
TOPIC and which has "payload"."content"; its "key" is the record's key). The file is checked before anything is
published, and published in its order. If that is interrupted, it says how many events Kafka has, and from which line to
go on by --from-line.`,
		Example: "  reeve publish orders --content '{\"id\": 17}' --key 17\n" +
			"  reeve publish orders --content @order.json --wait --timeout 30s\n" +
			"  reeve publish orders --ndjson orders.ndjson\n" +
			"  reeve publish orders --ndjson orders.ndjson --from-line 2",
		Args: exactly(1, "one topic"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := spec.CheckTopic(args[0]); err != nil {
				return &coded{Usage, err}
			}
			c.topic = args[0]
			content, file := cmd.Flags().Changed("content"), cmd.Flags().Changed("ndjson")
			switch {
			case content == file:
				return usage("say what to publish: by --content JSON or @FILE, or by --ndjson FILE")
			case cmd.Flags().Changed("from-line") && !file:
				return usage("--from-line is of --ndjson: give both")
			case e.fromLine < 1:
				return usage("--from-line %d is no line: they are numbered from 1", e.fromLine)
			case file && wait:
				return usage("--wait with --ndjson is not available in this version: publish, then see `reeve task list`")
			case cmd.Flags().Changed("timeout") && !wait:
				return usage("--timeout is of --wait: give both")
			case timeout <= 0:
				return usage("--timeout %s: give more than 0", timeout)
			case e.webhook != "" && spec.CheckWebhook(e.webhook) != nil:
				return usage("%w", spec.CheckWebhook(e.webhook))
			case e.replyTo != "" && spec.CheckTopic(e.replyTo) != nil:
				return usage("--reply-to: %w", spec.CheckTopic(e.replyTo))
			case file && e.id != "":
				return usage("--id is one event's: leave it out with --ndjson")
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			if file {
				return c.publishFile(cmd.Context(), cl, args[0], e)
			}
			return c.publishOne(cmd.Context(), cl, args[0], e, wait, timeout)
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.key, "key", "", "the record's key; events of one key stay in order")
	f.StringVar(&e.content, "content", "", "the content: JSON, @FILE, or @- for standard input")
	f.StringVar(&e.ndjson, "ndjson", "", "a file with one event a line, - for standard input")
	f.IntVar(&e.fromLine, "from-line", 1, "the line of --ndjson to begin with")
	f.StringVar(&e.id, "id", "", "the event's id (default: made)")
	f.StringVar(&e.kind, "type", "", "the event's type")
	f.StringVar(&e.correlation, "correlation-id", "", "an id that what belongs together shares")
	f.StringVar(&e.causation, "causation-id", "", "the id of the event that caused this one")
	f.StringVar(&e.replyTo, "reply-to", "", "the topic that results go to")
	f.StringVar(&e.webhook, "webhook", "", "the URL that results go to")
	f.StringVar(&e.tenant, "tenant-id", "", "whose event it is")
	f.StringVar(&e.src, "source", "", "where it comes from")
	f.BoolVar(&wait, "wait", false, "wait for the outcome of every agent of the topic and print it; exit code 0 only if all completed that the event is for")
	cmd.ValidArgsFunction = first(c.completeTopics())
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "how long --wait waits")
	return c.outputFlag(cmd)
}

// event makes an event of a content.
func (e eventFlags) event(topic string, content json.RawMessage) client.Event {
	ev := client.Event{Topic: topic, Id: e.id, Key: given(e.key), Type: given(e.kind), CorrelationId: given(e.correlation), CausationId: given(e.causation),
		TenantId: given(e.tenant), Source: given(e.src)}
	ev.Payload.Content, ev.Payload.ReplyTo, ev.Payload.Webhook = content, given(e.replyTo), given(e.webhook)
	return ev
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// read gives a file's content, or standard input's for "-".
func (c *command) read(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(c.In)
	}
	return os.ReadFile(path)
}

func (c *command) content(written string) (json.RawMessage, error) {
	where, raw := "--content", []byte(written)
	if path, ok := strings.CutPrefix(written, "@"); ok {
		b, err := c.read(path)
		if err != nil {
			return nil, failure(Failed, "read --content: %w", err)
		}
		where, raw = path, b
	}
	if err := checkJSON(raw); err != nil {
		return nil, usage("%s is no JSON: %w: a text is written with quotes, as '\"text\"'", where, err)
	}
	return raw, nil
}

// checkJSON says what keeps a text from being one JSON value.
func checkJSON(raw []byte) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return errors.New("it is empty")
	}
	var v json.RawMessage
	return json.Unmarshal(raw, &v)
}

func (c *command) publishOne(ctx context.Context, cl *client.ClientWithResponses, topic string, e eventFlags, wait bool, timeout time.Duration) error {
	content, err := c.content(e.content)
	if err != nil {
		return err
	}
	answer, err := cl.PublishEventWithResponse(ctx, &client.PublishEventParams{}, e.event(topic, content))
	err = renamed(err, flagOf)
	if ctx.Err() != nil {
		return failure(Failed, "interrupted before the registry answered: the event may be published or not")
	}
	if err != nil && !nothingTaken(err) {
		return fmt.Errorf("%w\nthe event may be published all the same", err)
	}
	if err != nil {
		return err
	}
	p := answer.JSON202
	o := task.Origin{Topic: p.Topic, Partition: p.Partition, Offset: p.Offset}
	if !wait {
		return c.write(json.RawMessage(answer.Body), func() { _, _ = fmt.Fprintf(c.Out, "published %s as event %s\n", o.ID(), p.EventId) })
	}
	c.say("published %s as event %s", o.ID(), p.EventId)
	return c.awaitOutcome(ctx, cl, o, timeout)
}

// awaitOutcome waits for the outcomes of an event and writes them.
func (c *command) awaitOutcome(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, timeout time.Duration) error {
	answer, err := cl.ListAgentsWithResponse(ctx, &client.ListAgentsParams{Topic: o.Topic, Phase: spec.Active})
	if err != nil {
		return err
	}
	if len(answer.JSON200.Items) == 0 {
		return c.nobodyToWaitFor(ctx, cl, o.Topic)
	}
	var names []string
	for _, a := range answer.JSON200.Items {
		names = append(names, a.Name)
	}
	return c.awaitOutcomes(ctx, cl, o, names, timeout)
}

// nobodyToWaitFor says why there is no outcome to wait for: no agent is active, though there may be one that isn't.
func (c *command) nobodyToWaitFor(ctx context.Context, cl *client.ClientWithResponses, topic string) error {
	answer, err := cl.ListAgentsWithResponse(ctx, &client.ListAgentsParams{Topic: topic})
	if err != nil {
		return err
	}
	text := fmt.Sprintf("no active agent listens to %s, so there is no outcome to wait for", topic)
	for _, a := range answer.JSON200.Items {
		verb := map[spec.Phase]string{spec.Paused: "resume", spec.Error: "resume", spec.Created: "initialize", spec.Initialized: "start"}[a.Phase]
		if verb == "" {
			continue
		}
		text += fmt.Sprintf("\n  %s/%s is %s: `reeve agent %s %s/%s`", a.Topic, a.Name, phase(a), verb, a.Topic, a.Name)
	}
	return failure(Failed, "%s", text)
}

// awaitOutcomes waits for the tasks of an event for these agents, and writes them.
func (c *command) awaitOutcomes(ctx context.Context, cl *client.ClientWithResponses, o task.Origin, names []string, timeout time.Duration) error {
	patience, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, name := range names {
		status, err := awaitTask(patience, cl, o, name, askAgain, nil)
		if ctx.Err() == nil && patience.Err() != nil {
			return failure(Failed, "%s/%s has no outcome of %s after %s (it is %s): see `reeve task get %s --name %s`", o.Topic, name, o.ID(), timeout, status, o.ID(), name)
		}
		if err != nil {
			return err
		}
	}
	return c.showEnd(ctx, cl, o, names)
}
