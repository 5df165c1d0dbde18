package cli

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/reeve/internal/scaffold"
)

// namedInTheWay is how many names of what is in the way are told.
const namedInTheWay = 5

func (c *command) initialize() *cobra.Command {
	var o scaffold.Options
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Make an agent from a template, with a test that runs",
		Long: `Make the directory of an agent: its code, its entry in agents.yaml, a sample event and a test, in Python, Node, Go or as
a program of any language (command), and say what to type next.

The directory must be empty or not there yet. The agent is named after it.`,
		Example: "  reeve init my-agent --lang python",
		Args:    exactly(1, "one directory"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := c.settle(&o, args[0]); err != nil {
				return err
			}
			return c.scaffold(args[0], o)
		},
	}
	cmd.Flags().StringVar(&o.Lang, "lang", "python", "what the agent is written in: "+strings.Join(scaffold.Languages(), ", "))
	cmd.Flags().StringVar(&o.Name, "name", "", "the agent's name (default: the directory's)")
	cmd.Flags().StringVar(&o.Topic, "topic", "", "the topic that it listens to (default: NAME.requested)")
	completeFlag(cmd, "lang", words(scaffold.Languages()...))
	return alone(cmd)
}

// settle fills in what wasn't given and checks the whole.
func (c *command) settle(o *scaffold.Options, dir string) error {
	if !slices.Contains(scaffold.Languages(), o.Lang) {
		return usage("--lang %s is unknown: use %s", o.Lang, strings.Join(scaffold.Languages(), ", "))
	}
	if o.Name == "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return failure(Failed, "find the directory: %w", err)
		}
		o.Name = filepath.Base(abs)
		if err := spec.CheckName(o.Name); err != nil {
			return usage("the agent is named after its directory, and %w: give another by --name", err)
		}
	} else if err := spec.CheckName(o.Name); err != nil {
		return usage("--name: %w", err)
	}
	if o.Topic == "" {
		o.Topic = o.Name + ".requested"
	}
	if err := spec.CheckTopic(o.Topic); err != nil {
		return usage("%w: give another by --topic", err)
	}
	names := topics.Names{Prefix: c.variable("REEVE_TOPIC_PREFIX")}
	if names.Reserved(o.Topic) {
		return usage("the topic %s is one of Reeve's own: give another by --topic", o.Topic)
	}
	if err := names.Check(o.Topic, o.Name); err != nil {
		return usage("%w: give others by --name and --topic", err)
	}
	return nil
}

func (c *command) scaffold(dir string, o scaffold.Options) error {
	inTheWay, err := scaffold.InTheWay(dir, namedInTheWay)
	if err != nil {
		return failure(Failed, "%w", err)
	}
	if len(inTheWay) > 0 {
		return failure(Failed, "%s is not empty, nothing was written: in the way %s: name another directory, or empty this one", dir, are(inTheWay))
	}
	made, err := scaffold.Write(dir, o)
	if err != nil {
		return failure(Failed, "%w", err)
	}
	_, _ = fmt.Fprintf(c.Out, "made %s: %s\n\nNext:\n", dir, strings.Join(made, ", "))
	if filepath.Clean(dir) != "." {
		_, _ = fmt.Fprintf(c.Out, "    cd %s\n", quoted(dir))
	}
	for _, s := range scaffold.Steps(quoted(c.Program), o) {
		remark := ""
		if s.Remark != "" {
			remark = "    # " + s.Remark
		}
		_, _ = fmt.Fprintf(c.Out, "    %s%s\n", s.Command, remark)
	}
	return nil
}

func are(names []string) string {
	if len(names) == 1 {
		return "is " + names[0]
	}
	return "are " + strings.Join(names, ", ")
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./@%+=:,-]+$`)

// quoted writes a word as a shell takes it.
func quoted(word string) string {
	if plain.MatchString(word) && !strings.HasPrefix(word, "-") {
		return word
	}
	if strings.HasPrefix(word, "-") {
		word = "./" + word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
