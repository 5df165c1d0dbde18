package lifecycle

import (
	"errors"
	"flag"
	"fmt"
)

// Flags parses a service's command line, which takes flags alone. Where ok is false there is nothing to run: the usage was
// written, once, and the process ends with code, which is 0 for who asked for help. flags must be made with
// flag.ContinueOnError.
func Flags(flags *flag.FlagSet, args []string) (code int, ok bool) {
	err := flags.Parse(args) // which writes the error and the usage
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0, false
	case err != nil:
		return Usage, false
	case flags.NArg() > 0:
		_, _ = fmt.Fprintf(flags.Output(), "%q is no flag\n", flags.Arg(0))
		flags.Usage()
		return Usage, false
	}
	return 0, true
}
