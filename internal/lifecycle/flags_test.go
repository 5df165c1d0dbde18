package lifecycle

import (
	"bytes"
	"flag"
	"fmt"
	"strings"
	"testing"
)

func TestTheUsageIsWrittenOnce(t *testing.T) {
	for line, want := range map[string]struct {
		code   int
		ok     bool
		usages int
	}{
		"": {0, true, 0}, "-x": {0, true, 0}, "--help": {0, false, 1}, "-h": {0, false, 1}, "--nosuch": {Usage, false, 1}, "start": {Usage, false, 1},
	} {
		var out bytes.Buffer
		flags := flag.NewFlagSet("service", flag.ContinueOnError)
		flags.SetOutput(&out)
		flags.Usage = func() { _, _ = fmt.Fprintln(&out, "usage: service [-x]") }
		flags.Bool("x", false, "")
		code, ok := Flags(flags, strings.Fields(line))
		if code != want.code || ok != want.ok || strings.Count(out.String(), "usage:") != want.usages {
			t.Errorf("%s: %d, %t, %q", line, code, ok, out.String())
		}
	}
}
