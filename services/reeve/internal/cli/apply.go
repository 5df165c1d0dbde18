package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/agentsfile"
)

// askAgain is how often apply and publish --wait look whether what they wait for is there.
const askAgain = 100 * time.Millisecond

func (c *command) apply() *cobra.Command {
	var file, dir string
	var prune, dryRun bool
	cmd := &cobra.Command{
		Use:   "apply [-f agents.yaml]",
		Short: "Register what a file lists, all of it or nothing",
		Long: `Register what a file lists, all of it or nothing, and wait up to 10 s for the agents to come up.

A paused agent is resumed where it stopped, unless it was paused with --hold.

An entry with a condition (when) that doesn't hold in this command's environment is skipped. One whose requirements
(requires) don't answer isn't registered, the others are, and the exit code is 1. In both cases what is registered under
its name stays as it is, also with --prune.`,
		Example: "  reeve apply -f agents.yaml --dry-run\n  reeve apply --prune",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			agents, err := agentsfile.Read(file, agentsfile.Options{AgentsDir: dir})
			if err != nil {
				return Refused(err)
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			return c.applyAgents(cmd.Context(), cl, Select(cmd.Context(), agents, c.Environ), prune, dryRun)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "agents.yaml", "the file")
	cmd.Flags().StringVar(&dir, "agents-dir", "", "where the agents' directories are, to tell Python from Node (default: the file's folder)")
	cmd.Flags().BoolVar(&prune, "prune", false, "delete every registered agent that the file doesn't list, but those of Go programs; groups and dead letters stay")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would change, and change nothing")
	return c.outputFlag(cmd)
}

// Refused says of a file with faults that nothing came of it.
func Refused(err error) error {
	var faults agentsfile.Faults
	if errors.As(err, &faults) {
		return failure(Failed, "the file is refused, nothing was changed:\n%w", err)
	}
	return failure(Failed, "%w: name the file by -f", err)
}

func (c *command) applyAgents(ctx context.Context, cl *client.ClientWithResponses, s Selection, prune, dryRun bool) error {
	changes, err := Apply(ctx, cl, s, prune, dryRun)
	if err != nil {
		return err
	}
	list, err := s.among(changes)
	if err != nil {
		return err
	}
	if err := c.write(map[string]any{"items": list, "dry_run": dryRun}, func() { c.changes(changes, s) }); err != nil {
		return err
	}
	if dryRun {
		return s.err()
	}
	ok, err := Await(ctx, cl, changes, c.Patience, c.say)
	switch {
	case err != nil:
		return err
	case s.err() != nil:
		return s.err()
	case !ok:
		return silent(Failed)
	}
	return nil
}

// Apply registers a file's agents in one transaction of the registry.
func Apply(ctx context.Context, cl *client.ClientWithResponses, s Selection, prune, dryRun bool) ([]client.AgentChange, error) {
	entries := make([]client.AgentEntry, len(s.Agents))
	for i, a := range s.Agents {
		entry, err := agentsfile.Entry(a)
		if err != nil {
			return nil, err
		}
		entries[i] = entry
	}
	body := client.ApplyAgentsJSONRequestBody{Agents: entries, Prune: prune}
	if prune {
		body.Keep = s.keep()
	}
	answer, err := cl.ApplyAgentsWithResponse(ctx, &client.ApplyAgentsParams{DryRun: dryRun}, body)
	if err != nil {
		return nil, renamed(err, s.placeOf)
	}
	if answer.JSON200.Changes == nil {
		return []client.AgentChange{}, nil
	}
	return answer.JSON200.Changes, nil
}

// changes writes what an apply did or would do, as a diff.
func (c *command) changes(changes []client.AgentChange, s Selection) {
	for _, ch := range changes {
		sign := map[client.AgentChangeAction]string{client.AgentChangeActionCreate: "+", client.AgentChangeActionDelete: "-",
			client.AgentChangeActionUpdate: "~", client.AgentChangeActionResume: ">"}[ch.Action]
		if sign == "" {
			sign = "="
		}
		held := ""
		if ch.Held {
			held = " (stays paused, it is held: `reeve agent resume`)"
		}
		_, _ = fmt.Fprintf(c.Out, "%s %s/%s %s%s\n", sign, ch.Topic, ch.Name, ch.Action, held)
		for _, f := range ch.Fields {
			_, _ = fmt.Fprintf(c.Out, "    %s: %s → %s\n", f.Field, orNothing(f.Old), orNothing(f.New))
		}
		for _, w := range ch.Warnings {
			_, _ = fmt.Fprintf(c.Out, "    warning: %s\n", w)
		}
	}
	s.Say(func(format string, args ...any) { _, _ = fmt.Fprintf(c.Out, format+"\n", args...) })
	if len(changes)+len(s.Skipped)+len(s.Failed) == 0 {
		_, _ = fmt.Fprintln(c.Out, "no agents")
	}
}

func orNothing(v json.RawMessage) string {
	if len(v) == 0 || string(v) == "null" {
		return "nothing"
	}
	return string(v)
}

// Await waits until the agents of changes are up or in error, at most for a time, and says what went wrong; ok is false
// where one is in error.
func Await(ctx context.Context, cl *client.ClientWithResponses, changes []client.AgentChange, limit time.Duration, say func(format string, args ...any)) (ok bool, err error) {
	patience, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ok = true
	for _, ch := range changes {
		if ch.Action == client.AgentChangeActionDelete || ch.Held {
			continue
		}
		a, err := awaitAgent(patience, cl, ref{ch.Topic, ch.Name})
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil:
			return false, err
		case a == nil:
			say("%s/%s: the registry didn't say in time whether it is up: see `reeve agent get %s/%s`", ch.Topic, ch.Name, ch.Topic, ch.Name)
		default:
			ok = verdict(*a, say) && ok
		}
	}
	return ok, nil
}

