package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type usage struct{ error }

func (usage) ExitCode() int { return Usage }

func TestTheExitCodeTellsHowItEnded(t *testing.T) {
	untilDone := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	over := make(chan struct{})
	defer close(over)
	stuck := func(context.Context) error { <-over; return nil } // for longer than anybody waits
	for name, tt := range map[string]struct {
		run     func(context.Context) error
		signals int
		code    int
		says    string
	}{
		"ended by itself":         {func(context.Context) error { return nil }, 0, Done, ""},
		"an error":                {func(context.Context) error { return errors.New("port in use") }, 0, Failed, "port in use"},
		"an error with a code":    {func(context.Context) error { return fmt.Errorf("x: %w", usage{errors.New("bad flag")}) }, 0, Usage, "bad flag"},
		"a signal":                {untilDone, 1, Done, ""},
		"an error while stopping": {func(ctx context.Context) error { <-ctx.Done(); return errors.New("drain incomplete") }, 1, Failed, "drain incomplete"},
		"a stop that hangs":       {stuck, 1, Failed, "longer than"},
		"a second signal":         {stuck, 2, Failed, "second signal"},
	} {
		t.Run(name, func(t *testing.T) {
			signals := make(chan os.Signal, 2)
			for range tt.signals {
				signals <- syscall.SIGTERM
			}
			limit := time.Minute
			if tt.says == "longer than" {
				limit = time.Millisecond
			}
			var stderr bytes.Buffer
			if code := supervise(tt.run, signals, limit, &stderr); code != tt.code || !strings.Contains(stderr.String(), tt.says) {
				t.Errorf("code %d, %q", code, stderr.String())
			}
		})
	}
}
