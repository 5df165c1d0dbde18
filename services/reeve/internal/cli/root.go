package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/pkg/client"
)

// System is what a command touches beyond its arguments.
type System struct {
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	Environ []string // in the form of os.Environ
	// Terminal reports whether questions can be asked and progress be drawn.
	Terminal bool
	// Patience is how long apply waits for agents to come up. Defaults to 10 s.
	Patience time.Duration
	// Dev runs `reeve dev`.
	Dev func(ctx context.Context, o DevOptions) error
}

// DevOptions are the flags of `reeve dev`.
type DevOptions struct {
	Data, Listen, KafkaListen, AgentsDir, File, DatabaseURL string
	Brokers                                                 []string
	// ListenGiven and KafkaListenGiven say that the address is the user's: another port won't do.
	ListenGiven, KafkaListenGiven bool
	FileGiven, AgentsDirGiven     bool
}

// OwnSystem is the process's own.
func OwnSystem() System {
	return System{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ(),
		Terminal: isatty.IsTerminal(os.Stdin.Fd()) && isatty.IsTerminal(os.Stderr.Fd())}
}

// Run executes a command line and returns its exit code.
func Run(ctx context.Context, s System, args []string) int {
	if s.Patience == 0 {
		s.Patience = 10 * time.Second
	}
	c := &command{System: s}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	c.report(err)
	return exitCode(err)
}

// command is one execution.
type command struct {
	System
	format string // of -o
}

func (c *command) variable(name string) string {
	for _, v := range slices.Backward(c.Environ) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// report says an error, and what to do about it.
func (c *command) report(err error) {
	var quiet silent
	if err == nil || errors.As(err, &quiet) {
		return
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	c.say("error: %s", err)
	var unreachable *client.UnreachableError
	switch {
	case errors.As(err, &unreachable):
		c.say("start a registry (`reeve dev` runs one), or name it in REEVE_URL")
	case client.Code(err) == "unauthorized":
		c.say("give the key in REEVE_API_KEY")
	}
}

// say writes a line for people.
func (c *command) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Err, format+"\n", args...)
}

// client connects to the registry that the environment names.
func (c *command) client() (*client.ClientWithResponses, error) {
	cl, err := client.New(client.Config{URL: c.variable("REEVE_URL"), Key: c.variable("REEVE_API_KEY")})
	if err != nil {
		return nil, usage("REEVE_URL: %w", err)
	}
	return cl, nil
}

func (c *command) root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "reeve",
		Short: "Run agents on Kafka",
		Long: `Run agents on Kafka: programs that react to events, supervised, retried, dead-lettered and counted.

REEVE_URL names the registry (default ` + client.DefaultURL + `), REEVE_API_KEY the key.
Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 unreachable.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	})
	root.PersistentPreRun = func(*cobra.Command, []string) { c.warn() }
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w: see `%s --help`", err, cmd.CommandPath())
	})
	root.AddCommand(c.dev(), c.apply(), c.publish(), c.agent(), c.task(), c.dlq(), c.health(), c.metrics(), c.bus())
	return root
}

// warn tells of variables that no part of Reeve reads.
func (c *command) warn() {
	_, warnings, _ := config.Load(config.Dev, c.Environ) // what is wrong with a service's is the service's to say
	for _, w := range warnings {
		c.say("warning: %s", w)
	}
}

// group makes a command of commands: alone it shows its help, and a command that it doesn't have is an error.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		hint := ""
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf(", did you mean %s?", strings.Join(near, " or "))
		}
		return usage("%q is no command of %s%s: see `%s --help`", args[0], cmd.CommandPath(), hint, cmd.CommandPath())
	}
	cmd.AddCommand(children...)
	return cmd
}

// exactly is cobra.ExactArgs with an exit code.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s takes %s, here are %d arguments: see `%s --help`", cmd.CommandPath(), what, len(args), cmd.CommandPath())
		}
		return nil
	}
}
