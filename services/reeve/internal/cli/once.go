package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// once is the value of a flag that takes one: a second one would push the first aside, and nobody would hear of it.
type once struct {
	pflag.Value
	given bool
}

func (o *once) Set(s string) error {
	if o.given {
		return errors.New("it is given twice and takes one value")
	}
	o.given = true
	return o.Value.Set(s)
}

// onceEach lets every flag of a command and those below it be given once, but for those that take several values.
func onceEach(cmd *cobra.Command) {
	guard := func(f *pflag.Flag) {
		if !strings.HasSuffix(f.Value.Type(), "Slice") && !strings.HasSuffix(f.Value.Type(), "Array") {
			f.Value = &once{Value: f.Value}
		}
	}
	cmd.Flags().VisitAll(guard)
	cmd.PersistentFlags().VisitAll(guard)
	for _, child := range cmd.Commands() {
		onceEach(child)
	}
}
