package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// ref names an agent: T/N as an argument, or --topic and --name.
type ref struct{ topic, name string }

func (r ref) String() string { return r.topic + "/" + r.name }

// refFlags gives a command --topic and --name, and completes agents.
func (c *command) refFlags(cmd *cobra.Command, r *ref) *cobra.Command {
	cmd.Flags().StringVar(&r.topic, "topic", "", "the agent's topic")
	cmd.Flags().StringVar(&r.name, "name", "", "the agent's name")
	completeFlag(cmd, "topic", c.completeTopics())
	completeFlag(cmd, "name", c.completeNames(&r.topic))
	cmd.ValidArgsFunction = first(c.completeAgents())
	return cmd
}

// resolve takes the one way of naming an agent that was used.
func (r ref) resolve(cmd *cobra.Command, args []string) (ref, error) {
	switch {
	case len(args) > 1:
		return ref{}, usage("%s takes one agent, here are %d", cmd.CommandPath(), len(args))
	case len(args) == 1 && (r.topic != "" || r.name != ""):
		return ref{}, usage("name the agent once: as %s, or by --topic and --name", args[0])
	case len(args) == 1:
		return parseRef(args[0])
	case r.topic == "" || r.name == "":
		return ref{}, usage("name the agent: %s TOPIC/NAME, or --topic and --name", cmd.CommandPath())
	}
	return r, nil
}

// checkAgent refuses the value of --agent that names none; "" is none given.
func checkAgent(agent string) error {
	if agent == "" {
		return nil
	}
	_, err := parseRef(agent)
	return err
}

func parseRef(written string) (ref, error) {
	topic, name, ok := strings.Cut(written, "/")
	if !ok || topic == "" || name == "" || strings.Contains(name, "/") {
		return ref{}, usage("%q is no agent: write TOPIC/NAME", written)
	}
	return ref{topic, name}, nil
}

// confirm asks before data is destroyed.
func (c *command) confirm(yes bool, format string, args ...any) error {
	if yes {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if !c.Terminal {
		return usage("%s: nobody can be asked here: say --yes if that is meant", what)
	}
	_, _ = fmt.Fprintf(c.Err, "%s\nType yes to go on: ", what)
	answer, err := bufio.NewReader(c.In).ReadString('\n')
	if errors.Is(err, context.Canceled) {
		return err
	}
	if strings.TrimSpace(strings.ToLower(answer)) != "yes" {
		return failure(Failed, "not confirmed: nothing was changed")
	}
	return nil
}
