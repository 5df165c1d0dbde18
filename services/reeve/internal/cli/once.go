package cli

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// once is the value of a flag that takes one where people expect that it takes several: a second one would push the
// first aside, and nobody would hear of it.
type once struct {
	pflag.Value
	given bool
}

func (o *once) Set(s string) error {
	if o.given {
		return errors.New("it is given twice and takes one file: put the agents into one, or run the command for each")
	}
	o.given = true
	return o.Value.Set(s)
}

// oneFile lets -f be given once, to a command and to those below it. Of other flags the last one counts, as everywhere.
func oneFile(cmd *cobra.Command) {
	if f := cmd.Flags().Lookup("file"); f != nil {
		f.Value = &once{Value: f.Value}
	}
	for _, child := range cmd.Commands() {
		oneFile(child)
	}
}
