package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/services/reeve/internal/omnidaemon"
)

func (c *command) importer() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "import RUNNER",
		Short: "Make agents.yaml of an OmniDaemon runner",
		Long: `Make agents.yaml of an OmniDaemon runner: the Python program that registers agents with its SDK.

The runner is parsed, not run. What can't be translated becomes a comment in the file and a line on standard error; if
an agent as a whole can't be, the exit code is 1. Put the file beside the runner: directories are relative to it.`,
		Example: "  reeve import agent_runner.py -f agents.yaml\n  reeve apply --dry-run",
		Args:    exactly(1, "one runner"),
		RunE: func(cmd *cobra.Command, args []string) error {
			runner, err := omnidaemon.Read(cmd.Context(), args[0], c.Environ)
			if err != nil {
				return failure(Failed, "%w", err)
			}
			t := runner.Translate()
			if t.Agents+t.Lost == 0 {
				return failure(Failed, "%s registers no agents, it calls register_agent nowhere: name the file that does", args[0])
			}
			if err := c.writeNew(file, t.YAML); err != nil {
				return err
			}
			for _, n := range t.Notes {
				c.say("%s:%d: %s", args[0], n.Line, n.Text)
			}
			if t.Lost > 0 {
				return failure(Failed, "%d of %d agents aren't translated: they stand as comments in the file, write them by hand", t.Lost, t.Agents+t.Lost)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the file to write, which must not be there yet (default: standard output)")
	return alone(cmd)
}

// writeNew writes a file that isn't there yet, or standard output.
func (c *command) writeNew(path string, text []byte) error {
	if path == "" {
		_, err := c.Out.Write(text)
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	switch {
	case errors.Is(err, os.ErrExist):
		return failure(Failed, "%s is there already, nothing was written: name another by -f, or take it away", path)
	case err != nil:
		return failure(Failed, "write the file: %w", err)
	}
	_, err = f.Write(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
		return failure(Failed, "write %s: %w", path, err)
	}
	_, err = fmt.Fprintf(c.Out, "wrote %s\n", path)
	return err
}
