package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/client"
)

func (c *command) completion() *cobra.Command {
	scripts := map[string]func(*cobra.Command, io.Writer) error{
		"bash": func(root *cobra.Command, w io.Writer) error {
			if err := root.GenBashCompletionV2(w, true); err != nil {
				return err
			}
			_, err := io.WriteString(w, bashAlone)
			return err
		},
		"zsh":  func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) },
		"fish": func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
	}
	shells := sorted(scripts)
	return alone(&cobra.Command{
		Use:   "completion bash|fish|zsh",
		Short: "Write a shell's completion script",
		Long: `Write a shell's completion script. It completes commands and flags, and the names that the registry has: agents, topics,
tasks. Where the registry isn't reached within a second it completes without them.

  bash   source <(reeve completion bash)         in ~/.bashrc
  zsh    source <(reeve completion zsh)          in ~/.zshrc, behind compinit
  fish   reeve completion fish | source          in ~/.config/fish/config.fish`,
		Example: "  reeve completion bash",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || scripts[args[0]] == nil {
				return usage("name the shell: %s %s", cmd.CommandPath(), strings.Join(shells, "|"))
			}
			return nil
		},
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			return scripts[args[0]](cmd.Root(), c.Out)
		},
	})
}

// bashAlone replaces the one function of cobra's script that needs the bash-completion package, where that isn't loaded.
// Bash parts words at = and : too, which belong to the word here.
const bashAlone = `
__reeve_init_completion()
{
    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref "$@" cur prev words cword
        return
    fi
    local i last word
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        last=$((${#words[@]} - 1))
        if ((last > 0)) && [[ $word == [=:]* || ${words[last]} == *[=:] ]]; then
            words[last]+=$word
        else
            words+=("$word")
        fi
    done
    cword=$((${#words[@]} - 1))
    cur=${words[cword]}
    prev=${words[cword > 0 ? cword - 1 : 0]}
}
`

// A completer completes an argument or a flag's value.
type completer = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

const noFiles = cobra.ShellCompDirectiveNoFileComp

// words completes words that are always the same.
func words(list ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return list, noFiles }
}

// nothing completes with nothing, where a shell would offer files.
func nothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, noFiles
}

// live completes with what the registry has; where it doesn't answer in time, with nothing and in silence.
func (c *command) live(ask func(context.Context, *client.ClientWithResponses) ([]string, error)) completer {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := bounded(cmd.Context())
		defer cancel()
		cl, err := c.client()
		if err != nil {
			return nil, noFiles
		}
		list, err := ask(ctx, cl)
		if err != nil {
			return nil, noFiles
		}
		return list, noFiles
	}
}

// first completes the first argument only.
func first(complete completer) completer {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		return complete(cmd, args, typed)
	}
}

func (c *command) completeProfiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	file, err := c.profiles()
	if err != nil {
		return nil, noFiles
	}
	var list []string
	for _, name := range file.Names() {
		list = append(list, name+"\t"+file.Profiles[name].URL)
	}
	return list, noFiles
}

// completeAgents completes TOPIC/NAME.
func (c *command) completeAgents() completer {
	return c.agentsBy(func(a client.Agent) string { return a.Topic + "/" + a.Name + "\t" + phase(a) })
}

// completeTopics completes the topics that agents listen to.
func (c *command) completeTopics() completer {
	return c.agentsBy(func(a client.Agent) string { return a.Topic })
}

// completeNames completes agents' names, those of --topic if it is given.
func (c *command) completeNames(topic *string) completer {
	return c.agentsBy(func(a client.Agent) string {
		if *topic != "" && a.Topic != *topic {
			return ""
		}
		return a.Name + "\t" + a.Topic
	})
}

// agentsBy completes with something of every agent, each once.
func (c *command) agentsBy(word func(client.Agent) string) completer {
	return c.live(func(ctx context.Context, cl *client.ClientWithResponses) ([]string, error) {
		size := 1000
		answer, err := cl.ListAgentsWithResponse(ctx, &client.ListAgentsParams{PageSize: &size})
		if err != nil {
			return nil, err
		}
		var list []string
		for _, a := range answer.JSON200.Items {
			if w := word(a); w != "" {
				list = append(list, w)
			}
		}
		slices.Sort(list)
		return slices.Compact(list), nil
	})
}

// completeTasks completes the ids of the latest tasks.
func (c *command) completeTasks() completer {
	return c.live(func(ctx context.Context, cl *client.ClientWithResponses) ([]string, error) {
		size := 50
		answer, err := cl.ListTasksWithResponse(ctx, &client.ListTasksParams{PageSize: &size})
		if err != nil {
			return nil, err
		}
		var list []string
		for _, t := range answer.JSON200.Items {
			list = append(list, fmt.Sprintf("%s\t%s by %s", t.Id, t.Status, t.Name))
		}
		return list, nil
	})
}

// completeFlag completes a flag's value.
func completeFlag(cmd *cobra.Command, flag string, complete completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the command has no such flag
	}
}
