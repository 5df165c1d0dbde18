package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/reeve-run/reeve/pkg/client"
)

// change changes a fake while it answers.
func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fake) setVersion(ref, version string) {
	f.change(func() {
		a := f.agents[ref]
		a.Version = version
		f.agents[ref] = a
	})
}

// watched is a command that runs until it is stopped.
type watched struct {
	t        *testing.T
	out, err *bufio.Reader
	stop     context.CancelFunc
	code     chan int
}

func watching(t *testing.T, environ []string, args ...string) *watched {
	t.Helper()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{t, bufio.NewReader(outR), bufio.NewReader(errR), cancel, make(chan int, 1)}
	var running sync.WaitGroup
	running.Go(func() {
		code := Run(ctx, System{Out: outW, Err: errW, Environ: environ}, args)
		_, _ = outW.Close(), errW.Close()
		w.code <- code
	})
	t.Cleanup(func() {
		cancel()
		_, _ = outR.Close(), errR.Close()
		running.Wait()
	})
	return w
}

// line reads the next line; the test's own deadline ends one that doesn't come.
func (w *watched) line(r *bufio.Reader, has string) {
	w.t.Helper()
	got, err := r.ReadString('\n')
	if err != nil || !strings.Contains(got, has) {
		w.t.Fatalf("got %q, %v; want %q in it", got, err, has)
	}
}

func (w *watched) ends(want int) {
	w.t.Helper()
	w.stop()
	if got := <-w.code; got != want {
		w.t.Errorf("exit code %d, want %d", got, want)
	}
}

func TestAWatchWritesALineForEachChange(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(f.handler())
	defer server.Close()
	w := watching(t, []string{"REEVE_URL=" + server.URL}, "agent", "list", "-w", "--interval", "100ms", "-o", "jsonl")
	w.line(w.out, `"name":"a"`)
	f.change(func() {
		b := running()
		b.Name = "b"
		f.agents["t/b"] = b
	})
	w.line(w.out, `"name":"b"`) // and not a again
	f.setVersion("t/a", "1.0.1")
	w.line(w.out, `"version":"1.0.1"`)
	w.ends(Done)
}

