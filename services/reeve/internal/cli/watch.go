package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/reeve-run/reeve/pkg/client"
)

// shortestInterval keeps a watch from being a load.
const shortestInterval = 100 * time.Millisecond

// watchFlag gives a command that shows something --watch. It goes inside of outputFlag.
func (c *command) watchFlag(cmd *cobra.Command) *cobra.Command {
	var watch bool
	var every time.Duration
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again as it changes, until Ctrl-C; with -o jsonl a line for each item that is new or changed")
	cmd.Flags().DurationVar(&every, "interval", 2*time.Second, "how often --watch looks")
	completeFlag(cmd, "interval", words("1s", "2s", "5s", "30s", "1m"))
	show := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case !watch && cmd.Flags().Changed("interval"):
			return usage("--interval is of --watch: give both")
		case !watch:
			return show(cmd, args)
		case every < shortestInterval:
			return usage("--interval %s is too short: give at least %s", every, shortestInterval)
		}
		return c.follow(cmd.Context(), every, func() error { return show(cmd, args) })
	}
	return cmd
}

// follow shows something again and again until the context ends, which is a good end. A registry that goes away is
// waited for; one that isn't there from the beginning is an error.
func (c *command) follow(ctx context.Context, every time.Duration, show func() error) error {
	out := c.Out
	defer func() { c.Out = out }()
	v := c.view(out, every)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for first := true; ; first = false {
		var frame bytes.Buffer
		c.Out = &frame
		err := show()
		var quiet silent // which says by its exit code what the frame shows
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil || errors.As(err, &quiet):
			v.show(frame.Bytes())
		case first || !passing(err):
			return err
		default:
			v.lost(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// passing reports whether an error may be over at the next look: the registry is away, or what it needs is.
func passing(err error) bool {
	var unreachable *client.UnreachableError
	var problem *client.ProblemError
	return errors.As(err, &unreachable) || errors.As(err, &problem) && problem.Status >= 500
}

// A view shows what is watched.
type view interface {
	show(frame []byte)
	// lost says that nothing was seen this time.
	lost(err error)
}

// view is a screen's where there is one, and else a stream's. Lines are a stream everywhere.
func (c *command) view(out io.Writer, every time.Duration) view {
	if c.Window != nil && c.format != "jsonl" {
		return &screen{out: out, window: c.Window, every: every}
	}
	return &stream{out: out, say: c.say, format: c.format, every: every}
}

// screen draws over what it drew before.
type screen struct {
	out    io.Writer
	window func() (rows, columns int)
	every  time.Duration
	frame  []byte // the last one that was seen
	drawn  bool
}

func (s *screen) show(frame []byte) {
	s.frame = frame
	s.draw("")
}

func (s *screen) lost(err error) { s.draw(firstLine(err) + ": trying again") }

func (s *screen) draw(trouble string) {
	rows, columns := s.window()
	lines := []string{fmt.Sprintf("every %s, at %s; Ctrl-C ends", s.every, time.Now().Format(time.TimeOnly))}
	if trouble != "" {
		lines = append(lines, trouble)
	}
	lines = append(lines, strings.Split(strings.TrimRight(string(s.frame), "\n"), "\n")...)
	if over := len(lines) - (rows - 1); over > 0 && rows > 2 {
		lines = append(lines[:rows-2], fmt.Sprintf("… and %d lines more", over+1))
	}
	var b strings.Builder
	if !s.drawn {
		b.WriteString("\x1b[2J") // clear, once
		s.drawn = true
	}
	b.WriteString("\x1b[H") // to the top
	for _, line := range lines {
		if r := []rune(line); columns > 0 && len(r) > columns {
			line = string(r[:columns])
		}
		b.WriteString(line + "\x1b[K\n") // and clear the rest of the line
	}
	b.WriteString("\x1b[J") // and what is below
	_, _ = io.WriteString(s.out, b.String())
}

// stream writes what has changed, one after the other.
type stream struct {
	out    io.Writer
	say    func(format string, args ...any)
	format string
	every  time.Duration
	last   []byte
	begun  bool
	away   bool
}

func (s *stream) show(frame []byte) {
	if s.away {
		s.say("the registry answers again")
		s.away = false
	}
	if s.begun && bytes.Equal(frame, s.last) {
		return
	}
	last := s.last
	s.last = frame
	switch {
	case s.format == "jsonl":
		frame = changed(last, frame)
	case s.begun && s.format == "yaml":
		frame = append([]byte("---\n"), frame...)
	case s.begun && s.format != "json":
		frame = append([]byte("\n"), frame...)
	}
	s.begun = true
	_, _ = s.out.Write(frame)
}

func (s *stream) lost(err error) {
	if !s.away {
		s.say("%s: trying again every %s", firstLine(err), s.every)
		s.away = true
	}
}

// changed are the lines of a frame that weren't in the one before.
func changed(last, frame []byte) []byte {
	before := map[string]bool{}
	for line := range bytes.Lines(last) {
		before[string(line)] = true
	}
	var fresh []byte
	for line := range bytes.Lines(frame) {
		if !before[string(line)] {
			fresh = append(fresh, line...)
		}
	}
	return fresh
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// window is how large a terminal is now; rows is 0 where it doesn't say.
func window(f *os.File) (rows, columns int) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Row), int(size.Col)
}