// awaitAgent gives an agent as soon as it is up or in error, or as it is when the time is over.
func awaitAgent(ctx context.Context, cl *client.ClientWithResponses, r ref) (*client.Agent, error) {
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	var last *client.Agent
	for {
		answer, err := cl.GetAgentWithResponse(ctx, r.topic, r.name)
		switch {
		case ctx.Err() != nil:
			return last, nil
		case err != nil:
			return nil, err
		}
		last = answer.JSON200
		if last.Phase != spec.Active || up(*last) { // an agent that isn't to run doesn't come up
			return last, nil
		}
		select {
		case <-ctx.Done():
			return last, nil
		case <-tick.C:
		}
	}
}

// up reports whether an agent has a live worker, and its process runs.
func up(a client.Agent) bool {
	return a.Phase == spec.Active && a.Workers > 0 && (a.Instances > 0 || a.Runtime == spec.SDK)
}

// verdict says of an agent that isn't up what is wrong, and reports whether it is all right so far.
func verdict(a client.Agent, say func(format string, args ...any)) bool {
	switch {
	case a.Phase == spec.Error && a.Cause != nil:
		complain(a, *a.Cause, say)
		return false
	case a.Phase == spec.Error:
		say("%s/%s is in error: see `reeve agent get %s/%s`", a.Topic, a.Name, a.Topic, a.Name)
		return false
	case up(a):
		return true
	}
	for _, p := range a.Problems {
		if p.Error != nil && p.State != "outage" { // in an outage it is up, and waits
			complain(a, *p.Error, say)
			return false
		}
	}
	if a.Phase != spec.Active {
		say("%s/%s is registered, its phase is %s", a.Topic, a.Name, phase(a))
		return true
	}
	if a.TopicMissing {
		say("%s/%s is registered; its topic %s isn't on Kafka yet: create it, and its events are run from the first on", a.Topic, a.Name, a.Topic)
		return true
	}
	say("%s/%s is registered and isn't up yet: is a supervisor running? See `reeve health`", a.Topic, a.Name)
	return true
}

func complain(a client.Agent, cause spec.Cause, say func(format string, args ...any)) {
	say("%s/%s didn't come up: %s: %s", a.Topic, a.Name, cause.Type, cause.Message)
	if cause.Remediation != "" {
		say("  %s", cause.Remediation)
	}
}