func TestAWatchOnAPipeWritesAFreshBlock(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(f.handler())
	defer server.Close()
	w := watching(t, []string{"REEVE_URL=" + server.URL}, "agent", "get", "t/a", "--watch", "--interval", "100ms", "-o", "yaml")
	for line := ""; line != "workers: 1\n"; {
		var err error
		if line, err = w.out.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	f.setVersion("t/a", "1.0.1")
	w.line(w.out, "---")
	w.ends(Done)
}

func TestAWatchOutlivesTheRegistry(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(f.handler())
	w := watching(t, []string{"REEVE_URL=" + server.URL}, "agent", "list", "-w", "--interval", "100ms")
	w.line(w.out, "TOPIC")
	w.line(w.out, "1.0.0")
	server.Close()
	w.line(w.err, "trying again every 100ms")
	f.setVersion("t/a", "1.0.1")
	again, err := net.Listen("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server = &httptest.Server{Listener: again, Config: &http.Server{Handler: f.handler(), ReadHeaderTimeout: time.Minute}}
	server.Start()
	defer server.Close()
	w.line(w.err, "the registry answers again")
	w.line(w.out, "\n")
	w.line(w.out, "TOPIC")
	w.line(w.out, "1.0.1")
	w.ends(Done)
}

func TestAWatchEndsByWhatDoesNotPass(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(f.handler())
	defer server.Close()
	w := watching(t, []string{"REEVE_URL=" + server.URL}, "agent", "get", "t/a", "-w", "--interval", "100ms", "-o", "jsonl")
	w.line(w.out, `"name":"a"`)
	f.change(func() { delete(f.agents, "t/a") })
	w.line(w.err, "agent_not_found")
	_, _ = io.Copy(io.Discard, w.err)
	if code := <-w.code; code != NotFound {
		t.Errorf("exit code %d", code)
	}
}

func TestWatchingABadRegistryOrTooOften(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"agent list -w":                    {Unreachable, "no answer"},
		"agent list -w --interval 1ms":     {Usage, "give at least 100ms"},
		"agent list --interval 1s":         {Usage, "--interval is of --watch"},
		"agent list -w --interval 1s -o x": {Usage, "-o x is unknown"},
	} {
		got := execute(t.Context(), System{Environ: []string{"REEVE_URL=" + closed.URL}}, strings.Fields(args)...)
		if got.code != want.code || !strings.Contains(got.err, want.says) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestWhatPasses(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&client.UnreachableError{Err: io.EOF}, true},
		{&client.ProblemError{Problem: client.Problem{Status: 503}}, true},
		{&client.ProblemError{Problem: client.Problem{Status: 401}}, false},
		{errors.New("x"), false},
	} {
		if got := passing(tt.err); got != tt.want {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
}

func TestAFrameThatIsTooLargeIsCut(t *testing.T) {
	var out strings.Builder
	s := &screen{out: &out, window: func() (int, int) { return 5, 6 }}
	s.show([]byte("1\n22222222\n3\n4\n5\n"))
	lines := strings.Split(strings.NewReplacer("\x1b[2J", "", "\x1b[H", "", "\x1b[K", "", "\x1b[J", "").Replace(out.String()), "\n")
	if want := []string{"every ", "1", "222222", "… and ", ""}; !slices.Equal(lines, want) {
		t.Errorf("got %q", lines)
	}
	out.Reset()
	s.window = func() (int, int) { return 0, 0 }
	s.lost(errors.New("gone\nfor ever"))
	if got := out.String(); strings.Contains(got, "\x1b[2J") || !strings.Contains(got, "gone: trying again\x1b[K\n1\x1b[K\n22222222\x1b[K\n") {
		t.Errorf("got %q", got)
	}
}

// terminal starts the command on a terminal of 10 rows.
func terminal(t *testing.T, url string, args ...string) (*os.File, *exec.Cmd) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), asReeve+"=1", "REEVE_URL="+url, "TERM=xterm")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 10, Cols: 120})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return tty, cmd
}

// until reads a terminal up to a text, and gives what it read.
func until(t *testing.T, tty io.Reader, text string) string {
	t.Helper()
	var got strings.Builder
	buffer := make([]byte, 1)
	for !strings.HasSuffix(got.String(), text) {
		if _, err := tty.Read(buffer); err != nil {
			t.Fatalf("%v before %q: %q", err, text, got.String())
		}
		got.Write(buffer)
	}
	return got.String()
}

func TestAWatchRedrawsATerminalAndCtrlCEndsItWell(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(f.handler())
	defer server.Close()
	tty, cmd := terminal(t, server.URL, "agent", "list", "-w", "--interval", "100ms")
	if got := until(t, tty, "1.0.0"); !strings.Contains(got, "\x1b[2J\x1b[Hevery 100ms") {
		t.Errorf("got %q", got)
	}
	f.setVersion("t/a", "1.0.1")
	if got := until(t, tty, "1.0.1"); strings.Contains(got, "\x1b[2J") || !strings.Contains(got, "\x1b[H") {
		t.Errorf("it isn't redrawn in place: %q", got)
	}
	if _, err := tty.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, tty) // to its end
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
}

func TestATerminalIsAskedBeforeDataGoes(t *testing.T) {
	for answer, deleted := range map[string]int{"yes\r": 1, "n\r": 0} {
		f := newFake()
		server := httptest.NewServer(f.handler())
		tty, cmd := terminal(t, server.URL, "agent", "delete", "t/a", "--delete-dlq")
		if got := until(t, tty, "Type yes to go on: "); !strings.Contains(got, "discards 3 dead letters for ever") {
			t.Errorf("got %q", got)
		}
		if _, err := tty.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, tty)
		err := cmd.Wait()
		server.Close()
		if len(f.deleted) != deleted || (err == nil) != (deleted == 1) {
			t.Errorf("%q: %d deletions, %v", answer, len(f.deleted), err)
		}
	}
}
