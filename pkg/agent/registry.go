package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/spec"
)

const (
	// announceAgain is how long a start waits before it tries the registry again.
	announceAgain = 500 * time.Millisecond
	// Later it is tried less and less often.
	announceMin, announceMax = time.Second, 30 * time.Second
)

// away reports whether an error says that the registry, or its database, can't be reached, and nothing about the request.
func away(err error) bool {
	var unreachable *client.UnreachableError
	var problem *client.ProblemError
	return errors.As(err, &unreachable) || errors.As(err, &problem) && problem.Status >= http.StatusInternalServerError
}

// register registers an agent once.
func (r *Runner) register(ctx context.Context, k *keeper) error {
	answer, err := r.rest.RegisterAgentWithResponse(ctx, &client.RegisterAgentParams{}, k.entry)
	if err != nil {
		return fmt.Errorf("register the agent %s with %s: %w", k.own.Ref(), r.opts.URL, err)
	}
	change := answer.JSON200
	if change == nil {
		change = answer.JSON201
	}
	if change, err = given(change, r); err != nil {
		return err
	}
	if change.Agent == nil {
		return fmt.Errorf("register the agent %s: the registry at %s is of another version", k.own.Ref(), r.opts.URL)
	}
	k.registered(change.Agent.Generation)
	for _, w := range change.Warnings {
		r.log.Warn("the registration has no effect in part", slog.String("agent", k.own.Ref()), slog.String("warning", w))
	}
	if change.Held {
		r.log.Warn("the agent stays paused, as it was paused with hold: resume it by reeve agent resume", slog.String("agent", k.own.Ref()))
	}
	return nil
}

// announce registers an agent. With the registry away it is left for later where the control topic knows the agent.
func (r *Runner) announce(ctx context.Context, k *keeper) error {
	limited, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	tick := time.NewTicker(announceAgain)
	defer tick.Stop()
	read := r.read
	var last error
	for {
		err := r.register(limited, k)
		switch {
		case err == nil:
			return nil
		case away(err):
			last = err
		case ctx.Err() != nil:
			return fmt.Errorf("register the agent %s: %w", k.own.Ref(), ctx.Err())
		case limited.Err() == nil:
			return err
		}
		if r.knows(k) {
			r.log.Warn("the registry is away: the agent runs as it was registered last, and is registered when it is back", slog.String("agent", k.own.Ref()), slog.Any("error", err))
			run := r.running
			run.loops.Go(func() { r.announceLater(run.life, k) })
			return nil
		}
		select {
		case <-limited.Done():
			if last == nil {
				last = err
			}
			return fmt.Errorf("%w\nstart the registry, or give its address in Options.URL or REEVE_URL: an agent that was never registered can't be started without it", last)
		case <-read:
			read = nil
		case <-tick.C:
		}
	}
}

// knows reports whether the control topic has an agent of this kind that was not deleted.
func (r *Runner) knows(k *keeper) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.known[k.own.Key()]
	return a != nil && a.Phase != spec.Terminated && a.Runtime == spec.SDK
}

// announceLater registers an agent when the registry is back.
func (r *Runner) announceLater(ctx context.Context, k *keeper) {
	for pause := announceMin; ; pause = min(2*pause, announceMax) {
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		err := r.register(ctx, k)
		switch {
		case err == nil:
			r.log.Info("the agent is registered", slog.String("agent", k.own.Ref()))
			return
		case ctx.Err() != nil:
			return
		case !away(err):
			k.alert(Alert{Kind: "registration_refused", Severity: "warning", Message: err.Error() + ": it runs as it was registered before"})
			return
		}
	}
}

// Registry is the client of the registry, for everything that the Runner has no method for.
func (r *Runner) Registry() *client.ClientWithResponses { return r.rest }

// Unsubscribe pauses an agent: it gets nothing more, here and anywhere else; its group, its position and its dead letters
// stay, and events wait. Registering it again resumes it, as Resume does; with hold only Resume does.
func (r *Runner) Unsubscribe(ctx context.Context, topic, name string, hold bool) error {
	_, err := r.rest.UnsubscribeAgentWithResponse(ctx, topic, name, &client.UnsubscribeAgentParams{}, client.UnsubscribeAgentJSONRequestBody{Hold: hold})
	return about("unsubscribe", topic, name, err)
}

// Resume lets a paused agent go on where it stopped.
func (r *Runner) Resume(ctx context.Context, topic, name string) error {
	_, err := r.rest.ResumeAgentWithResponse(ctx, topic, name, &client.ResumeAgentParams{})
	return about("resume", topic, name, err)
}

// DeleteOptions say what a deletion takes along. The zero value keeps everything but the registration.
type DeleteOptions struct {
	Group bool // the agent's groups, its task topic and pending retries
	DLQ   bool // its dead letters
}

