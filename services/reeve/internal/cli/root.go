package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/version"
	"github.com/reeve-run/reeve/pkg/client"
)

// System is what a command touches beyond its arguments.
type System struct {
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	Environ []string // in the form of os.Environ
	// Program is how the command is called, for telling what to type. Defaults to reeve.
	Program string
	// Terminal reports whether questions can be asked and progress be drawn.
	Terminal bool
	// Window says how many rows and columns the terminal behind Out has, 0 where it doesn't know. Nil where Out is no
	// terminal that can be drawn on.
	Window func() (rows, columns int)
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
	s := System{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ(), Program: program(os.Args[0]),
		Terminal: isatty.IsTerminal(os.Stdin.Fd()) && isatty.IsTerminal(os.Stderr.Fd())}
	if term := os.Getenv("TERM"); term != "" && term != "dumb" && isatty.IsTerminal(os.Stdout.Fd()) {
		s.Window = func() (int, int) { return window(os.Stdout) }
	}
	return s
}

// program is what to type for a command from anywhere: a path that was typed is made absolute.
func program(called string) string {
	if abs, err := filepath.Abs(called); err == nil && strings.Contains(called, "/") {
		return abs
	}
	return called
}

// Run executes a command line and returns its exit code.
func Run(ctx context.Context, s System, args []string) int {
	if s.Patience == 0 {
		s.Patience = 10 * time.Second
	}
	if s.Program == "" {
		s.Program = "reeve"
	}
	c := &command{System: s}
	c.In = &input{ctx: ctx, from: s.In}
	root := c.root()
	if len(args) == 0 || !strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) { // completion parses a line's flags twice
		oneFile(root)
	}
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	c.report(ctx, err)
	return exitCode(err)
}

// input reads until the context ends: a terminal or a pipe that gives nothing must not keep Ctrl-C from its end.
type input struct {
	ctx  context.Context
	from io.Reader
}

// Read reads what comes first, input or the end of the context. A read that is left waiting ends with the process.
func (i *input) Read(b []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	type result struct {
		data []byte
		err  error
	}
	got := make(chan result, 1)
	go func() {
		own := make([]byte, len(b)) // the caller's may be used again by then
		n, err := i.from.Read(own)
		got <- result{own[:n], err}
	}()
	select {
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	case r := <-got:
		return copy(b, r.data), r.err
	}
}

// command is one execution.
type command struct {
	System
	format       string     // of -o
	url, profile string     // of --url and --profile
	conn         connection // the one in use
	registry     *client.ClientWithResponses
	topic        string                 // that the command is about
	theirs       atomic.Pointer[string] // the version that the registry says; nil before its first answer
}

func (c *command) variable(name string) string {
	for _, v := range slices.Backward(c.Environ) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// say writes a line for people.
func (c *command) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Err, format+"\n", args...)
}

func (c *command) root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "reeve",
		Short: "Run agents on Kafka",
		Long: `Run agents on Kafka: programs that react to events, supervised, retried, dead-lettered and counted.

Where the registry is says --url, else --profile, REEVE_URL, REEVE_PROFILE, the current profile (` + "`reeve config`" + `), else it is
` + client.DefaultURL + `. The key is REEVE_API_KEY's or the profile's.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 unreachable.`,
		Version:       version.Number,
		SilenceUsage:  true,
		SilenceErrors: true,
	})
	root.PersistentFlags().StringVar(&c.url, "url", "", "the registry's URL")
	root.PersistentFlags().StringVar(&c.profile, "profile", "", "the profile with the registry's URL and key")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		c.warn()
		return checkOffline(cmd)
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%s: see `%s --help`", inWords(err.Error()), cmd.CommandPath())
	})
	completeFlag(root, "profile", c.completeProfiles)
	completeFlag(root, "url", nothing)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(help(root))
	root.SetHelpCommandGroupID("Set up:")
	section(root, "Run agents:", c.initialize(), c.importer(), c.dev(), c.run(), c.apply())
	section(root, "Work with them:", c.publish(), c.agent(), c.task(), c.dlq(), c.webhook())
	section(root, "Look at them:", c.health(), c.metrics(), c.bus(), c.storage())
	section(root, "Set up:", c.config(), c.completion(), c.version())
	section(root, "On your Kafka:", c.doctor(), c.topics(), c.acls())
	return root
}

// help is cobra's, with an exit code for what there is no help on.
func help(root *cobra.Command) *cobra.Command {
	return alone(&cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command",
		Example: "  reeve help agent list",
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 || target == root && len(args) > 0 {
				return usage("%q is no command: see `reeve --help`", strings.Join(args, " "))
			}
			return target.Help()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			target, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return nil, noFiles
			}
			var list []string
			for _, child := range target.Commands() {
				list = append(list, child.Name()+"\t"+child.Short)
			}
			return list, noFiles
		},
	})
}

// section adds commands under a title of the help.
func section(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, cmd := range commands {
		cmd.GroupID = title
	}
	root.AddCommand(commands...)
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

// offline marks a command that asks no registry.
const offline = "offline"

// alone makes a command one that asks no registry, so that it refuses to be told of one.
func alone(cmd *cobra.Command) *cobra.Command {
	cmd.Annotations = map[string]string{offline: "true"}
	return cmd
}

func checkOffline(cmd *cobra.Command) error {
	if cmd.Annotations[offline] == "" {
		return nil
	}
	for _, name := range []string{"url", "profile"} {
		if f := cmd.InheritedFlags().Lookup(name); f != nil && f.Changed {
			return usage("%s asks no registry: leave out --%s", cmd.CommandPath(), name)
		}
	}
	return nil
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