// Delete deletes an agent, wherever it runs. Its history stays.
func (r *Runner) Delete(ctx context.Context, topic, name string, o DeleteOptions) (*client.Deletion, error) {
	answer, err := r.rest.DeleteAgentWithResponse(ctx, topic, name, &client.DeleteAgentParams{DeleteGroup: o.Group, DeleteDlq: o.DLQ})
	if err != nil {
		return nil, about("delete", topic, name, err)
	}
	return given(answer.JSON200, r)
}

// DeleteTopic deletes all agents of a topic, and says which.
func (r *Runner) DeleteTopic(ctx context.Context, topic string, o DeleteOptions) ([]client.Deletion, error) {
	answer, err := r.rest.DeleteTopicAgentsWithResponse(ctx, topic, &client.DeleteTopicAgentsParams{DeleteGroup: o.Group, DeleteDlq: o.DLQ})
	if err != nil {
		return nil, fmt.Errorf("delete the agents of %s: %w", topic, err)
	}
	body, err := given(answer.JSON200, r)
	if err != nil {
		return nil, err
	}
	return body.Items, nil
}

// Agent gives an agent as it is registered, with its live figures.
func (r *Runner) Agent(ctx context.Context, topic, name string) (*client.Agent, error) {
	answer, err := r.rest.GetAgentWithResponse(ctx, topic, name)
	if err != nil {
		return nil, about("get", topic, name, err)
	}
	return given(answer.JSON200, r)
}

// Agents lists all registered agents of a topic; "" is all topics.
func (r *Runner) Agents(ctx context.Context, topic string) ([]client.Agent, error) {
	var all []client.Agent
	for token := ""; ; {
		answer, err := r.rest.ListAgentsWithResponse(ctx, &client.ListAgentsParams{Topic: topic, PageToken: token})
		if err != nil {
			return nil, fmt.Errorf("list agents: %w", err)
		}
		page, err := given(answer.JSON200, r)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if token = page.NextPageToken; token == "" {
			return all, nil
		}
	}
}

// Health says how the whole installation is.
func (r *Runner) Health(ctx context.Context) (*client.Health, error) {
	answer, err := r.rest.GetHealthWithResponse(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for health: %w", err)
	}
	if answer.JSON200 != nil {
		return answer.JSON200, nil
	}
	return given(answer.JSON503, r)
}

// Metrics gives the exact counters of the agents of a topic; "" is all topics.
func (r *Runner) Metrics(ctx context.Context, topic string) ([]client.AgentMetrics, error) {
	answer, err := r.rest.ListMetricsWithResponse(ctx, &client.ListMetricsParams{Topic: topic})
	if err != nil {
		return nil, fmt.Errorf("ask for metrics: %w", err)
	}
	body, err := given(answer.JSON200, r)
	if err != nil {
		return nil, err
	}
	return body.Items, nil
}

// given is an answer's body, which only a registry gives.
func given[T any](body *T, r *Runner) (*T, error) {
	if body == nil {
		return nil, fmt.Errorf("%s doesn't answer as a registry: check Options.URL or REEVE_URL", r.opts.URL)
	}
	return body, nil
}

func about(what, topic, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s/%s: %w", what, topic, name, err)
}

// Message is an event to be published.
type Message = event.Message

// Publish publishes an event, straight to Kafka. Within a handler Task.Publish is what belongs to the attempt's transaction;
// this is not.
func (r *Runner) Publish(ctx context.Context, m Message) (client.Published, error) {
	r.mu.Lock()
	run, state := r.running, r.state
	r.mu.Unlock()
	if state != started {
		return client.Published{}, fmt.Errorf("publish to %s: %w", m.Topic, ErrNotStarted)
	}
	if err := spec.CheckTopic(m.Topic); err != nil {
		return client.Published{}, fmt.Errorf("publish: %w", err)
	}
	if r.names.Reserved(m.Topic) {
		return client.Published{}, fmt.Errorf("publish: %s is one of Reeve's own topics, which nobody else may write: name a topic of yours", m.Topic)
	}
	record, err := m.Record()
	if err != nil {
		return client.Published{}, err
	}
	written, err := run.events.ProduceSync(ctx, record).First()
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return client.Published{}, fmt.Errorf("publish to %s: the topic doesn't exist: create it on Kafka first, or check its name: %w", m.Topic, err)
	}
	if err != nil {
		return client.Published{}, fmt.Errorf("publish to %s: %w", m.Topic, err)
	}
	id, err := event.Recognise(m.Topic, written)
	return client.Published{EventId: id.ID, Topic: m.Topic, Partition: written.Partition, Offset: written.Offset}, err
}
